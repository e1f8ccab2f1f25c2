"""The Responses API over WebSocket (``docs/reference/api.md``): one connection, many streams.

A ``stream_id`` names a *lane*. Responses of one lane run one after another, those of different
lanes in parallel. Resumed responses belong to no lane. Only a message beyond the hard limit ends
the connection; any other wrong message gets an error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, TypeAlias

import msgspec
import orjson
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Meta

from gateway.api import refusals
from gateway.api.auth import SUBPROTOCOL
from gateway.api.connections import outlet_of
from gateway.api.followers import EventFollower
from gateway.api.http import of_client
from gateway.api.outlet import MOST_SHORT_BYTES, Outlet
from gateway.guard import broken
from gateway.response.event_log import EventLog, LogTruncated
from gateway.response.session import Session
from gateway.schemas import events
from gateway.schemas.bodies import ResponsesBody, Seconds, parse_body, parse_json_object
from gateway.schemas.errors import (
    ApiError,
    InvalidRequest,
    NotFound,
    Overloaded,
    TooLarge,
    convert,
)
from gateway.schemas.generation import Targets
from gateway.service import ResponseService

log = structlog.get_logger()

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

PING = "ping"
_PING_INTERVAL_S = 25.0
# Fields of `response.create` that belong to the socket, not to the Responses body.
_ENVELOPE = ("type", "stream_id")


class ReadReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far the reader has read the answer, and with what QoE, as the client saw it."""

    tokens: Annotated[int, Meta(ge=0)]
    qoe: Annotated[float, Meta(ge=0, le=1)]


class PacingUpdate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``response.pacing.update``."""

    type: str
    response_id: str
    tpot_s: Seconds | None = None
    paused: bool | None = None
    read: ReadReport | None = None
    stream_id: str | None = None


class Resume(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``response.resume``; ``starting_after`` -1 (the default) sends everything."""

    type: str
    response_id: str
    starting_after: Annotated[int, Meta(ge=-1)] = -1
    stream_id: str | None = None


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``response.cancel``."""

    type: str
    response_id: str
    read_tokens: Annotated[int, Meta(ge=0)] | None = None
    stream_id: str | None = None


class SocketPing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``ping``: answered at once by ``pong``, because a browser cannot see pings of the socket.

    With ``response_id``, the answer says how many requests wait before that one.
    """

    type: str
    response_id: str | None = None
    stream_id: str | None = None


class _Socket(web.WebSocketResponse):
    """Sends no event after the close frame (RFC 6455, section 5.5.1)."""

    outlet: Outlet | None = None

    async def close(self, **kwargs: Any) -> bool:
        """Close the connection, whoever asked for it."""
        if self.outlet is not None:
            self.outlet.shut()
        return await super().close(**kwargs)


