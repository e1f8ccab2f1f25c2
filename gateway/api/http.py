"""What the routes share: the service, the owner of a request, its body, and a whole response."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from gateway.api.auth import authenticate, check_scope
from gateway.api.encodings import check_encoding, decompressed
from gateway.config import Config
from gateway.keys.registry import Caller
from gateway.policy.affinity import key_in
from gateway.response.session import Session
from gateway.schemas.bodies import parse_json_object
from gateway.schemas.errors import (
    InvalidRequest,
    RequestTimeout,
    TooLarge,
)
from gateway.schemas.generation import Generation
from gateway.service import ResponseService
from gateway.store import Scope

SERVICE = web.AppKey("service", ResponseService)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


def caller_of(request: web.Request, scope: Scope = "chat") -> Caller:
    """Return who has sent a request.

    :raises Unauthorized: without a key that is asked for.
    :raises Forbidden: with a key that does not have the scope.
    """
    service = request.app[SERVICE]
    caller = authenticate(service.config.server, service.keys, request.headers)
    request[CALLER] = caller
    check_scope(caller, scope)
    return caller


def owner_of(request: web.Request) -> str:
    """Return the owner of what a request makes or asks for. Raises as `caller_of` does."""
    return caller_of(request).owner


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


def of_client(config: Config, headers: Mapping[str, str], generation: Generation) -> Generation:
    """The request as the configuration and the headers of its client want it.

    What the body says about its session wins over the headers.
    """
    if config.model.drop_billing_header:
        generation = generation.steady()
    if generation.affinity_key is None and (key := key_in(headers)) is not None:
        return replace(generation, affinity_key=key)
    return generation


async def start_all(
    service: ResponseService, generations: Sequence[Generation], owner: str
) -> list[Session]:
    """Start several responses, or none. The caller ends them with `stop_all`.

    :param generations: the choices of one or of several prompts, those of one next to each other.
    """
    sessions: list[Session] = []
    places = service.keys.reserve(owner, len(generations), of_prompt=generations[0].choices)
    try:
        for generation, place in zip(generations, places, strict=True):
            session = await service.start(generation, owner, place)
            sessions.append(session)  # at once: they are stopped if the next one is refused
    except BaseException:
        stop_all(service, sessions)
        for place in places[len(sessions) :]:
            service.keys.release(place)
        raise
    return sessions


def stop_all(service: ResponseService, sessions: Sequence[Session]) -> None:
    """Cancel responses whose client has left and has no way to come back to them."""
    for session in sessions:
        if not session.finished:
            service.cancel(session)


async def start_whole(service: ResponseService, generation: Generation, owner: str) -> Session:
    """Run a response that is sent as a whole; cancel it if the client leaves before its end."""
    session = await service.start(generation.unpaced(), owner)
    try:
        await session.log.ended()
    except BaseException:
        service.cancel(session)
        raise
    return session
