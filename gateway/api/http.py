"""The Responses API over HTTP: whole, or streamed as server-sent events."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import structlog
from aiohttp import web

from gateway.api import sse
from gateway.api.auth import authenticate
from gateway.api.encodings import check_encoding, decompressed
from gateway.api.followers import EventFollower
from gateway.api.refusals import json_response
from gateway.api.websocket import WebSocketConnection
from gateway.response.event_log import LogTruncated
from gateway.response.session import Session
from gateway.schemas import events
from gateway.schemas.bodies import ResponsesBody, parse_body, parse_json_object
from gateway.schemas.errors import (
    InvalidRequest,
    NotFound,
    RequestTimeout,
    TooLarge,
)
from gateway.schemas.generation import Generation, default_targets
from gateway.service import ResponseService

log = structlog.get_logger()

SERVICE = web.AppKey("service", ResponseService)
SOCKETS: web.AppKey[set[WebSocketConnection]] = web.AppKey("sockets")

_CANCEL_WAIT_S = 10.0  # how long `cancel` waits for the engine to stop before it answers


def owner_of(request: web.Request) -> str:
    """Return the owner of a request. Raises `Unauthorized`."""
    return authenticate(request.app[SERVICE].config.server, request.headers)


async def read_body(request: web.Request) -> dict[str, Any]:
    """Read the JSON object of a request. Raises what `read_bytes` does, and `InvalidRequest`."""
    return parse_json_object(await read_bytes(request))


async def read_bytes(request: web.Request) -> bytes:
    """Read the body of a request and decompress it.

    :raises TooLarge: it is larger than ``server.max_message_bytes``.
    :raises RequestTimeout: it is not complete after ``server.body_timeout_s``.
    :raises UnsupportedEncoding: it is compressed in a way that is not supported.
    :raises InvalidRequest: it cannot be decompressed.
    """
    config = request.app[SERVICE].config.server
    encoding = ", ".join(request.headers.getall("Content-Encoding", [])).strip().lower()
    check_encoding(encoding)
    bound = config.max_message_bytes
    if request.content_length is not None and request.content_length > bound:
        raise TooLarge(request.content_length, bound)
    data = bytearray()
    try:
        async with asyncio.timeout(config.body_timeout_s):
            async for chunk in request.content.iter_any():
                data += chunk
                if len(data) > bound:
                    raise TooLarge(len(data), bound)
    except TimeoutError:
        raise RequestTimeout(config.body_timeout_s) from None
    except web.RequestPayloadError as error:
        raise InvalidRequest("The body is not complete.", param=None) from error
    return decompressed(bytes(data), encoding, bound)


async def create_response(request: web.Request) -> web.StreamResponse:
    """``POST /v1/responses``."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_body(await read_body(request), ResponsesBody)
    defaults = default_targets(service.config.pacing, request.headers)
    generation = await service.prepare(body, defaults, owner)
    if body.stream:
        # A client that wants to come back to its response sends `"store": true`.
        generation = replace(generation, outlives_client=body.store is True)
        session = await service.start(generation, owner)
        return await _stream(request, session, -1)
    session = await start_whole(service, generation, owner)
    if session.error is not None:
        raise session.error
    return json_response(session.response_object())


async def start_whole(service: ResponseService, generation: Generation, owner: str) -> Session:
    """Run a response that is sent as a whole; cancel it if the client leaves before its end."""
    session = await service.start(generation.unpaced(), owner)
    try:
        await session.log.ended()
    except BaseException:
        service.cancel(session)
        raise
    return session


async def get_response(request: web.Request) -> web.StreamResponse:
    """``GET /v1/responses/{id}``, with ``?stream=true&starting_after=N`` to resume."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    response_id = request.match_info["response_id"]
    if request.query.get("stream", "false").lower() != "true":
        return json_response(await service.response_object(response_id, owner))
    text = request.query.get("starting_after", "-1")
    try:
        starting_after = int(text)
    except ValueError:
        raise InvalidRequest(
            f"starting_after must be a whole number, not {text!r}.", param="starting_after"
        ) from None
    session = service.find(response_id, owner)
    session.check_resume(starting_after)
    return await _stream(request, session, starting_after)


async def cancel_response(request: web.Request) -> web.StreamResponse:
    """``POST /v1/responses/{id}/cancel``: cancel, and answer when the response has ended.

    If its engine does not stop in time, the body shows the response ``in_progress``.
    """
    owner = owner_of(request)
    service = request.app[SERVICE]
    session = service.find(request.match_info["response_id"], owner)
    service.cancel(session)
    try:
        await asyncio.wait_for(session.log.ended(), _CANCEL_WAIT_S)
    except TimeoutError:
        log.warning("cancel_not_confirmed", request_id=session.response_id)
    return json_response(session.response_object())


async def delete_response(request: web.Request) -> web.StreamResponse:
    """``DELETE /v1/responses/{id}``."""
    response_id = request.match_info["response_id"]
    await request.app[SERVICE].delete(response_id, owner_of(request))
    return json_response({"id": response_id, "object": "response", "deleted": True})


async def open_socket(request: web.Request) -> web.StreamResponse:
    """``GET /v1/responses`` with an upgrade: the WebSocket API."""
    owner = owner_of(request)
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise InvalidRequest("POST a body here, or open a WebSocket.", param=None)
    service = request.app[SERVICE]
    defaults = default_targets(service.config.pacing, request.headers)
    connection = WebSocketConnection(service, owner, defaults)
    request.app[SOCKETS].add(connection)
    try:
        return await connection.serve(request)
    finally:
        request.app[SOCKETS].discard(connection)


async def _stream(
    request: web.Request, session: Session, starting_after: int
) -> web.StreamResponse:
    """Send the events. A client that leaves may come back; see `ResponseService.following`."""
    service = request.app[SERVICE]
    try:
        session.log.after(starting_after)
    except LogTruncated as error:
        raise NotFound(f"{error}.", code="events_expired", param="starting_after") from error
    async with sse.event_stream(request, service.config.server.sse_keepalive_s) as stream:

        def frame(type_: str, data: bytes) -> bytes:
            return stream.chunk(sse.frame(data, type_))

        follower = EventFollower(session.log, stream.outlet, starting_after, frame)
        with service.following(session, follower):
            try:
                await follower.run()
            except LogTruncated as error:
                expired = NotFound(f"{error}.", code="events_expired", param="starting_after")
                event = events.error_event(expired.body(), expired.status)
                await stream.send(sse.frame(orjson.dumps(event), "error"))
    return stream.response
