"""The readers: how each reads, and what it must get. What they ask: `tests.chaos.questions`.

The answer to each question is read once without faults. After that, each reader of the question
must get the same text: either all of it, or a part that ends with an error. A resumable response
must be complete unless its reader cancelled it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import aiohttp

from tests.chaos.questions import prompt, question, tools

Texts: TypeAlias = tuple[str, str, str]  # of reasoning, of the answer, and of all calls

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
KINDS = ("socket", "socket", "reconnecting", "socket", "chat stream", "cancelling", "chat whole")
PATIENCE_S = 300.0  # guards against a hang
_REFUSED_S = 0.3  # before a refused request is sent again

TEXT_OF = {  # which text an event adds to
    "response.reasoning_text.delta": "reasoning",
    "response.output_text.delta": "answer",
    "response.function_call_arguments.delta": "calls",
}


@dataclass(slots=True)
class Tally:
    """Counts over all readers."""

    done: Counter[str] = field(default_factory=Counter)  # by kind
    refused: Counter[str] = field(default_factory=Counter)  # by code; before they started
    ended_by_error: Counter[str] = field(default_factory=Counter)  # chat completions, by code
    cancelled: int = 0
    resumed: int = 0  # sockets that were opened again
    failovers: int = 0
    migrations: int = 0
    longest_pause_s: float = 0.0  # between two events of one response
    wrong: list[str] = field(default_factory=list)


class Refused(Exception):
    """The request was refused before it started."""


@dataclass(slots=True)
class Reading:
    """What one WebSocket reader has received."""

    texts: dict[str, str] = field(default_factory=lambda: dict.fromkeys(TEXT_OF.values(), ""))
    expected: int = 0  # the next sequence number
    response_id: str = ""
    last_s: float | None = None
    end: dict[str, Any] | None = None  # the terminal event

    @property
    def all(self) -> Texts:
        """The texts of reasoning, of the answer and of the calls."""
        return self.texts["reasoning"], self.texts["answer"], self.texts["calls"]


class Load:
    """Readers that ask one question after another until `stop`.

    :param url: of the gateway.
    :param questions: number of different questions.
    """

    def __init__(self, url: str, questions: int, tally: Tally) -> None:
        self.tally = tally
        self._url = url
        self._questions = questions
        self._undisturbed: dict[int, Texts] = {}
        self._number = 0
        self._stopping = False
        self._http: aiohttp.ClientSession

    async def read_undisturbed(self) -> None:
        """Read the answer to each question once, as the reference."""

        async def read(index: int) -> None:
            reading = await self._read_socket(index, Reading(), pacing=False)
            self._undisturbed[index] = reading.all

        async with aiohttp.ClientSession() as self._http:
            await asyncio.gather(*(read(index) for index in range(self._questions)))
        for index, (_, answer, calls) in self._undisturbed.items():
            if not (calls if tools(index) else answer):
                self._wrong("socket", index, "the undisturbed response has no answer, or no call")

    async def run(self, readers: int) -> None:
        """Read until `stop`; returns when the last response has ended."""
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=connector) as self._http,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(readers):
                tasks.create_task(self._reader())

    def stop(self) -> None:
        """Start no new response."""
        self._stopping = True

    async def _reader(self) -> None:
        while not self._stopping:
            number, self._number = self._number, self._number + 1
            kind, index = KINDS[number % len(KINDS)], number % self._questions
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._ask(kind, index, number)
            except TimeoutError:
                self._wrong(kind, index, f"no end within {PATIENCE_S:g} s")
            except (aiohttp.ClientError, OSError) as error:
                self._wrong(kind, index, f"the gateway's connection broke: {error!r}")
            self.tally.done[kind] += 1

    async def _ask(self, kind: str, index: int, number: int) -> None:
        while True:
            try:
                if kind == "chat stream":
                    return await self._chat_stream(index)
                if kind == "chat whole":
                    return await self._chat_whole(index)
                return await self._socket(kind, index, number)
            except Refused as refused:
                self.tally.refused[str(refused)] += 1
            await asyncio.sleep(_REFUSED_S)

    # ---- WebSockets ---------------------------------------------------------------------------

    async def _socket(self, kind: str, index: int, number: int) -> None:
        reading = Reading()
        early = 10 + 7 * (number % 20)  # events after which this reader cancels or reconnects
        if kind == "reconnecting":
            await self._read_socket(index, reading, leave_after=early)
            if reading.end is None:
                self.tally.resumed += 1
                await self._read_socket(index, reading)
        else:
            cancel_after = early if kind == "cancelling" else None
            await self._read_socket(index, reading, cancel_after=cancel_after)
        self._judge_socket(kind, index, reading)

    async def _read_socket(
        self,
        index: int,
        reading: Reading,
        *,
        leave_after: int | None = None,
        cancel_after: int | None = None,
        **other: Any,
    ) -> Reading:
        """Read on from ``reading``, to the end of the response or to ``leave_after`` events."""
        async with self._http.ws_connect(f"{self._url}/v1/responses", max_msg_size=0) as socket:
            if reading.response_id:
                resume = {
                    "response_id": reading.response_id,
                    "starting_after": reading.expected - 1,
                }
                await socket.send_json({"type": "response.resume", **resume})
            else:
                body = {"input": prompt(index), **question(index), **other}
                body["tools"] = [{"type": "function", **tool} for tool in tools(index)]
                await socket.send_json({"type": "response.create", **body})
            while reading.end is None:
                event = await socket.receive_json()
                self._take(event, reading, index)
                if leave_after is not None and reading.expected > leave_after:
                    break
                if cancel_after is not None and reading.expected > cancel_after:
                    cancel_after = None
                    cancel = {"type": "response.cancel", "response_id": reading.response_id}
                    await socket.send_json(cancel)
            if reading.end is not None:
                await self._nothing_follows(socket, index)
        return reading

    def _take(self, event: dict[str, Any], reading: Reading, index: int) -> None:
        now = time.monotonic()
        if event["type"] == "error":
            code = event["error"]["code"]
            if code in ("no_instance", "rate_limit_exceeded") and not reading.expected:
                raise Refused(code)
            self._wrong("socket", index, f"refused: {event['error']}")
            reading.end = event
            return
        if event["sequence_number"] != reading.expected:
            number = event["sequence_number"]
            self._wrong("socket", index, f"event {number} came instead of {reading.expected}")
        reading.expected = event["sequence_number"] + 1
        if reading.last_s is not None:
            self.tally.longest_pause_s = max(self.tally.longest_pause_s, now - reading.last_s)
        reading.last_s = now
        if event["type"] == "response.created":
            reading.response_id = event["response"]["id"]
        elif event["type"] == "response.output_item.added":
            if event["item"]["type"] == "function_call":
                reading.texts["calls"] += _began(event["item"]["name"])
        elif event["type"] in TEXT_OF:
            reading.texts[TEXT_OF[event["type"]]] += event["delta"]
        elif event["type"] in TERMINAL:
            reading.end = event

    async def _nothing_follows(self, socket: aiohttp.ClientWebSocketResponse, index: int) -> None:
        """Ask for a response that does not exist; the next event must be the answer to that."""
        await socket.send_json({"type": "response.resume", "response_id": "resp_none"})
        event = await socket.receive_json()
        if event["type"] != "error" or event["error"]["code"] != "response_not_found":
            self._wrong("socket", index, f"after the terminal event came {event['type']}")

    def _judge_socket(self, kind: str, index: int, reading: Reading) -> None:
        if reading.end is None or reading.end["type"] == "error":
            return  # counted as wrong where it happened
        response = reading.end["response"]
        self.tally.failovers += response.get("failovers", 0)
        self.tally.migrations += response.get("migrations", 0)
        if _final(response["output"]) != reading.all:
            self._wrong(kind, index, "the deltas do not join to the final text")
        status, reason = response["status"], (response["incomplete_details"] or {}).get("reason")
        if reading.end["type"] != f"response.{status}":
            self._wrong(kind, index, f"{reading.end['type']} says {status}")
        if kind == "cancelling" and (status, reason) == ("incomplete", "cancelled"):
            self.tally.cancelled += 1
            self._compare(kind, index, reading.all, whole=False)
        elif status != "completed":
            self._wrong(kind, index, f"{status}: {reason or response['error']}")
        else:
            self._compare(kind, index, reading.all, whole=True)

    # ---- chat completions ---------------------------------------------------------------------

    def _chat_body(self, index: int, *, stream: bool) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt(index)}]
        nested = [{"type": "function", "function": tool} for tool in tools(index)]
        return {"messages": messages, "stream": stream, "tools": nested, **question(index)}

    async def _chat_stream(self, index: int) -> None:
        kind, calls, texts = "chat stream", "", {"reasoning": "", "content": ""}
        finish, error, done = None, None, False
        url, body = f"{self._url}/v1/chat/completions", self._chat_body(index, stream=True)
        async with self._http.post(url, json=body) as response:
            await self._refuse(response)
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                data = line.removeprefix(b"data: ").strip()
                if data == b"[DONE]":
                    done = True
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    error = chunk["error"]
                    continue
                for choice in chunk["choices"]:
                    for name in texts:
                        texts[name] += choice["delta"].get(name) or ""
                    for part in choice["delta"].get("tool_calls") or ():
                        function = part["function"]
                        calls += _began(function["name"]) if "name" in function else ""
                        calls += function["arguments"]
                    finish = choice["finish_reason"] or finish
        got = texts["reasoning"], texts["content"], calls
        if error is not None:
            self.tally.ended_by_error[error["code"]] += 1
            if finish is not None:
                self._wrong(kind, index, f"it ended with an error and with {finish}")
            self._compare(kind, index, got, whole=False)
        elif finish is None or not done:
            self._wrong(kind, index, "it ended with neither an error nor finish_reason and [DONE]")
        else:
            self._compare(kind, index, got, whole=True)

    async def _chat_whole(self, index: int) -> None:
        url, body = f"{self._url}/v1/chat/completions", self._chat_body(index, stream=False)
        async with self._http.post(url, json=body) as response:
            await self._refuse(response)
            document = await response.json()
            if response.status != 200:
                self.tally.ended_by_error[document["error"]["code"]] += 1
                return
        message = document["choices"][0]["message"]
        functions = [call["function"] for call in message.get("tool_calls", ())]
        calls = "".join(_began(call["name"]) + call["arguments"] for call in functions)
        got = message["reasoning"] or "", message["content"] or "", calls
        self._compare("chat whole", index, got, whole=True)

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        if response.status in (429, 503):
            code = (await response.json())["error"]["code"]
            if code in ("no_instance", "rate_limit_exceeded"):
                raise Refused(code)

    # ---- the verdict --------------------------------------------------------------------------

    def _compare(self, kind: str, index: int, texts: Texts, *, whole: bool) -> None:
        undisturbed = self._undisturbed[index]
        same: Callable[[str, str], bool] = str.__eq__ if whole else str.startswith
        for what, wanted, text in zip(TEXT_OF.values(), undisturbed, texts, strict=True):
            if not same(wanted, text):
                place = len(_common(wanted, text))
                self._wrong(
                    kind,
                    index,
                    f"its {what} differs from character {place} of {len(wanted)}: "
                    f"{text[place : place + 40]!r} instead of {wanted[place : place + 40]!r}",
                )

    def _wrong(self, kind: str, index: int, what: str) -> None:
        self.tally.wrong.append(f"{kind}, question {index}: {what}")


def _began(name: str) -> str:
    """The beginning of a call, among the texts of all calls."""
    return f"\n{name}: "


def _final(output: list[dict[str, Any]]) -> Texts:
    """The texts of a response object."""
    texts = dict.fromkeys(("reasoning", "message", "function_call"), "")
    for item in output:
        if item["type"] == "function_call":
            texts["function_call"] += _began(item["name"]) + item["arguments"]
        else:
            texts[item["type"]] += item["content"][0]["text"]
    return texts["reasoning"], texts["message"], texts["function_call"]


def _common(first: str, second: str) -> str:
    """The common beginning of two texts."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return first[:place]
    return min(first, second, key=len)
