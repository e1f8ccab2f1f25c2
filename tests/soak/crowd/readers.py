"""The readers of a crowd: healthy ones, and those that stall, reconnect, stop or send garbage."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.soak.clients import garbage, places, wire
from tests.soak.clients.stage import Stage, established
from tests.soak.clients.stream import ChatStream, Refused, Stream, Violation
from tests.soak.clients.wire import Wire
from tests.soak.crowd.engines import text_of
from tests.soak.crowd.outcomes import Group, Outcome, Reading

# Which share of the readers does what; the rest are healthy.
SHARES = {"stalls": 0.05, "reconnects": 0.05, "stops": 0.10, "sends garbage": 0.01}
_GARBAGE: tuple[places.Reader, ...] = (
    garbage.sends_garbage,
    garbage.breaks_the_frame,
    garbage.asks_wrongly,
    garbage.speaks_no_http,
    garbage.never_finishes,
    garbage.upgrades_and_vanishes,
)
_SSE_SHARE = 0.25
_CHAT_SHARE = 0.1  # of the healthy readers; a chat completion cannot be resumed
_MUCH = 60  # resumptions from the first event on, of which a stalled reader reads nothing
_FILL_S = 10.0  # a stalled reader's buffers are full after this; then the bound begins
_LOOK_S = 0.5  # between two looks at the connections


@dataclass(slots=True)
class Crowd:
    """What the readers of one run share."""

    stage: Stage
    outcome: Outcome
    tpot_s: float  # of every reader
    send_timeout_s: float  # the gateway's bound for stalled clients
    ramp_s: float  # within this time all readers come
    scripted: bool  # whether the engines' text is that of `engines.text_of`
    until_s: float  # on the loop's clock; no response begins after it
    held: set[int] = field(default_factory=set)  # client ports that the gateway holds open

    async def watch(self) -> None:
        """Keep `held` up to date, until cancelled."""
        while True:
            self.held = established(self.stage.address[1])
            await asyncio.sleep(_LOOK_S)


Role = Callable[["Visit"], Awaitable[None]]


class Visit:
    """One response of one reader."""

    def __init__(self, crowd: Crowd, group: Group, rng: random.Random, *, may_chat: bool) -> None:
        self.crowd = crowd
        self.rng = rng
        self.reading = Reading(crowd.tpot_s)
        self.transport = "SSE" if rng.random() < _SSE_SHARE else "WebSocket"
        if may_chat and rng.random() < _CHAT_SHARE:
            self.transport = "chat"
        self._group = group
        self._wires: list[Wire] = []  # the last one may be open
        # Tokens of reasoning and answer.
        self.lengths = (rng.randint(30, 200), rng.randint(200, 500))
        self.stream = self._stream()

    async def begin(self, *, slow: bool = False) -> Wire:
        """Start the response. Raises `Refused`."""
        reasoning, answer = self.lengths
        text = "How do you do? " * self.rng.randint(1, 8)
        request: dict[str, Any] = {
            "pacing": {"tpot_s": self.crowd.tpot_s},
            "forced_lengths": {"reasoning_tokens": reasoning, "answer_tokens": answer},
        }
        stage, stream, arrived = self.crowd.stage, self.stream, self.reading.arrived
        if self.transport == "chat":
            request |= {
                "messages": [{"role": "user", "content": text}],
                "stream_options": {"include_usage": True},
            }
            path = "/v1/chat/completions"
            one = await wire.posted(stage, stream, arrived, request, path=path)
        elif self.transport == "SSE":
            request |= {"input": text, "store": False}
            one = await wire.posted(stage, stream, arrived, request, slow=slow)
        else:
            request |= {"input": text, "store": False}
            one = await wire.websocket(stage, stream, arrived, slow=slow)
            one.send(type="response.create", **request)
        self._wires.append(one)
        await self.read(one, upto=1)
        return one

    def _stream(self) -> Stream:
        tally = self.crowd.stage.tally
        if self.transport != "chat":
            return Stream(tally)
        if not self.crowd.scripted:
            return ChatStream(tally)
        reasoning, answer = self.lengths
        texts = [
            text_of(place, reasoning, reasoning + answer) for place in range(sum(self.lengths))
        ]
        return ChatStream(tally, texts[:reasoning], texts[reasoning:])

    async def resume(self) -> Wire:
        """Go on reading on a new connection, of either kind."""
        self._group.reconnects += 1
        stage, stream, arrived = self.crowd.stage, self.stream, self.reading.arrived
        if self.rng.random() < _SSE_SHARE:
            one = await wire.resumed(stage, stream, arrived)
        else:
            one = await wire.websocket(stage, stream, arrived)
            one.send(
                type="response.resume",
                response_id=stream.response_id,
                starting_after=stream.last,
            )
        self._wires.append(one)
        return one

    def leave(self) -> None:
        """Close the connection, and note how fast the connections were."""
        for one in self._wires:
            one.leave()
            self.crowd.outcome.connects_s.append(one.connect_s)
            if one.answer_s is not None:
                self.crowd.outcome.answers_s.append(one.answer_s)

    async def read(self, one: Wire, upto: int | None = None) -> None:
        """Read to the end, or ``upto`` further events. The gateway must not end the connection."""
        if not await one.follow(upto):
            raise Violation(f"{self.stream.response_id}: lost its connection: {one.ended}")

    def check(self) -> None:
        """The response is complete: all tokens that were asked for, and a text."""
        final = self.stream.final
        assert final is not None
        name, expected = self.stream.response_id, sum(self.lengths)
        if final["status"] != "completed":
            raise Violation(f"{name}: ended {final['status']}: {final['incomplete_details']}")
        if final["usage"]["output_tokens"] != expected:
            raise Violation(f"{name}: {final['usage']} of {expected} tokens")
        self._group.add(self.transport, self.reading, final)


async def reads(visit: Visit) -> None:
    """Healthy: reads to the end."""
    one = await visit.begin()
    await visit.read(one)
    visit.check()


async def reconnects(visit: Visit) -> None:
    """Drops its connection up to four times, at random, and comes back for the rest."""
    one = await visit.begin()
    for _ in range(visit.rng.randint(1, 4)):
        await visit.read(one, upto=visit.rng.randint(1, 150))
        if visit.stream.ended:
            break
        one.vanish() if visit.rng.random() < 0.5 else one.leave()
        await asyncio.sleep(visit.rng.uniform(0, 2))
        one = await visit.resume()
    await visit.read(one)
    visit.check()


async def stops(visit: Visit) -> None:
    """Presses Stop somewhere; the response must end, and say that it was cancelled."""
    crowd, stream = visit.crowd, visit.stream
    clock = asyncio.get_running_loop().time
    one = await visit.begin()
    await visit.read(one, upto=visit.rng.randint(1, 300))
    over = stream.ended
    pressed_s = clock()
    if over:
        crowd.outcome.too_late += 1
    elif visit.transport == "SSE":
        path = f"/v1/responses/{stream.response_id}/cancel"
        status, document = await crowd.stage.call("POST", path)
        if status != 200:
            raise Violation(f"{stream.response_id}: Stop was answered by {status} {document}")
    else:
        one.send(type="response.cancel", response_id=stream.response_id)
    await visit.read(one)
    assert stream.final is not None
    details = stream.final["incomplete_details"] or {}
    if details.get("reason") == "cancelled":
        crowd.outcome.stops_s.append(clock() - pressed_s)
    elif not over and stream.final["status"] != "completed":
        raise Violation(f"{stream.response_id}: stopped, and ended {stream.final['status']}")


async def stalls(visit: Visit) -> None:
    """Takes nothing until the gateway disconnects it; then comes back for the rest.

    At the pace of a reader, only the system's buffers fill up within the bound. Half of the
    WebSockets ask for so much that the gateway's own buffer is full at once.
    """
    crowd, stream, outcome = visit.crowd, visit.stream, visit.crowd.outcome
    clock = asyncio.get_running_loop().time
    visit.lengths = (visit.rng.randint(30, 200), visit.rng.randint(350, 500))
    one = await visit.begin(slow=True)
    await visit.read(one, upto=visit.rng.randint(1, 100))
    one.transport.pause_reading()
    if visit.transport == "WebSocket" and visit.rng.random() < 0.5:
        one.ignores = True
        for number in range(_MUCH):
            one.send(type="response.resume", response_id=stream.response_id, stream_id=f"{number}")
    began_s = clock()
    await asyncio.sleep(2 * _LOOK_S)  # `held` is newer than the connection
    while one.port in crowd.held:
        await asyncio.sleep(_LOOK_S)
        if clock() - began_s > crowd.send_timeout_s + _FILL_S:
            outcome.not_closed += 1
            break
    else:
        outcome.closed_s.append(clock() - began_s)
        path = f"/v1/responses/{stream.response_id}"
        status, document = await crowd.stage.call("GET", path)
        outcome.went_on += status == 200 and document["status"] == "in_progress"
    one.transport.resume_reading()
    if one.ignores or not await one.follow():
        await one.closed()
        outcome.closed_how[one.ended] += 1
        one = await visit.resume()
        await visit.read(one)
    visit.check()


async def sends_garbage(visit: Visit) -> None:
    """Sends one kind of garbage after the other; the checks are those of the soak."""
    await places.one(visit.crowd.stage, visit.rng.choice(_GARBAGE), visit.rng)
    await asyncio.sleep(visit.rng.uniform(0, 1))


ROLES: dict[str, Role] = {
    "healthy": reads,
    "stalls": stalls,
    "reconnects": reconnects,
    "stops": stops,
    "sends garbage": sends_garbage,
}


def counts(readers: int) -> dict[str, int]:
    """How many readers have each role: at least one each."""
    others = {name: max(1, round(share * readers)) for name, share in SHARES.items()}
    return {"healthy": readers - sum(others.values()), **others}


async def fill(crowd: Crowd, seed: int) -> None:
    """Run all readers to their end."""
    watching = asyncio.create_task(crowd.watch())
    try:
        async with asyncio.TaskGroup() as group:
            for name, one in crowd.outcome.groups.items():
                for number in range(one.places):
                    rng = random.Random(f"{seed} {name} {number}")
                    group.create_task(_place(crowd, name, rng))
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _place(crowd: Crowd, name: str, rng: random.Random) -> None:
    """One reader, which reads response after response."""
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(rng.uniform(0, crowd.ramp_s))
    tally, group = crowd.stage.tally, crowd.outcome.groups[name]
    while clock() < crowd.until_s:
        own = random.Random(rng.getrandbits(64))
        visit = Visit(crowd, group, own, may_chat=name == "healthy")
        try:
            await ROLES[name](visit)
        except Refused as refused:
            crowd.outcome.refusals[refused.code] += 1
            if refused.status != 429:
                tally.wrong(f"{name}: {refused}")
            await asyncio.sleep(rng.uniform(1, 3))
        except Violation as violation:
            tally.wrong(f"{name}, {visit.transport}: {violation}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            tally.wrong(f"{name}, {visit.transport}: {type(error).__name__}: {error}")
        finally:
            visit.leave()
        tally.readers[name] += 1
        crowd.outcome.events += visit.stream.last + 1
        crowd.outcome.tokens += visit.reading.tokens + visit.reading.thoughts
