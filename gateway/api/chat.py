"""``POST /v1/chat/completions``: responses in the older form, whole or as a stream of chunks.

Chunks carry reasoning text twice, as ``delta.reasoning`` and ``delta.reasoning_content``: some
clients read the one, some the other.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from gateway.api import sse
from gateway.api.http import SERVICE, owner_of, read_body, start_whole
from gateway.api.refusals import json_response
from gateway.response.event_log import EventCursor, LogEntry, LogTruncated
from gateway.response.session import Session
from gateway.schemas import events
from gateway.schemas.bodies import ChatBody, parse_body
from gateway.schemas.errors import ApiError, Cancelled
from gateway.schemas.generation import default_targets, from_chat
from gateway.service import ResponseService

_encode = msgspec.json.Encoder().encode


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
        with service.following(session) as cursor:
            return await _stream(request, session, cursor, with_usage)
    finally:
        _stop_if_running(service, session)


def _stop_if_running(service: ResponseService, session: Session) -> None:
    """Cancel a response whose client has left: this API has no way to come back to it."""
    if not session.finished:
        service.cancel(session)


async def _stream(
    request: web.Request, session: Session, cursor: EventCursor, with_usage: bool
) -> web.StreamResponse:
    head = _head(session, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse.frame(_encode({**head, "choices": [choice], **extra}))

    keepalive_s = request.app[SERVICE].config.server.chat_keepalive_s
    async with sse.event_stream(request, keepalive_s) as stream:
        await stream.send(chunk({"role": "assistant", "content": ""}))
        try:
            async for entries in cursor:
                for entry in entries:
                    if (delta := _delta(entry)) is not None:
                        await stream.send(chunk(delta))
            await stream.send(chunk({}, _finish_reason(session), **_extensions(session)))
            if with_usage:
                usage = {**head, "choices": [], "usage": _usage(session)}
                await stream.send(sse.frame(_encode(usage)))
        except LogTruncated:
            lost = ApiError("The client reads too slowly: events were lost.", code="events_expired")
            await stream.send(sse.frame(_encode({"error": lost.body()})))
        except ApiError as error:
            await stream.send(sse.frame(_encode({"error": error.body()})))
        await stream.send(sse.frame(b"[DONE]"))
    return stream.response


def _delta(entry: LogEntry) -> dict[str, str] | None:
    if entry.type == events.REASONING_DELTA:
        return {"reasoning": entry.text, "reasoning_content": entry.text}
    if entry.type == events.ANSWER_DELTA:
        return {"content": entry.text}
    return None


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
