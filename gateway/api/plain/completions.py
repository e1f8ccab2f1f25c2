"""``POST /v1/completions``: the model goes on with a text, whole or as a stream of chunks.

Each choice of each prompt is a response of its own. All of its text is an answer, and is paced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from gateway.api import sse
from gateway.api.chat_chunks import extensions, finish_reason
from gateway.api.followers import TextFollower
from gateway.api.http import SERVICE, of_client, owner_of, read_body, start_all, stop_all
from gateway.api.plain.chunks import CompletionChunks, choice, head, usage
from gateway.api.refusals import json_response
from gateway.response.session import Session
from gateway.schemas.errors import ApiError
from gateway.schemas.generation import default_targets
from gateway.schemas.plain.bodies import parse_completions
from gateway.schemas.plain.generation import from_completions
from gateway.service import ResponseService


async def create_completion(request: web.Request) -> web.StreamResponse:
    """``POST /v1/completions``."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_completions(await read_body(request))
    service.check_model(body.model)
    wanted = from_completions(body, default_targets(service.config.pacing, request.headers))
    wanted = [of_client(service.config, request.headers, one) for one in wanted]
    if not body.stream:
        wanted = [one.unpaced() for one in wanted]
    choices = [choice for one in wanted for choice in one.each_choice()]
    sessions = await start_all(service, choices, owner)
    try:
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return await _stream(request, sessions, body.n, with_usage)
        for session in sessions:
            await session.log.ended()
        document: dict[str, Any] = {
            **head(sessions[0]),
            "choices": [choice(session, index) for index, session in enumerate(sessions)],
            "usage": usage(sessions, body.n),
            **extensions(sessions[0]),
        }
        return json_response(document)
    finally:
        stop_all(service, sessions)


async def _stream(
    request: web.Request, sessions: Sequence[Session], each: int, with_usage: bool
) -> web.StreamResponse:
    service = request.app[SERVICE]
    first = head(sessions[0])
    async with sse.event_stream(request, service.config.server.chat_keepalive_s) as stream:
        try:
            async with asyncio.TaskGroup() as tasks:
                for index, session in enumerate(sessions):
                    logged = session.generation.sampling.logprobs is not None
                    chunks = CompletionChunks(first, index, stream.chunk, logprobs=logged)
                    tasks.create_task(_follow(service, session, stream, chunks))
            if with_usage:
                total = {**first, "choices": [], "usage": usage(sessions, each)}
                await stream.send(sse.frame(orjson.dumps(total)))
        except ExceptionGroup as group:
            error = group.exceptions[0]
            if not isinstance(error, ApiError):
                raise error from group
            await stream.send(sse.frame(orjson.dumps({"error": error.body()})))
        await stream.send(sse.frame(b"[DONE]"))
    return stream.response


async def _follow(
    service: ResponseService,
    session: Session,
    stream: sse.EventStream,
    chunks: CompletionChunks,
) -> None:
    """Send one choice to its end.

    :raises ApiError: the response has no end that this API knows.
    """
    follower = TextFollower(session.log, session.transcript, stream.outlet, chunks)
    with service.following(session, follower):
        await follower.run()
    await stream.send(chunks.chunk("", finish_reason(session), **extensions(session)))
