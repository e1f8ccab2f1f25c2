"""The Responses API over HTTP: whole, streamed as server-sent events, or in the background."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import structlog
from aiohttp import web

from gateway.api import sse
from gateway.api.followers import EventFollower
from gateway.api.http import SERVICE, of_client, owner_of, read_body, start_whole
from gateway.api.refusals import json_response
from gateway.api.responses.lists import page_of, part_of
from gateway.api.websocket import WebSocketConnection
from gateway.response.event_log import LogTruncated
from gateway.response.session import Session
from gateway.schemas import events
from gateway.schemas.bodies import ResponsesBody, parse_body
from gateway.schemas.errors import InvalidRequest, NotFound
from gateway.schemas.generation import default_targets

log = structlog.get_logger()

SOCKETS: web.AppKey[set[WebSocketConnection]] = web.AppKey("sockets")

_CANCEL_WAIT_S = 10.0  # how long `cancel` waits for the engine to stop before it answers


async def create_response(request: web.Request) -> web.StreamResponse:
    """``POST /v1/responses``."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_body(await read_body(request), ResponsesBody)
    defaults = default_targets(service.config.pacing, request.headers)
    generation = await service.prepare(body, defaults, owner)
    generation = of_client(service.config, request.headers, generation)
    if body.stream:
        # A client that wants to come back to its response says so.
        comes_back = body.store is True or generation.background
        generation = replace(generation, outlives_client=comes_back)
        session = await service.start(generation, owner)
        return await _stream(request, session, -1)
    if generation.background:
        session = await service.start(generation.unpaced(), owner)
        return json_response(session.response_object())
    session = await start_whole(service, generation, owner)
    if session.error is not None:
        raise session.error
    return json_response(session.response_object())


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

    If its engine does not stop in time, the body shows the response ``in_progress``. One that had
    ended before stays as it is.
    """
    owner = owner_of(request)
    service = request.app[SERVICE]
    response_id = request.match_info["response_id"]
    try:
        session = service.find(response_id, owner)
    except NotFound:
        return json_response(await service.response_object(response_id, owner))
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


async def list_input_items(request: web.Request) -> web.StreamResponse:
    """``GET /v1/responses/{id}/input_items``."""
    owner = owner_of(request)
    page = page_of(request.query)
    items = await request.app[SERVICE].input_items(request.match_info["response_id"], owner)
    return json_response(part_of(items, page))


async def count_input(request: web.Request) -> web.StreamResponse:
    """``POST /v1/responses/input_tokens``: how many tokens the prompt of a body has."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_body(await read_body(request), ResponsesBody)
    defaults = default_targets(service.config.pacing, request.headers)
    generation = await service.prepare(body, defaults, owner)
    try:
        generation = of_client(service.config, request.headers, generation)
        tokens = await service.cluster.count(generation)
    finally:
        if generation.conversation_id is not None:
            service.conversations.end(generation.conversation_id, owner)
    return json_response({"object": "response.input_tokens", "input_tokens": tokens})


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