class WebSocketConnection:
    """One client socket."""

    def __init__(self, service: ResponseService, owner: str, defaults: Targets) -> None:
        config = service.config
        self.socket = _Socket(
            heartbeat=_PING_INTERVAL_S,
            max_msg_size=config.server.hard_message_bytes,
            compress=False,
            protocols=(SUBPROTOCOL,),
        )
        self._service = service
        self._owner = owner
        self._defaults = defaults
        # Waiting bodies of each lane, with the sizes of their messages.
        self._lanes: dict[str | None, deque[tuple[ResponsesBody, int]]] = {}
        self._waiting_bytes = 0  # of all of them
        self._resumed = 0  # resumed responses that are being followed
        self._tasks: set[asyncio.Task[None]] = set()
        self._outlet: Outlet
        self._headers: Mapping[str, str] = {}  # of the request that opened it

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Upgrade the connection and exchange messages until the socket closes."""
        self._headers = request.headers
        await self.socket.prepare(request)
        self._outlet = self.socket.outlet = outlet_of(request)
        self._outlet.on_stall = self._stalled
        try:
            async for message in self.socket:
                if message.type is WSMsgType.TEXT:
                    await self._receive(message.data)
                elif message.type is WSMsgType.BINARY:
                    await self._refuse(
                        InvalidRequest("Messages must be JSON text, not binary.", param=None)
                    )
                elif message.type is WSMsgType.ERROR:
                    log.info("socket_failed", reason=str(self.socket.exception()))
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
        return self.socket

    async def close(self) -> None:
        """Close the socket because the server shuts down."""
        if not self.socket.prepared:
            return  # the upgrade was not answered: the request ends with the server
        await self.socket.close(code=WSCloseCode.GOING_AWAY, message=b"server shutting down")

    def _stalled(self) -> None:
        """Tell a client that does not read why its connection ends."""
        reason = b"the client does not read its events"
        self._spawn(
            lambda: self._closed(WSCloseCode.POLICY_VIOLATION, reason),
            None,
        )

    async def _closed(self, code: WSCloseCode, reason: bytes) -> None:
        await self.socket.close(code=code, message=reason, drain=False)

    # ---- client events ------------------------------------------------------------------------

    async def _receive(self, text: str) -> None:
        stream_id = None
        try:
            size = len(text.encode())
            bound = self._service.config.server.max_message_bytes
            if size > bound:
                raise TooLarge(size, bound)
            document = parse_json_object(text)
            stream_id = _stream_id(document)
            self._service.keys.check(self._owner)  # it may have been revoked
            if document.get("type") == PING:
                ping = convert(document, SocketPing)
                ahead = None
                if ping.response_id is not None:
                    ahead = self._service.requests_ahead(ping.response_id, self._owner)
                # A client that does not read waits here: its pings do not pile up.
                await self._send(orjson.dumps(events.pong(stream_id, ahead)))
            else:
                self._dispatch(document, stream_id, size)
        except ApiError as error:
            await self._refuse(error, stream_id)
        except Exception:
            log.exception("event_failed")
            await self._send_error(broken(), stream_id)

    def _dispatch(self, document: dict[str, Any], stream_id: str | None, size: int) -> None:
        match document.get("type"):
            case "response.create":
                self._create(document, stream_id, size)
            case "response.cancel":
                cancel = convert(document, Cancel)
                session = self._service.find(cancel.response_id, self._owner)
                self._service.cancel(session, cancel.read_tokens)
            case "response.resume":
                self._resume(convert(document, Resume))
            case "response.pacing.update":
                update = convert(document, PacingUpdate)
                session = self._service.find(update.response_id, self._owner)
                if update.tpot_s is not None or update.paused is not None:
                    self._service.set_pace(session, update.tpot_s, update.paused)
                if update.read is not None:
                    self._service.was_read(session, update.read.tokens, update.read.qoe)
            case None:
                raise InvalidRequest("The event has no 'type'.", param="type")
            case other:
                raise InvalidRequest(
                    f"Unknown event type {other!r}.", param="type", code="unknown_event_type"
                )

    def _create(self, document: dict[str, Any], stream_id: str | None, size: int) -> None:
        """Check a request and append it to its lane, which starts it when it is first."""
        fields = {key: value for key, value in document.items() if key not in _ENVELOPE}
        if fields.pop("generate", True) is False:
            raise InvalidRequest("'generate': false is not supported.", param="generate")
        body = parse_body(fields, ResponsesBody)
        if stream_id not in self._lanes:
            bound = self._service.config.limits.max_streams_per_connection
            if len(self._lanes) >= bound:
                raise Overloaded(
                    f"This connection has {bound} streams running, its limit.",
                    code="too_many_streams",
                    retry_after_s=self._service.config.limits.retry_after_s,
                )
            self._lanes[stream_id] = deque([(body, size)])
            self._waiting_bytes += size
            self._spawn(lambda: self._run_lane(stream_id), stream_id)
            return
        waiting = self._lanes[stream_id]
        if len(waiting) >= self._service.config.limits.max_streams_per_connection:
            raise Overloaded(
                f"{len(waiting)} requests wait in this stream already, its limit.",
                code="stream_queue_full",
                retry_after_s=self._service.config.limits.retry_after_s,
            )
        # Admission does not count requests that wait here.
        bound = self._service.config.server.hard_message_bytes
        if self._waiting_bytes + size > bound:
            raise Overloaded(
                f"Requests of {self._waiting_bytes} bytes wait on this connection already; the "
                f"limit is {bound}.",
                code="stream_queue_full",
                retry_after_s=self._service.config.limits.retry_after_s,
            )
        waiting.append((body, size))
        self._waiting_bytes += size

    def _resume(self, resume: Resume) -> None:
        session = self._service.find(resume.response_id, self._owner)
        session.check_resume(resume.starting_after)
        bound = self._service.config.limits.max_streams_per_connection
        if self._resumed >= bound:
            raise Overloaded(
                f"This connection follows {bound} resumed responses, its limit.",
                code="too_many_streams",
                retry_after_s=self._service.config.limits.retry_after_s,
            )
        self._resumed += 1
        self._spawn(
            lambda: self._follow_resumed(session, resume.stream_id, resume.starting_after),
            resume.stream_id,
        )

    # ---- streams ------------------------------------------------------------------------------

    async def _run_lane(self, stream_id: str | None) -> None:
        waiting = self._lanes[stream_id]
        try:
            while waiting:
                body, size = waiting.popleft()
                self._waiting_bytes -= size
                try:
                    await self._run(body, stream_id)
                except ApiError as error:
                    await self._refuse(error, stream_id)
                except ConnectionError:
                    raise  # the client is gone
                except Exception:
                    log.exception("request_failed")
                    await self._send_error(broken(), stream_id)
        finally:
            del self._lanes[stream_id]

    async def _run(self, body: ResponsesBody, stream_id: str | None) -> None:
        generation = await self._service.prepare(body, self._defaults, self._owner)
        generation = of_client(self._service.config, self._headers, generation)
        session = await self._service.start(generation, self._owner)
        await self._follow(session, stream_id, -1)

    async def _follow_resumed(
        self, session: Session, stream_id: str | None, starting_after: int
    ) -> None:
        try:
            await self._follow(session, stream_id, starting_after)
        finally:
            self._resumed -= 1

    async def _follow(self, session: Session, stream_id: str | None, starting_after: int) -> None:
        """Send the events of a response up to its last one."""
        follower = follow(session.log, self._outlet, starting_after, stream_id)
        try:
            with self._service.following(session, follower):
                await follower.run()
        except LogTruncated as error:
            await self._send_error(
                NotFound(
                    f"Response '{session.response_id}': {error}.",
                    code="events_expired",
                    param="starting_after",
                ),
                stream_id,
            )

    async def _refuse(self, error: ApiError, stream_id: str | None = None) -> None:
        refusals.note(self._service.metrics, error, method="WEBSOCKET", path="/v1/responses")
        await self._send_error(error, stream_id)

    async def _send_error(self, error: ApiError, stream_id: str | None = None) -> None:
        event = events.error_event(error.body(), error.status, stream_id)
        if isinstance(error, Overloaded):
            event["error"]["retry_after_s"] = error.retry_after_s
        await self._send(orjson.dumps(event))

    async def _send(self, data: bytes) -> None:
        try:
            await self.socket.send_str(data.decode())
        except ConnectionError:
            log.info("socket_closed_while_sending")

    def _spawn(self, work: Work, stream_id: str | None) -> None:
        task = asyncio.create_task(self._guarded(work, stream_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Work, stream_id: str | None) -> None:
        """Contain the failure of one stream; the socket and its other streams go on."""
        try:
            await work()
        except ConnectionError:
            log.info("socket_closed_while_streaming")  # the response goes on and can be resumed
        except Exception:
            log.exception("stream_failed")
            await self._send_error(broken(), stream_id)


# The first bytes of unmasked text frames by the length of their payload (RFC 6455, section 5.2).
_HEADS = [bytes((0x81, size)) for size in range(126)]
_HEADS += [b"\x81\x7e" + size.to_bytes(2, "big") for size in range(126, 4096)]
_SHORT = MOST_SHORT_BYTES - 4  # bytes of a payload that is short together with its head


def event_frame(_: str, data: bytes) -> bytes:
    """The WebSocket frame of an event, as servers send it; ``data`` is its JSON object."""
    size = len(data)
    if size < 4096:
        return _HEADS[size] + data
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + data
    return b"\x81\x7f" + size.to_bytes(8, "big") + data


class _SocketFollower(EventFollower):
    """Sends the events as they are."""

    __slots__ = ()

    def take(self, sequence: int, type_: str, data: bytes) -> None:
        """Send an event. Most have one token and are short: their frames are made here."""
        outlet, size = self._outlet, len(data)
        if self._behind or outlet.full or size > _SHORT:
            super().take(sequence, type_, data)
        else:
            outlet.outbox.add_short(outlet, _HEADS[size] + data)


def follow(
    log: EventLog, outlet: Outlet, starting_after: int, stream_id: str | None = None
) -> EventFollower:
    """What sends the events of a response, each with the id of the stream, if it has one."""
    if stream_id is None:
        return _SocketFollower(log, outlet, starting_after, event_frame)
    # The event log has no stream_id, since several sockets may follow one response.
    end = b',"stream_id":%b}' % orjson.dumps(stream_id)
    return EventFollower(
        log, outlet, starting_after, lambda type_, data: event_frame(type_, data[:-1] + end)
    )


def _stream_id(document: dict[str, Any]) -> str | None:
    stream_id = document.get("stream_id")
    if stream_id is not None and not (isinstance(stream_id, str) and 0 < len(stream_id) <= 128):
        raise InvalidRequest(
            "stream_id must be a string of 1 to 128 characters.", param="stream_id"
        )
    return stream_id
