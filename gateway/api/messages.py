"""``POST /v1/messages``: Anthropic's Messages API, whole or as a stream of events."""

from __future__ import annotations

from aiohttp import web

from gateway.api import message_events, sse
from gateway.api.followers import TextFollower
from gateway.api.http import SERVICE, of_client, owner_of, read_bytes, start_whole
from gateway.api.refusals import json_response
from gateway.response.session import Session
from gateway.schemas.bodies import parse_json_object
from gateway.schemas.errors import ApiError
from gateway.schemas.generation import default_targets
from gateway.schemas.messages import from_messages
from gateway.schemas.messages_body import parse_messages

_NO_BOUND = 2**31  # a body without ``max_tokens``: nothing is generated
_KEPT = frozenset({"input", "input_schema", "schema"})  # fields whose nulls have a meaning


async def create_message(request: web.Request) -> web.StreamResponse:
    """``POST /v1/messages``."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_messages(parse_json_object(await read_bytes(request), _KEPT))
    service.check_model(body.model)
    generation = from_messages(body, default_targets(service.config.pacing, request.headers))
    generation = of_client(service.config, request.headers, generation)
    shows_thoughts = body.thinking is None or body.thinking.display != "omitted"
    if not body.stream:
        session = await start_whole(service, generation, owner)
        return json_response(message_events.message(session, shows_thoughts=shows_thoughts))
    session = await service.start(generation, owner)
    try:
        return await _stream(request, session, shows_thoughts)
    finally:
        if not session.finished:
            service.cancel(session)  # this API has no way to come back to it


async def _stream(
    request: web.Request, session: Session, shows_thoughts: bool
) -> web.StreamResponse:
    service = request.app[SERVICE]
    silence_s = service.config.server.sse_keepalive_s
    async with sse.event_stream(request, silence_s, message_events.PING) as stream:
        await stream.send(message_events.message_start(session) + message_events.PING)
        blocks = message_events.Blocks(stream.chunk, shows_thoughts=shows_thoughts)
        follower = TextFollower(session.log, session.transcript, stream.outlet, blocks)
        with service.following(session, follower):
            await follower.run()
        try:
            end = message_events.message_end(session)
        except ApiError as error:
            end = message_events.error_event(error)
        await stream.send(blocks.end() + end)
    return stream.response


async def count_tokens(request: web.Request) -> web.StreamResponse:
    """``POST /v1/messages/count_tokens``."""
    owner_of(request)
    service = request.app[SERVICE]
    document = parse_json_object(await read_bytes(request), _KEPT)
    counted = parse_messages({**document, "max_tokens": _NO_BOUND})
    service.check_model(counted.model)
    generation = from_messages(counted, default_targets(service.config.pacing, request.headers))
    generation = of_client(service.config, request.headers, generation)
    return json_response({"input_tokens": await service.cluster.count(generation)})
