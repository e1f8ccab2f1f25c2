"""Sends anything over a WebSocket: messages of the AsyncAPI document, right, wrong and broken.

Every answer must be an event or an error of the document. A healthy stream on a socket of its own
must not notice.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from jsonschema import Draft202012Validator

from tests.gateway.support.described import describe
from tests.gateway.support.player import SLOW, SLOW_ANSWER, THOUGHTS

_ADDRESS = "/v1/responses"
_PER_SOCKET = 100  # messages
_BURST = 10  # of them, before the fuzzer looks at the answers
_MOST_FAILURES = 20
_TEXTS = (
    "",
    "a",
    "slow",
    "\u0000",
    "\ufeff\u202e",
    "\U0001f600" * 3,
    "ä\u0308",
    "resp_" + "0" * 32,
    "conv_" + "0" * 32,
    "'; --",
    "x" * 3000,
    "9" * 400,
    "__proto__",
)
_NUMBERS = (0, 1, -1, 0.5, 2**31, 2**31 + 1, 2**63, 2**64, 2**70, -(2**63) - 1, 1e308, 1e-320)


@dataclass(slots=True)
class Outcome:
    """What was sent and seen."""

    sent: int = 0
    seen: Counter[str] = field(default_factory=Counter)  # by type, or code of an error
    failures: list[str] = field(default_factory=list)
    healthy: int = 0  # streams beside the fuzzer
    longest_gap_s: float = 0.0  # between two events of one of them

    def fail(self, text: str) -> None:
        """Note a failure, unless there are many."""
        if len(self.failures) < _MOST_FAILURES and text not in self.failures:
            self.failures.append(text)


class Events:
    """The events of the document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        components = document["components"]
        answers = document["operations"]["answer"]["messages"]
        self._validators = {}
        for one in answers:
            type_ = one["$ref"].rpartition("/")[2]
            schema = {**components["messages"][type_]["payload"], "components": components}
            self._validators[type_] = Draft202012Validator(schema)

    def wrong(self, event: Any) -> str | None:
        """Why this is no event; None if it is one."""
        validator = self._validators.get(event.get("type") if isinstance(event, dict) else None)
        if validator is None:
            return f"no such event: {str(event)[:300]}"
        errors = [describe(error) for error in validator.iter_errors(event)]
        return f"{event['type']}: {errors[:2]}" if errors else None


