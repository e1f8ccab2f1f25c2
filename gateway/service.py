"""The response service: both APIs call it to start, follow, stop and find responses.

It keeps the sessions, wakes them when a token is due, ends their time to live, counts and stores
them. Everything runs on the event loop's thread. Work for one response that a timer or a loop over
all responses starts is guarded, so that a bug ends that response alone.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog

from gateway import tracing
from gateway.admission import Admission, user_of
from gateway.config import Config
from gateway.guard import fail_broken
from gateway.history.conversations import Conversations
from gateway.history.requests import Requests
from gateway.history.truncation import is_too_long, truncated
from gateway.keys.collector import KeyCollector
from gateway.keys.keys import Keys, Place
from gateway.metrics import Metrics
from gateway.releases import Releases
from gateway.response.event_log import LogReader
from gateway.response.kept import KeptResponses
from gateway.response.queueing import Queues
from gateway.response.session import Session
from gateway.response.tally import Tally
from gateway.response.timers import Timers
from gateway.routing.cluster import Cluster
from gateway.routing.draining import Maintenance
from gateway.routing.router import closing
from gateway.rules import route_timeouts, view_rules
from gateway.schemas.bodies import ResponsesBody
from gateway.schemas.errors import InvalidRequest, NotFound
from gateway.schemas.generation import Generation, Targets
from gateway.schemas.input_items import with_ids
from gateway.scrape import InfoCollector, TallyCollector
from gateway.slices import Slices
from gateway.store import ConversationStore, KeyStore, ResponseStore, StoredResponse

log = structlog.get_logger()

_CONFIRM_S = 1.0  # for engines to confirm the cancels of a shutdown
_STORE_S = 5.0  # for responses that are being stored at shutdown


class ResponseService:
    """All responses of one gateway."""

    def __init__(self, config: Config, store: ResponseStore) -> None:
        self.config = config
        self.store = store
        self.cluster = Cluster(
            on_progress=self._progress,
            on_boundary=self._boundary_passed,
            on_step=lambda: self.releases.catch_up(),
            rules=config.placement.rules,
            view_rules=view_rules(config),
            timeouts=route_timeouts(config),
            # Workers send a heartbeat every second; a quarter of the time after which one counts
            # as dead is long enough to prefer others.
            silent_s=config.workers.heartbeat_timeout_s / 4,
            retry_after_s=config.limits.retry_after_s,
        )
        self._running: dict[str, Session] = {}  # not fully delivered, by response
        self.tally = Tally(self._running)
        self._queues = Queues(self._running)
        self.maintenance = Maintenance(self.cluster)
        self.metrics = Metrics(self.cluster, store)
        self.metrics.sessions.set_function(lambda: len(self._sessions))
        self.metrics.unfinished.set_function(lambda: len(self._running))
        self.metrics.in_engines.set_function(lambda: self._admission.in_engines)
        self.metrics.admission_load.set_function(lambda: self._admission.load(time.monotonic()))
        self.metrics.promised.set_function(lambda: self._admission.promised)
        self.metrics.event_log_bytes.set_function(lambda: self.log_bytes)
        self.keys = Keys(config.server.api_keys, KeyStore(store), config.limits.retry_after_s)
        self.metrics.registry.register(KeyCollector(self.keys))
        self.metrics.registry.register(TallyCollector(self.tally))
        self.metrics.registry.register(InfoCollector(config, self.cluster))
        self.conversations = Conversations(
            ConversationStore(store), config.server.hard_message_bytes
        )
        self.requests = Requests(config, store, self.conversations, self._session_of)
        self.draining = False
        self._sessions: dict[str, Session] = {}  # running, or finished and within their TTL
        self._admission = Admission(
            config.limits, partial(self.cluster.engines, config.workers.max_num_seqs)
        )
        self._kept = KeptResponses(config.session.ttl_s, config.session.total_bytes)
        self.releases = Releases(
            self.metrics.release_lateness, on_none=self._progress, on_bug=self._broken
        )
        self._pauses = Timers()  # by running response: the end of a pause
        self._departures = Timers()  # by running response: the end of the wait for a client
        self._expiry = Timers()  # of the oldest response that is kept
        self._slices = Slices()
        self._background: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    # ---- what the APIs call -------------------------------------------------------------------

    def check_model(self, name: str | None) -> None:
        """Raise `NotFound` unless ``name`` is the model served here, or None."""
        served = self.config.served_model_name
        if name is not None and name != served:
            raise NotFound(
                f"The model '{name}' does not exist; this server has '{served}'.",
                code="model_not_found",
                param="model",
            )

    async def prepare(self, body: ResponsesBody, defaults: Targets, owner: str) -> Generation:
        """Check a Responses body against the server's state; see `Requests.prepare`."""
        self.check_model(body.model)
        return await self.requests.prepare(body, defaults, owner)

    async def start(
        self, generation: Generation, owner: str, place: Place | None = None
    ) -> Session:
        """Admit, place and start a response. It runs, and has events, when this returns.

        One that asks for it loses the oldest turns, if no instance can read all of them.

        :param place: one that was reserved for it; None: it needs one.
        :raises ApiError: the request is refused, and nothing of it is kept.
        """
        try:
            return await self._start_fitting(generation, owner, place)
        except BaseException:
            if generation.conversation_id is not None:
                self.conversations.end(generation.conversation_id, owner)
            raise

    async def _start_fitting(
        self, generation: Generation, owner: str, place: Place | None
    ) -> Session:
        try:
            return await self._start(generation, owner, place)
        except InvalidRequest as error:
            if not generation.truncates or not is_too_long(error):
                raise
            shorter = await truncated(generation, self.cluster.count, self._context_tokens())
            if shorter is None:
                raise
        return await self._start(shorter, owner)

    def _context_tokens(self) -> int:
        """The context of each model at least, for prompt and output."""
        instances = self.cluster.instances.values()
        return min((one.welcome.max_model_len for one in instances), default=0)

    async def _start(
        self, generation: Generation, owner: str, place: Place | None = None
    ) -> Session:
        if self.draining:
            raise closing()
        response_id = f"resp_{secrets.token_hex(16)}"
        if place is None:
            (place,) = self.keys.reserve(owner)
        now = time.monotonic()
        try:
            self._admission.admit(
                response_id,
                user_of(owner, generation.user),
                generation,
                owner=owner,
                now=now,
                gives_way=self.keys.gives_way(owner),
            )
        except BaseException:
            self.keys.release(place)
            raise
        session = Session(
            response_id,
            generation,
            model=self.config.served_model_name,
            owner=owner,
            created_at=round(time.time(), 3),
            now=now,
            log_bytes=self.config.session.log_bytes if generation.keeps_events else 0,
            x_request_id=tracing.current_request(),
        )
        self.keys.attach(response_id, place, session)
        self._admission.began(response_id, session)
        self._sessions[response_id] = self._running[response_id] = session
        self._idle.clear()
        if generation.conversation_id is not None:
            self.conversations.started(generation.conversation_id, session)
        try:
            await self.cluster.submit(session)
        except BaseException:
            self._drop(session)
            raise
        return session

    @contextmanager
    def following(self, session: Session, reader: LogReader) -> Iterator[None]:
        """Hand a response's events to a client that reads them.

        When the last client has left a response that does not outlive its client (see
        `Generation.outlives_client`), it is cancelled after ``session.grace_s``, unless a client
        comes back.
        """
        self._departures.stop(session.response_id)
        session.log.attach(reader)
        try:
            self._count(session)
            yield
        finally:
            session.log.detach(reader)
            self._count(session)
            if not (session.finished or session.log.followed or session.generation.outlives_client):
                self._departures.set(
                    session.response_id,
                    time.monotonic() + self.config.session.grace_s,
                    self._departed,
                    session,
                )

    def find(self, response_id: str, owner: str) -> Session:
        """A session that is running or still kept. Raises `NotFound`."""
        if (session := self._session_of(response_id, owner)) is not None:
            return session
        if self._kept.was_dropped(response_id, owner):
            raise NotFound(
                f"The events of response '{response_id}' are no longer kept (session.total_bytes).",
                code="events_expired",
                param="response_id",
            )
        raise _no_such_response(response_id)

    def _session_of(self, response_id: str, owner: str) -> Session | None:
        """A session of this owner, unless the owner has deleted it."""
        session = self._sessions.get(response_id)
        if session is None or session.owner != owner or session.forgotten:
            return None
        return session

    async def response_object(self, response_id: str, owner: str) -> dict[str, Any]:
        """The response object, from its session or the store. Raises `NotFound`."""
        if (session := self._session_of(response_id, owner)) is not None:
            return session.response_object()
        stored = await self.store.get(response_id, owner)
        if stored is None:
            raise _no_such_response(response_id)
        # Rows of earlier versions hold a fraction.
        return {**stored.response, "created_at": int(stored.created_at)}

    async def input_items(self, response_id: str, owner: str) -> list[dict[str, Any]]:
        """The items that were sent with a response, with their ids. Raises `NotFound`."""
        if (session := self._session_of(response_id, owner)) is not None:
            return with_ids(session.generation.input_items, response_id)
        if (stored := await self.store.get(response_id, owner)) is not None:
            return with_ids(stored.input_items, response_id)
        raise _no_such_response(response_id)

    def requests_ahead(self, response_id: str, owner: str) -> int | None:
        """How many requests wait before one that waits itself; None if it is no such one."""
        session = self._session_of(response_id, owner)
        return None if session is None else self._queues.ahead(session, time.monotonic())

    def cancel(self, session: Session, read_tokens: int | None = None) -> None:
        """Stop a response. Its log ends with the terminal event as soon as the engine confirms.

        :param read_tokens: see `Session.cancel`.
        """
        self._guarded(session, partial(self._cancel, session, read_tokens))

    def was_read(self, session: Session, tokens: int, qoe: float) -> None:
        """Take in what a client says about its reader; the first QoE after the end counts.

        :param tokens: of the answer that were read.
        """
        if session.finished:
            if not session.read_reported:
                session.read_reported = True
                self.metrics.qoe_as_read.observe(qoe)
        else:
            session.read_tokens = tokens

    def set_pace(self, session: Session, tpot_s: float | None, paused: bool | None) -> None:
        """Change the pace of a running response, pause or resume it.

        A pause ends by itself ``session.ttl_s`` after it began.
        """
        session.set_pace(tpot_s, paused, time.monotonic(), self.config.session.ttl_s)
        self.cluster.set_pace(session)
        self.releases.clear(session)
        self._progress(session)

    async def delete(self, response_id: str, owner: str) -> None:
        """Stop and forget a response. Raises `NotFound`."""
        await self.response_object(response_id, owner)
        if (session := self._session_of(response_id, owner)) is not None:
            session.forgotten = True
            if session.finished:
                self._drop(session)
            else:
                self.cancel(session)
        await self.store.delete(response_id, owner)

    # ---- the gateway's own life ---------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be served."""
        return self.cluster.can_serve and not self.draining

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests, wait for the running ones, and cut short those that take longer."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            log.warning("requests_cut_at_shutdown", count=len(self._running))
            for session in list(self._running.values()):
                self._guarded(session, partial(self._cut_short, session))
            try:
                await asyncio.wait_for(self._idle.wait(), _CONFIRM_S)
            except TimeoutError:
                log.warning("requests_left_at_shutdown", count=len(self._running))

    async def close(self) -> None:
        """Wait for responses that are being stored, and drop all timers."""
        self.maintenance.close()
        self._slices.finish()
        self._in_background(self.keys.close())
        if self._background:
            await asyncio.wait(self._background, timeout=_STORE_S)
        for timers in (self._pauses, self._departures, self._expiry):
            timers.stop_all()
        self.releases.close()

    def fail_all(self) -> None:
        """End all running responses, because nothing more will come from any instance."""
        for session in list(self._running.values()):
            self._guarded(session, partial(self._end_now, session))
        self.cluster.close()

    @property
    def log_bytes(self) -> int:
        """Memory of the events of all responses, running and kept."""
        return sum(session.log.size_bytes for session in self._sessions.values())

    # ---- inside -------------------------------------------------------------------------------

    def _guarded(self, session: Session, action: Callable[[], object]) -> None:
        """Do something for one response. If it raises, this response alone ends."""
        with tracing.of_request(session.x_request_id):
            try:
                action()
            except Exception:  # noqa: BLE001 (`_broken` logs it)
                self._broken(session)
            self._progress(session)

    def _broken(self, session: Session) -> None:
        """End a response after the exception that is being handled."""
        with tracing.of_request(session.x_request_id):
            log.exception("response_failed", request_id=session.response_id)
        if not self.cluster.break_off(session):
            fail_broken(session)
        self._progress(session)

    def _progress(self, session: Session) -> None:
        """Something happened to a session: set its next release, or deal with its end."""
        if session.streaming and session.wheel_slot is not None:
            return  # as for most tokens: its next release is the same as before
        if session.response_id not in self._running:
            return
        try:
            self._wait_for_next(session)
        except Exception:
            with tracing.of_request(session.x_request_id):
                log.exception("response_failed", request_id=session.response_id)
            fail_broken(session)
        if session.finished:
            self._count_out(session)
            if session.forgotten or not session.generation.resumable:
                self._sessions.pop(session.response_id, None)
            self._slices.add(partial(self._conclude, session))

    def _wait_for_next(self, session: Session) -> None:
        if session.delivery.began and not session.first_noted:
            self._answer_began(session)
        self._count(session)
        if session.finished:
            return
        if (due_s := session.next_release_s()) is not None:
            self.releases.set(session, due_s)
        else:
            self.releases.clear(session)
        if not session.delivery.paused:
            self._pauses.stop(session.response_id)
        elif session.pause_ends_s is not None:
            # A reader who pauses and never comes back must not keep the response running.
            resume = partial(self.set_pace, session, None, False)
            self._pauses.set(
                session.response_id, session.pause_ends_s, self._guarded, session, resume
            )

    def _answer_began(self, session: Session) -> None:
        """Count how long the reader waited for the answer, once."""
        session.first_noted = True
        if session.generation.read_along:  # else it is sent as a whole, to nobody who waits
            times = session.delivery.times_to_first()
            self.tally.answer_began(*times)
            self.metrics.answer_began(*times)

    def _cancel(self, session: Session, read_tokens: int | None) -> None:
        if session.cancel(time.monotonic(), read_tokens):
            self.cluster.cancel(session)

    def _cut_short(self, session: Session) -> None:
        """Stop a response because the gateway ends; generated tokens are still sent."""
        if session.cut_short(closing(), time.monotonic()):
            self.cluster.cancel(session)

    def _end_now(self, session: Session) -> None:
        """Do as `_cut_short`, without waiting for an engine."""
        self._cut_short(session)
        session.fail(closing(), time.monotonic())

    def _boundary_passed(self, how: str, seconds: float) -> None:
        self.metrics.boundary_blocking.labels(how).observe(seconds)

    def _departed(self, session: Session) -> None:
        """Stop a response to which no client has come back."""
        with tracing.of_request(session.x_request_id):
            log.info("response_left", request_id=session.response_id)
        self.cancel(session)

    def _conclude(self, session: Session) -> None:
        """Deal with a response that has ended."""
        with tracing.of_request(session.x_request_id):
            if (conversation_id := session.generation.conversation_id) is not None:
                self._in_background(self.conversations.finish(conversation_id, session))
            try:
                self._ended(session)
            except Exception:
                log.exception("response_not_kept", request_id=session.response_id)
                self._drop(session)

    def _ended(self, session: Session) -> None:
        """Report, store and keep a response that has ended."""
        try:
            self._report(session)
        except Exception:
            log.exception("response_not_reported", request_id=session.response_id)
        if session.generation.store and not session.forgotten:
            self._in_background(self._put(session))
        if session.forgotten or not session.generation.resumable:
            self._drop(session)
            return
        for dropped in self._kept.add(session, time.monotonic()):
            self._drop(dropped)
        self._wait_for_expiry()

    def _report(self, session: Session) -> None:
        self.metrics.response_ended(session, self.config.pacing.slo_qoe)
        measured = session.delivery.measurements()
        log.info(
            "response_ended",
            request_id=session.response_id,
            instance_id=session.instance_id,
            status=session.status,
            reason=session.incomplete_reason,
            output_tokens=session.output_tokens,
            reasoning_tokens=session.reasoning_tokens,
            preemptions=session.preemptions,
            migrations=session.migrations,
            failovers=session.failovers,
            ttft_s=measured.paced.ttft_s,
            qoe=measured.qoe,
        )

    def _wait_for_expiry(self) -> None:
        due_s = self._kept.next_expiry_s
        if due_s is not None and not self._expiry.running:
            self._expiry.set("oldest", due_s, self._expire)

    def _expire(self) -> None:
        for session in self._kept.expire(time.monotonic()):
            self._drop(session)
        self._wait_for_expiry()

    async def _put(self, session: Session) -> None:
        if session.forgotten:  # deleted in the meantime
            return
        try:
            stored = StoredResponse(
                session.response_id,
                session.owner,
                session.created_at,
                session.response_object(),
                session.conversation,
                session.generation.input_items,
            )
            await self.store.put(stored)
        except Exception:  # the client has its answer; only a later look-up will miss it
            log.exception("response_not_stored", request_id=session.response_id)

    def _drop(self, session: Session) -> None:
        """Keep a session no longer."""
        self._count_out(session)
        self._kept.discard(session.response_id)
        self._sessions.pop(session.response_id, None)

    def _count(self, session: Session) -> None:
        self._admission.update(
            session.response_id, in_engine=session.in_engine, followed=session.log.followed
        )
        if not session.in_engine:
            self.keys.ended(session.response_id)

    def _count_out(self, session: Session) -> None:
        """Take a session off the running ones."""
        self.releases.clear(session)
        self._pauses.stop(session.response_id)
        self._departures.stop(session.response_id)
        self._admission.remove(session.response_id)
        self.keys.ended(session.response_id)
        if self._running.pop(session.response_id, None) is not None:
            self.tally.ended(session)
        if not self._running:
            self._idle.set()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _no_such_response(response_id: str) -> NotFound:
    return NotFound(
        f"Response '{response_id}' not found.", code="response_not_found", param="response_id"
    )
