"""``POST /v1/chat/completions``: responses in the older form, whole or as a stream of chunks.

Chunks carry reasoning text twice, as ``delta.reasoning`` and ``delta.reasoning_content``: some
clients read the one, some the other.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from gateway.api import sse
from gateway.api.followers import TextFollower
from gateway.api.http import SERVICE, owner_of, read_body, start_whole
from gateway.api.refusals import json_response
from gateway.response.session import Session
from gateway.schemas.bodies import ChatBody, parse_body
from gateway.schemas.errors import ApiError, Cancelled
from gateway.schemas.generation import default_targets, from_chat
from gateway.service import ResponseService

_MARK = "\x00"  # stands for the text; the model's name may contain anything but this
_MARK_BYTES = b"\\u0000"


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """``POST /v1/chat/completions``."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_body(await read_body(request), ChatBody)
    service.check_model(body.model)
    generation = from_chat(body, default_targets(service.config.pacing, request.headers))
    if not body.stream:
        return json_response(_completion(await start_whole(service, generation, owner)))
    session = await service.start(generation, owner)
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    try:
        return await _stream(request, session, with_usage)
    finally:
        _stop_if_running(service, session)


def _stop_if_running(service: ResponseService, session: Session) -> None:
    """Cancel a response whose client has left: this API has no way to come back to it."""
    if not session.finished:
        service.cancel(session)


async def _stream(request: web.Request, session: Session, with_usage: bool) -> web.StreamResponse:
    head = _head(session, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse.frame(orjson.dumps({**head, "choices": [choice], **extra}))

    service = request.app[SERVICE]
    async with sse.event_stream(request, service.config.server.chat_keepalive_s) as stream:
        # What stands around the text in the chunks of a phase.
        answer_before, answer_after = chunk({"content": _MARK}).split(_MARK_BYTES)
        reasoning_before, between, reasoning_after = chunk(
            {"reasoning": _MARK, "reasoning_content": _MARK}
        ).split(_MARK_BYTES)

        def reasoning(text: bytes) -> bytes:
            return stream.chunk(
                b"%b%b%b%b%b" % (reasoning_before, text, between, text, reasoning_after)
            )

        def answer(text: bytes) -> bytes:
            return stream.chunk(b"%b%b%b" % (answer_before, text, answer_after))

        await stream.send(chunk({"role": "assistant", "content": ""}))
        follower = TextFollower(session.log, session.transcript, stream.outlet, reasoning, answer)
        with service.following(session, follower):
            await follower.run()
        try:
            await stream.send(chunk({}, _finish_reason(session), **_extensions(session)))
            if with_usage:
                usage = {**head, "choices": [], "usage": _usage(session)}
                await stream.send(sse.frame(orjson.dumps(usage)))
        except ApiError as error:
            await stream.send(sse.frame(orjson.dumps({"error": error.body()})))
        await stream.send(sse.frame(b"[DONE]"))
    return stream.response


def _completion(session: Session) -> dict[str, Any]:
    thoughts = session.reasoning_text or None
    message = {
        "role": "assistant",
        "content": session.answer_text,
        "reasoning": thoughts,
        "reasoning_content": thoughts,
        "refusal": None,
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _finish_reason(session),
    }
    return {
        **_head(session, "chat.completion"),
        "choices": [choice],
        "usage": _usage(session),
        **_extensions(session),
    }


def _head(session: Session, kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-" + session.response_id.removeprefix("resp_"),
        "object": kind,
        "created": int(session.created_at),
        "model": session.model,
    }


# By `Session.incomplete_reason`. A model that stops without an answer also ends with "stop".
_FINISH_REASONS = {None: "stop", "no_answer": "stop", "max_output_tokens": "length"}


def _finish_reason(session: Session) -> str:
    """Return why the model stopped.

    :raises ApiError: the response failed, was cancelled, or has not ended. The API has no reason
        for a response that was cut off.
    """
    if session.error is not None:
        raise session.error
    if not session.finished or session.incomplete_reason not in _FINISH_REASONS:
        raise Cancelled()
    return _FINISH_REASONS[session.incomplete_reason]


def _extensions(session: Session) -> dict[str, Any]:
    return {**session.measurements(), "instance": session.instance_id}


def _usage(session: Session) -> dict[str, Any]:
    usage = session.usage()
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": {"cached_tokens": usage["input_tokens_details"]["cached_tokens"]},
        "completion_tokens_details": usage["output_tokens_details"],
    }
