"""``POST /v1/chat/completions``: the same responses in the older form, whole or as chunks.

Chunks carry the thoughts twice, as ``delta.reasoning`` and ``delta.reasoning_content``, because
clients differ in which of the two they read.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from gateway import events, sse
from gateway.bodies import ChatBody, parse_body
from gateway.errors import ApiError
from gateway.event_log import LogEntry, LogReader, LogTruncated
from gateway.http_api import SERVICE, json_response, owner_of, read_body, start_whole
from gateway.requests import default_targets, from_chat
from gateway.service import ResponseService
from gateway.session import Session

_encode = msgspec.json.Encoder().encode


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Handle the route."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_body(await read_body(request), ChatBody)
    service.check_model(body.model)
    generation = from_chat(body, default_targets(service.config.pacing, request.headers))
    if not body.stream:
        session = await start_whole(service, generation, owner)
        if session.error is not None:
            raise session.error
        return json_response(_completion(session))
    session = await service.start(generation, owner)
    with_usage = bool((body.stream_options or {}).get("include_usage"))
    try:
        with service.following(session) as reader:
            return await _stream(request, session, reader, with_usage)
    finally:
        _stop_if_running(service, session)


def _stop_if_running(service: ResponseService, session: Session) -> None:
    """Here nobody can come back to a response: a client that went away wants no more."""
    if not session.finished:
        service.cancel(session)


async def _stream(
    request: web.Request, session: Session, reader: LogReader, with_usage: bool
) -> web.StreamResponse:
    response = await sse.start_stream(request)
    head = _head(session, "chat.completion.chunk")

    async def send(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        await response.write(sse.frame(_encode({**head, "choices": [choice], **extra})))

    await send({"role": "assistant", "content": ""})
    error = None
    try:
        async for entries in reader:
            for entry in entries:
                if (delta := _delta(entry)) is not None:
                    await send(delta)
    except LogTruncated:
        error = ApiError("The client reads too slowly: events were lost.", code="events_expired")
    error = error or session.error
    if error is not None:
        await response.write(sse.frame(_encode({"error": error.body()})))
    else:
        await send({}, _finish_reason(session), **_extensions(session))
        if with_usage:
            usage = {**head, "choices": [], "usage": _usage(session)}
            await response.write(sse.frame(_encode(usage)))
    await response.write(sse.frame(b"[DONE]"))
    return response


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


def _finish_reason(session: Session) -> str:
    return "length" if session.incomplete_reason == "max_output_tokens" else "stop"


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