class Messages:
    """Makes messages from the document, and breaks them."""

    def __init__(self, document: Mapping[str, Any], chance: random.Random) -> None:
        self._components = document["components"]["schemas"]
        asked = [
            one["$ref"].rpartition("/")[2] for one in document["operations"]["ask"]["messages"]
        ]
        messages = document["components"]["messages"]
        self._asked = {type_: messages[type_]["payload"] for type_ in asked}
        self._chance = chance
        self.ids: list[str] = []  # of responses that were seen

    def next(self) -> str | bytes:
        """The next message: text, or bytes for a binary one."""
        chance = self._chance
        message = self._message()
        kind = chance.random()
        if kind < 0.25:
            return json.dumps(message, ensure_ascii=chance.random() < 0.5)
        if kind < 0.85:
            for _ in range(chance.randint(1, 3)):
                self._break(message)
            return json.dumps(message)
        return self._broken(json.dumps(message))

    def _message(self) -> dict[str, Any]:
        chance = self._chance
        type_ = chance.choice(list(self._asked))
        message: dict[str, Any] = self._value(self._asked[type_], 0)
        if type_ == "response.create":
            if chance.random() < 0.5:  # the rest is usually refused for what its fields mean
                kept = ("type", "stream_id", "instructions", "metadata", "temperature")
                message = {name: message[name] for name in kept if name in message}
                message["input"] = "a"
            if chance.random() < 0.8:
                message["input"] = chance.choice(("a", "slow", "What is 348 + 275?"))
            if chance.random() < 0.8:
                message.pop("model", None)
                message["pacing"] = False
        elif self.ids and chance.random() < 0.7:
            message["response_id"] = chance.choice(self.ids)
        return message

    def _value(self, schema: Any, depth: int) -> Any:
        """A value that fits a schema, nearly always."""
        chance = self._chance
        if not isinstance(schema, dict) or not schema:
            return self._anything(depth)
        if "$ref" in schema:
            return self._value(self._components[schema["$ref"].rpartition("/")[2]], depth)
        if "allOf" in schema:
            merged: dict[str, Any] = {}
            for one in schema["allOf"]:
                merged |= self._value(one, depth)
            return merged
        if "anyOf" in schema:
            return self._value(chance.choice(schema["anyOf"]), depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return chance.choice(schema["enum"])
        kind = schema.get("type", "object" if "properties" in schema else "string")
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                count = chance.randint(schema.get("minItems", 0), 2)
                return [self._value(schema.get("items", {}), depth + 1) for _ in range(count)]
            case "integer" | "number":
                low, high = schema.get("minimum", -2), schema.get("maximum", 2000)
                number = chance.choice((low, high, chance.uniform(low, high)))
                return int(number) if kind == "integer" else number
            case "boolean":
                return chance.random() < 0.5
            case "null":
                return None
        text = chance.choice(_TEXTS)
        return text[: schema["maxLength"]] if "maxLength" in schema else text

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        chance = self._chance
        needed = schema.get("required", ())
        properties = schema.get("properties", {})
        share = min(1.0, 2 / max(1, len(properties)))  # about two of those that may be absent
        found = {
            name: self._value(inner, depth + 1)
            for name, inner in properties.items()
            if name in needed or (depth < 6 and chance.random() < share)
        }
        if not properties and depth < 6:
            inner = schema.get("additionalProperties", {})
            found[chance.choice(_TEXTS)] = self._value(inner, depth + 1)
        return found

    def _anything(self, depth: int) -> Any:
        chance = self._chance
        simple: tuple[Any, ...] = (
            chance.choice(_TEXTS),
            chance.choice(_NUMBERS),
            None,
            True,
            [],
            {},
        )
        if depth > 3 or chance.random() < 0.7:
            return chance.choice(simple)
        inner = self._anything(depth + 1)
        return chance.choice(([inner], {"a": inner}, {"type": inner}, {"role": "user", "a": inner}))

    def _break(self, message: dict[str, Any]) -> None:
        """Make one place of a message wrong."""
        chance = self._chance
        place: Any = message
        while True:
            names = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not names:
                break
            name = chance.choice(names)
            if isinstance(place[name], dict | list) and place[name] and chance.random() < 0.6:
                place = place[name]
                continue
            match chance.randrange(4):
                case 0:
                    del place[name]
                case 1:
                    place[name] = self._deep()
                case _:
                    place[name] = self._anything(0)
            break
        if chance.random() < 0.2:
            message[chance.choice((*_TEXTS, "type", "stream_id"))] = self._anything(0)

    def _deep(self) -> Any:
        value: Any = 1
        for _ in range(self._chance.choice((2, 70, 400))):
            value = [value] if self._chance.random() < 0.5 else {"a": value}
        return value

    def _broken(self, text: str) -> str | bytes:
        chance = self._chance
        match chance.randrange(7):
            case 0:
                return text.encode()  # a binary message
            case 1:
                return text[: chance.randrange(len(text))]
            case 2:
                return "[" * chance.choice((1, 900, 20_000))
            case 3:
                return chance.choice(("", " ", "null", "[]", "0", '"a"', "NaN", "{}", "\u0000"))
            case 4:
                return text.replace('"', "'")
            case 5:
                # Valid UTF-8, and a lone surrogate as an escape.
                return '{"type": "response.create", "input": "\\ud800", "pacing": false}'
        return json.dumps({"type": "response.create", "input": "x" * 1_100_000})


async def fuzz(http: ClientSession, messages: int, seed: int, sockets: int = 4) -> Outcome:
    """Send so many messages, over some sockets at a time, beside a healthy stream."""
    async with http.get("/asyncapi.json") as response:
        document = await response.json()
    outcome, events = Outcome(), Events(document)
    ended = asyncio.Event()
    healthy = asyncio.create_task(_healthy(http, events, outcome, ended))

    async def some(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        source = Messages(document, chance)
        while outcome.sent < messages:
            await _one_socket(http, source, events, outcome, f"{seed}-{number}-{outcome.sent}")

    try:
        async with asyncio.TaskGroup() as tasks:
            for number in range(sockets):
                tasks.create_task(some(number))
    finally:
        ended.set()
        await healthy
    return outcome


async def _one_socket(
    http: ClientSession, source: Messages, events: Events, outcome: Outcome, name: str
) -> None:
    async with http.ws_connect(_ADDRESS, max_msg_size=0) as socket:
        for burst in range(_PER_SOCKET // _BURST):
            sent = [source.next() for _ in range(_BURST)]
            for message in sent:
                outcome.sent += 1
                if isinstance(message, bytes):
                    await socket.send_bytes(message)
                else:
                    await socket.send_str(message)
            last = f"last-{name}-{burst}"
            await socket.send_json({"type": last})
            if not await _read(socket, last, source, events, outcome, sent):
                return


async def _read(
    socket: ClientWebSocketResponse,
    last: str,
    source: Messages,
    events: Events,
    outcome: Outcome,
    sent: Sequence[str | bytes],
) -> bool:
    """Read until the last message is refused; whether the socket goes on."""
    while True:
        answer = await socket.receive(timeout=120)
        if answer.type is not WSMsgType.TEXT:
            outcome.fail(
                f"the socket ended with {answer.type!r} {answer.data!r} after {sent!r:.3000}"
            )
            return False
        event = json.loads(answer.data)
        if (wrong := events.wrong(event)) is not None:
            outcome.fail(wrong)
            continue
        if event["type"] == "error":
            error = event["error"]
            outcome.seen[error["code"]] += 1
            if event["status"] >= 500:
                outcome.fail(f"{error['code']} after one of {sent!r:.6000}")
            if last in error["message"]:
                return True
        else:
            outcome.seen[event["type"]] += 1
            if event["type"] == "response.created" and len(source.ids) < 1000:
                source.ids.append(event["response"]["id"])


async def _healthy(
    http: ClientSession, events: Events, outcome: Outcome, ended: asyncio.Event
) -> None:
    """Streams of one reader, one after another. Nothing is wrong with them."""
    async with http.ws_connect(_ADDRESS) as socket:
        while not ended.is_set() or not outcome.healthy:
            body = {"type": "response.create", "input": SLOW, "pacing": {"tpot_s": 0.005}}
            await socket.send_json({**body, "stream_id": "healthy"})
            found: dict[str, str] = {"reasoning_text": "", "output_text": ""}
            sequence, before_s = 0, None
            while True:
                event = await socket.receive_json(timeout=120)
                now_s = time.monotonic()
                if before_s is not None:
                    outcome.longest_gap_s = max(outcome.longest_gap_s, now_s - before_s)
                before_s = now_s
                if (wrong := events.wrong(event)) is not None:
                    outcome.fail(f"healthy stream: {wrong}")
                    return
                if event["type"] == "error":
                    outcome.fail(f"the healthy stream was refused: {event}")
                    return
                if event["sequence_number"] != sequence or event.get("stream_id") != "healthy":
                    outcome.fail(f"healthy stream: {event} is not event {sequence}")
                sequence += 1
                kind = event["type"].split(".")
                if kind[-1] == "delta":
                    found[kind[1]] += event["delta"]
                if event["type"] == "response.completed":
                    break
            whole = {"reasoning_text": "".join(THOUGHTS), "output_text": "".join(SLOW_ANSWER)}
            if found != whole:
                outcome.fail(f"the healthy stream had {found}")
            outcome.healthy += 1
