"""``POST /v1/chat/completions``: responses in the older form, whole or as a stream of chunks.

Several choices are as many responses of one prompt, on one instance.
"""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from gateway.api import sse
from gateway.api.chat_chunks import ChoiceChunks, choice, extensions, finish_reason, head, usage
from gateway.api.followers import TextFollower
from gateway.api.http import SERVICE, of_client, owner_of, read_body, start_all, stop_all
from gateway.api.refusals import json_response
from gateway.response.session import Session
from gateway.schemas.bodies import ChatBody, parse_body
from gateway.schemas.errors import ApiError
from gateway.schemas.generation import default_targets, from_chat
from gateway.service import ResponseService


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """``POST /v1/chat/completions``."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_body(await read_body(request), ChatBody)
    service.check_model(body.model)
    generation = from_chat(body, default_targets(service.config.pacing, request.headers))
    generation = of_client(service.config, request.headers, generation)
    if not body.stream:
        generation = generation.unpaced()
    sessions = await start_all(service, generation.each_choice(), owner)
    try:
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return await _stream(request, sessions, with_usage)
        for session in sessions:
            await session.log.ended()
        choices = [choice(session, index) for index, session in enumerate(sessions)]
        completion = {**head(sessions[0], "chat.completion"), "choices": choices}
        return json_response({**completion, "usage": usage(sessions), **extensions(sessions[0])})
    finally:
        stop_all(service, sessions)


async def _stream(
    request: web.Request, sessions: list[Session], with_usage: bool
) -> web.StreamResponse:
    service = request.app[SERVICE]
    first = head(sessions[0], "chat.completion.chunk")
    async with sse.event_stream(request, service.config.server.chat_keepalive_s) as stream:
        logprobs = sessions[0].generation.sampling.logprobs is not None
        all_chunks = [
            ChoiceChunks(first, index, stream.chunk, logprobs=logprobs)
            for index in range(len(sessions))
        ]
        for chunks in all_chunks:
            await stream.send(chunks.chunk({"role": "assistant", "content": ""}))
        try:
            async with asyncio.TaskGroup() as tasks:
                for session, chunks in zip(sessions, all_chunks, strict=True):
                    tasks.create_task(_follow(service, session, stream, chunks))
            if with_usage:
                total = {**first, "choices": [], "usage": usage(sessions)}
                await stream.send(sse.frame(orjson.dumps(total)))
        except ExceptionGroup as group:
            error = group.exceptions[0]
            if not isinstance(error, ApiError):
                raise error from group
            await stream.send(sse.frame(orjson.dumps({"error": error.body()})))
        await stream.send(sse.frame(b"[DONE]"))
    return stream.response


async def _follow(
    service: ResponseService, session: Session, stream: sse.EventStream, chunks: ChoiceChunks
) -> None:
    """Send one choice to its end.

    :raises ApiError: the response has no end that this API knows.
    """
    follower = TextFollower(session.log, session.transcript, stream.outlet, chunks)
    with service.following(session, follower):
        await follower.run()
    await stream.send(chunks.chunk({}, finish_reason(session), **extensions(session)))
