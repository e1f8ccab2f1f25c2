"""Conversations over each API, and what a client sees of each turn.

A turn adds a text of the user's to the conversation, which so grows from a few thousand tokens to
tens of thousands. With chat completions and Messages the client sends the whole conversation, with
the Responses API it names the response before.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson

APIS: Final = ("chat", "responses", "messages")
_PATHS: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
_SYLLABLES: Final = ("ba", "ko", "ri", "du", "sel", "tam", "vo", "nex", "pil", "gar")


class TurnFailed(Exception):
    """A turn did not end as it should; the message says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What all conversations have in common. Lengths are in tokens."""

    turns: int = 20
    first_tokens: int = 2_000  # of the prompt of the first turn, about
    last_tokens: int = 30_000  # of the prompt of the last turn, about
    reasoning_tokens: int = 40
    answer_tokens: int = 60
    think_s: tuple[float, float] = (0.5, 2.0)  # between turns, uniform

    def said_tokens(self, turn: int) -> int:
        """The length of the user's text in a turn, from 0."""
        if turn == 0:
            return self.first_tokens
        grown = (self.last_tokens - self.first_tokens) / max(1, self.turns - 1)
        return max(1, round(grown) - self.answer_tokens)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a client saw of one turn."""

    api: str
    turn: int  # from 0
    prompt_tokens: int
    cached_tokens: int
    first_s: float  # from sending it to its first generated token
    instance: str


@dataclass(slots=True)
class _Said:
    """What is gathered of a stream."""

    first_s: float | None = None
    text: list[str] = field(default_factory=list)
    response_id: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    instance: str = ""


def text_of(characters: int, rng: random.Random) -> str:
    """Words that mean nothing, which no other conversation has."""
    words: list[str] = []
    length = 0
    while length < characters:
        word = "".join(rng.choices(_SYLLABLES, k=rng.randint(1, 3)))
        words.append(word)
        length += len(word) + 1
    return " ".join(words)


async def talk(
    session: aiohttp.ClientSession,
    url: str,
    api: str,
    shape: Shape,
    characters_per_token: float,
    rng: random.Random,
    seen: list[Turn],
) -> None:
    """Hold one conversation, and add its turns to ``seen``.

    :raises TurnFailed: a turn was refused or broke off.
    """
    history: list[dict[str, Any]] = []
    previous: str | None = None
    for turn in range(shape.turns):
        if turn:
            await asyncio.sleep(rng.uniform(*shape.think_s))
        said = text_of(round(shape.said_tokens(turn) * characters_per_token), rng)
        history.append({"role": "user", "content": said})
        asked = history[-1:] if api == "responses" else history
        body = body_of(api, asked, previous, shape)
        sent_s = time.monotonic()
        found = await _exchange(session, url + _PATHS[api], api, body)
        if found.first_s is None:
            raise TurnFailed(f"{api}: turn {turn} generated nothing")
        seen.append(
            Turn(
                api,
                turn,
                found.prompt_tokens,
                found.cached_tokens,
                found.first_s - sent_s,
                found.instance,
            )
        )
        history.append({"role": "assistant", "content": "".join(found.text)})
        previous = found.response_id


def body_of(
    api: str, messages: Sequence[dict[str, Any]], previous: str | None, shape: Shape
) -> dict[str, Any]:
    """The body of a turn."""
    forced = {"reasoning_tokens": shape.reasoning_tokens, "answer_tokens": shape.answer_tokens}
    body: dict[str, Any] = {"stream": True, "pacing": False, "forced_lengths": forced}
    if api == "responses":
        body["input"] = list(messages)
        return body | ({} if previous is None else {"previous_response_id": previous})
    body["messages"] = list(messages)
    if api == "messages":
        return body | {"max_tokens": shape.reasoning_tokens + shape.answer_tokens}
    return body | {"stream_options": {"include_usage": True}}


async def _exchange(
    session: aiohttp.ClientSession, url: str, api: str, body: dict[str, Any]
) -> _Said:
    found = _Said()
    read = {"chat": _read_chat, "responses": _read_responses, "messages": _read_messages}[api]
    headers = {"Content-Type": "application/json"}
    async with session.post(url, data=orjson.dumps(body), headers=headers) as answer:
        if answer.status != 200:
            raise TurnFailed(f"{api}: HTTP {answer.status}: {(await answer.text())[:300]}")
        async for event in _events(answer):
            if event.get("error"):
                raise TurnFailed(f"{api}: {event['error']}")
            if read(event, found) and found.first_s is None:
                found.first_s = time.monotonic()
    if not found.instance or not found.prompt_tokens:
        raise TurnFailed(f"{api}: the stream has no end")
    return found


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of server-sent events. Their lines may be longer than aiohttp reads."""
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield orjson.loads(line.removeprefix(b"data: "))


def _read_chat(event: dict[str, Any], found: _Said) -> bool:
    """Take a chunk in; whether it has generated text."""
    if (usage := event.get("usage")) is not None:
        found.prompt_tokens = usage["prompt_tokens"]
        found.cached_tokens = usage["prompt_tokens_details"]["cached_tokens"]
    found.instance = event.get("instance", found.instance)
    if not event["choices"]:
        return False
    delta = event["choices"][0]["delta"]
    found.text.append(delta.get("content") or "")
    return bool(delta.get("content") or delta.get("reasoning"))


def _read_responses(event: dict[str, Any], found: _Said) -> bool:
    if event["type"] in ("response.completed", "response.incomplete", "response.failed"):
        response = event["response"]
        if response["status"] != "completed":
            raise TurnFailed(f"responses: {event['type']}")
        found.response_id, found.instance = response["id"], response["instance"]
        usage = response["usage"]
        found.prompt_tokens = usage["input_tokens"]
        found.cached_tokens = usage["input_tokens_details"]["cached_tokens"]
    return event["type"] in ("response.reasoning_text.delta", "response.output_text.delta")


def _read_messages(event: dict[str, Any], found: _Said) -> bool:
    if event["type"] == "message_delta":
        usage, found.instance = event["usage"], event["instance"]
        found.cached_tokens = usage["cache_read_input_tokens"]
        found.prompt_tokens = usage["input_tokens"] + found.cached_tokens
    if event["type"] != "content_block_delta":
        return False
    delta = event["delta"]
    found.text.append(delta.get("text", ""))
    return bool(delta.get("text") or delta.get("thinking"))
