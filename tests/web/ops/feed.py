"""A gateway of the operations page whose cluster is invented: as many instances as one likes.

It serves the real page under the real policy of its contents, and sends the frames of
``/admin/ops`` by a script. To look at it:

    python -m tests.web.ops.feed --instances 64 --requests 2000
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any, Self

import orjson
from aiohttp import web

from gateway.api.documents.frames import Figure
from gateway.api.pages.routes import add_pages
from gateway.app import _security_headers
from gateway.ops.asks import Asked
from gateway.ops.history import COLUMNS, LENGTH
from gateway.ops.instances import INSTANCE_COLUMNS
from gateway.ops.life import MARKS
from gateway.ops.worst import FIGURES
from gateway.policy.placement import BOUNDARY_RULES
from gateway.response.tally import LIVE_STATES
from gateway.schemas.errors import InvalidRequest

QUEUED, REASONING, ANSWERING, CALLING, MIGRATING, DELIVERING = range(len(LIVE_STATES))
POLICIES = ("slack", "pascal", "fcfs")
TICK_S = 0.25
PASSED_S = 40.0  # of the life of a request before a page looks


class Invented:
    """A cluster that nobody runs: the same for the same seed."""

    def __init__(self, instances: int, requests: int, seed: int = 7) -> None:
        self.chance = random.Random(seed)
        self.instances, self.wanted = instances, requests
        self.requests: dict[int, list[Any]] = {}  # number: state, place, waits, ahead, left_s
        self.next = 1
        self.preemptions = [0] * instances
        self.states = ["serving"] * instances
        self.second: dict[str, float] = {}
        self.passed = 0
        self.lives: dict[int, list[list[Any]]] = {}  # seconds, what, place
        while len(self.requests) < requests:
            number = self.born()
            state = self.chance.choices(range(6), (3, 40, 28, 2, 0, 27))[0]
            self.enter(number, state)
            self._invent(number, state)

    @property
    def clock_s(self) -> float:
        """Seconds since the first request."""
        return PASSED_S + self.passed * TICK_S

    def _invent(self, number: int, state: int) -> None:
        """A life before the page looked, up to this state."""
        place, at = self.requests[number][1], self.chance.random() * 20
        life: list[list[Any]] = [[at, "queued", None]]
        steps = {REASONING: 1, ANSWERING: 2, CALLING: 2, DELIVERING: 3}.get(state, 0)
        for step in range(1, steps + 1):
            at += (PASSED_S - at) * (0.15, 0.5, 0.6)[step - 1] * (0.5 + self.chance.random() / 2)
            if self.chance.random() < 0.5 and step > 1:
                life.append([at - 0.6 * (at - life[-1][0]), "waits", place])
                life.append([at - 0.3 * (at - life[-2][0]), "goes_on", place])
            life.append([at, LIVE_STATES[step if step < 3 else DELIVERING], place])
        if state == DELIVERING and self.chance.random() < 0.3:
            life.append([at + (PASSED_S - at) / 3, "dry", place])
            life.append([at + (PASSED_S - at) / 2, "refilled", place])
        self.lives[number] = life

    def mark(self, number: int, what: str) -> None:
        place = self.requests[number][1]
        self.lives[number].append([self.clock_s, what, place if place >= 0 else None])

    def born(self) -> int:
        number, self.next = self.next, self.next + 1
        self.requests[number] = [QUEUED, -1, 0, None, self.chance.expovariate(1)]
        self.lives[number] = [[self.clock_s, "queued", None]]
        return number

    def enter(self, number: int, state: int) -> None:
        one = self.requests[number]
        if state != QUEUED and one[1] < 0:
            place = self.chance.random() ** 1.2 * self.instances
            one[1] = int(place)
        one[0] = state
        one[4] = {REASONING: 5, ANSWERING: 4, CALLING: 2, DELIVERING: 8}.get(state, 1) * (
            0.4 + self.chance.expovariate(1)
        )
        if state == ANSWERING:
            one[3] = one[3] or self.chance.random() * 12
        if state == DELIVERING:
            one[3] = one[4]

    def tick(self) -> list[list[Any]]:
        """A quarter of a second passes; returns the events."""
        events: list[list[Any]] = []
        self.passed += 1
        for number, one in list(self.requests.items()):
            one[4] -= TICK_S
            if one[3] is not None:
                one[3] += TICK_S * (self.chance.random() * 2.6 - 1 if one[0] == ANSWERING else -1)
            if one[0] in (REASONING, ANSWERING) and self.chance.random() < 0.01:
                one[2] = 1 - one[2]
                events.append(["waits" if one[2] else "goes_on", number])
                self.mark(number, str(events[-1][0]))
                if one[2] and self.chance.random() < 0.2:
                    self.preemptions[one[1]] += 1
            if one[4] > 0:
                continue
            before = one[1]
            if one[0] == DELIVERING:
                del self.requests[number], self.lives[number]
                events.append(["ended", number, "completed"])
                new = self.born()
                events.append(["placed", new, QUEUED, -1])
                continue
            state = {QUEUED: REASONING, REASONING: ANSWERING, CALLING: ANSWERING}.get(
                one[0], DELIVERING
            )
            self.enter(number, state)
            if state == ANSWERING and self.chance.random() < min(0.25, 2 / self.instances):
                one[1] = self.chance.randrange(self.instances)
            self.mark(number, LIVE_STATES[state])
            events.append(["changed", number, one[0], one[1]])
            if -1 < before != one[1]:
                events.append(["moved", number, before, one[1], self.chance.randrange(9000)])
        return events

    def rows(self) -> list[list[Any]]:
        return [
            [number, state, place, waits, None if ahead is None else round(ahead, 1)]
            for number, (state, place, waits, ahead, _) in self.requests.items()
        ]

    def details(self, number: int) -> dict[str, Any]:
        """As `gateway.ops.life.details`."""
        if number not in self.requests:
            return {"type": "unknown_request", "number": number}
        state, place, _, ahead, _ = self.requests[number]
        life = self.lives[number]
        begun_s = life[0][0]
        age_s = self.clock_s - begun_s
        spent = dict.fromkeys(LIVE_STATES, 0.0)
        steps = [mark for mark in life if mark[1] in spent]
        for (at, what, _), (to, *_) in zip(steps, [*steps[1:], (self.clock_s,)], strict=True):
            spent[what] += to - at
        first = next((mark[0] for mark in life if mark[1] == "answering"), None)
        names = [None if one is None else f"worker-{one}" for *_, one in life]
        return {
            "type": "request",
            "number": number,
            "response": f"resp_{number:032x}",
            "status": "in_progress",
            "instance": None if place < 0 else f"worker-{place}",
            "created_at": time.time() - age_s,
            "age_s": round(age_s, 3),
            "watched_s": 0.0,
            "marks": [
                [round(at - begun_s, 3), what, name]
                for (at, what, _), name in zip(life, names, strict=True)
            ],
            "marks_dropped": 0,
            "tokens": {
                "prompt": 120 + number % 900,
                "reasoning": int(spent["reasoning"] * 22),
                "answering": int(spent["answering"] * 19),
                "calling": int(spent["calling"] * 19),
                "waiting": max(0, int((ahead or 0) * 6)),
            },
            "ttft_s": None if first is None else round(first - begun_s + 0.12, 3),
            "ttfat_s": None if first is None else 0.12,
            "qoe": None if first is None else 0.971,
            "ahead_s": None if ahead is None else round(ahead, 2),
            "tpot_s": 1 / 6,
            "paused": False,
            "moves": sum(one != other for one, other in pairwise(names) if one and other),
            "failovers": 0,
            "preemptions": 1 if state == DELIVERING else 0,
        }

    def worst(self, figure: Figure) -> dict[str, Any]:
        """As `gateway.ops.worst`; all figures but QoE rank by age here."""
        wanted = {
            "queued": (QUEUED,),
            "reasoning": (REASONING,),
            "answering": (ANSWERING,),
            "delivering": (DELIVERING,),
            "ttft": (ANSWERING, DELIVERING),
            "ttfat": (ANSWERING, DELIVERING),
            "qoe": (ANSWERING, DELIVERING),
        }.get(figure, range(len(LIVE_STATES)))
        ages = sorted(
            (self.lives[number][0][0], number)
            for number, one in self.requests.items()
            if one[0] in wanted and (figure != "dry" or (one[3] or 0) < 0)
        )[:3]
        values = (0.61, 0.72, 0.74) if figure == "qoe" else None
        return {
            "type": "worst",
            "figure": figure,
            "rows": [
                [number, round(self.clock_s - begun_s, 4) if values is None else values[n]]
                for n, (begun_s, number) in enumerate(ages)
            ],
        }

    def readers(self) -> list[list[Any]]:
        return [[n, round(one[3], 1)] for n, one in self.requests.items() if one[0] == ANSWERING]

    def instance_rows(self) -> list[list[Any]]:
        thinking, answering = [0] * self.instances, [0] * self.instances
        for state, place, *_ in self.requests.values():
            if place >= 0:
                thinking[place] += state == REASONING
                answering[place] += state in (ANSWERING, CALLING)
        rows = []
        for place in range(self.instances):
            r, a = thinking[place], answering[place]
            kv = (r * 34 + a * 50, a * 50)
            blocks = max(2000, 0)
            used = min(blocks, kv[0])
            row: dict[str, Any] = {
                "place": place,
                "name": f"worker-{place}",
                "state": self.states[place],
                "engine": "emulated h100",
                "requests": r + a,
                "running_reasoning": r,
                "running_answering": a,
                "waiting_reasoning": r // 9,
                "waiting_answering": a // 9,
                "kv_reasoning": min(blocks, r * 34),
                "kv_answering": a * 50,
                "kv_used": used,
                "kv_held": 20 * (place % 3),
                "kv_blocks": blocks,
                "preemptions": self.preemptions[place],
                "steps": self.passed * 10,
                "step_s": 0.021 + place / 10000,
            }
            rows.append([row[name] for name in INSTANCE_COLUMNS])
        return rows

    def row(self, at: float, ago: int = 0) -> list[Any]:
        """A row of the history."""
        wave = math.sin(ago / 37)
        counts = [0] * 6
        for one in self.requests.values():
            counts[one[0]] += 1
        before = ago > 110  # another policy was in force
        values: dict[str, float] = {
            name: round(n * (1 + 0.1 * wave)) if ago else n
            for name, n in zip(LIVE_STATES, counts, strict=True)
        }
        noise = self.chance.random
        dry = sum(one[0] == ANSWERING and (one[3] or 0) < 0 for one in self.requests.values())
        late = 390 if before else 170
        values |= {
            "dry_readers": dry * (4 if before else 1),
            "buffered_tokens": 40 * counts[ANSWERING],
            "ttft_p50_s": 9 + noise(),
            "ttft_p90_s": (21 if before else 14) + noise(),
            "ttft_p99_s": (38 if before else 22) + 3 * noise(),
            "ttfat_p50_s": 0.04 + 0.01 * noise(),
            "ttfat_p99_s": (late + 30 * noise()) / 1000,
            "qoe_p1": (0.82 if before else 0.955) - 0.01 * noise(),
            "qoe_p5": (0.9 if before else 0.972) - 0.01 * noise(),
            "qoe_p50": 0.998 - 0.004 * noise(),
            "reasoning_tokens": counts[REASONING] * 22 * (1 + 0.1 * noise()),
            "answering_tokens": counts[ANSWERING] * 19 * (1 + 0.1 * noise()),
            "released_tokens": (counts[ANSWERING] + counts[DELIVERING]) * 6 * (1 + 0.05 * noise()),
            "kv_reasoning": 0.42 + 0.05 * wave,
            "kv_answering": 0.33 - 0.04 * wave,
            "kv_held": 0.01,
            "preempted": self.chance.choices((0, 1, 2), (3, 2, 1 if before else 0))[0],
            "moved": self.chance.choices((0, 1, 2), (3, 2, 1))[0],
            "recomputed": float(noise() < 0.03),
            "late_p99_s": 0.0012 + 0.001 * noise(),
            "serving": self.states.count("serving"),
            "instances": self.instances,
        }
        return [at, *(round(values[name], 4) for name in COLUMNS)]


class OpsFeed:
    """The server; ``async with`` starts it."""

    def __init__(self, instances: int = 8, requests: int = 240, history_s: int = 300) -> None:
        self.cluster = Invented(instances, requests)
        self.history_s = history_s
        self.policy, self.boundary = "slack", "balance"
        self.posted: list[tuple[str, Any]] = []
        self.asked: list[str] = []
        self.opened = 0
        self.sockets: set[web.WebSocketResponse] = set()
        self.key: str | None = None
        self.silent = False
        self.url = ""
        self.can_switch = True
        self._runner: web.AppRunner

    async def __aenter__(self) -> Self:
        app = web.Application()
        add_pages(app)
        app.router.add_get("/admin/ops", self._socket)
        app.router.add_get("/admin/instances", self._instances)
        app.router.add_post("/admin/policy", self._posted)
        app.router.add_post("/admin/placement", self._posted)
        app.router.add_post("/admin/instances/{name}/{action}", self._posted)
        app.on_response_prepare.append(_security_headers)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/ops"
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in list(self.sockets):
            await socket.close(drain=False)
        await self._runner.cleanup()

    async def cut(self) -> None:
        """Close every socket, as a network does."""
        for socket in list(self.sockets):
            await socket.close(code=1001, drain=False)

    def _offered(self, request: web.Request) -> bool:
        if self.key is None:
            return True
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        return (
            offered.endswith(f".{self.key}")
            or request.headers.get("Authorization") == f"Bearer {self.key}"
        )

    async def _instances(self, request: web.Request) -> web.Response:
        if not self._offered(request):
            message = {"error": {"message": "An API key is needed."}}
            return web.json_response(message, status=401)
        return web.json_response({"instances": []})

    async def _posted(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.posted.append((request.path, body))
        if "action" in request.match_info:
            place = int(request.match_info["name"].removeprefix("worker-"))
            drains = request.match_info["action"] == "drain"
            self.cluster.states[place] = "draining" if drains else "serving"
        else:
            before = {"policy": self.policy, "boundary": self.boundary}
            self.policy = body.get("policy", self.policy)
            self.boundary = body.get("boundary", self.boundary)
            for name, value in body.items():
                note = {"type": "note", "at": time.time(), "choice": True}
                note["text"] = f"{name} {before[name]} → {value}"
                for socket in self.sockets:
                    await socket.send_str(orjson.dumps(note).decode())
        return web.json_response({})

    def _hello(self) -> dict[str, Any]:
        now = time.time()
        return {
            "type": "hello",
            "protocol": 1,
            "version": "0",
            "model": "Qwen3-32B",
            "policy": self.policy,
            "policies": POLICIES if self.can_switch else (),
            "boundary": self.boundary,
            "boundaries": BOUNDARY_RULES if self.can_switch else (),
            "now": now,
            "targets": {"ttft_s": 30.0, "ttfat_s": 0.25, "tpot_s": 0.1, "slo_qoe": 0.95},
            "states": LIVE_STATES,
            "marks": MARKS,
            "figures": FIGURES,
            "columns": COLUMNS,
            "instance_columns": INSTANCE_COLUMNS,
            "history_s": LENGTH,
            "window_s": 60,
            "notes": [{"at": now - 110, "text": "policy fcfs → slack", "choice": True}],
        }

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if not self._offered(request):
            raise web.HTTPUnauthorized
        socket = web.WebSocketResponse(protocols=("operations",))
        await socket.prepare(request)
        self.opened += 1
        self.sockets.add(socket)
        asked = Asked()
        script = asyncio.create_task(self._script(socket, asked))
        try:
            async for message in socket:
                self.asked.append(message.data)
                try:
                    asked.take(message.data)
                except InvalidRequest as error:
                    refused = {"type": "refused", "error": error.body()}
                    await socket.send_str(orjson.dumps(refused).decode())
        finally:
            script.cancel()
            self.sockets.discard(socket)
        return socket

    async def _script(self, socket: web.WebSocketResponse, asked: Asked) -> None:
        cluster = self.cluster

        async def send(type_: str, **fields: Any) -> None:
            await socket.send_str(orjson.dumps({"type": type_, **fields}).decode())

        with suppress(ConnectionError):
            await socket.send_str(orjson.dumps(self._hello()).decode())
            now = time.time()
            rows = [cluster.row(now - ago, ago) for ago in range(self.history_s, 0, -1)]
            await send("history", rows=rows)
            ticks = 0
            await send("instances", rows=cluster.instance_rows())
            await send("requests", first=True, rows=cluster.rows())
            while True:
                await asyncio.sleep(TICK_S)
                ticks += 1
                if self.silent:
                    continue
                await send("events", rows=cluster.tick())
                await send("instances", rows=cluster.instance_rows())
                if asked.number is not None:
                    await send(**_typed(cluster.details(asked.number)))
                    if asked.number not in cluster.requests:
                        asked.number = None
                if asked.figure is not None and (asked.fresh or not ticks % 4):
                    asked.fresh = False
                    await send(**_typed(cluster.worst(asked.figure)))
                if not ticks % 4:
                    await send("readers", rows=cluster.readers())
                    await send(
                        "second",
                        row=cluster.row(time.time()),
                        totals=TOTALS,
                        policy=self.policy,
                        boundary=self.boundary,
                    )
                if not ticks % 40:
                    await send("requests", first=True, rows=cluster.rows())


def _typed(frame: dict[str, Any]) -> dict[str, Any]:
    """A frame as arguments of `send`."""
    return {"type_": frame.pop("type"), **frame}


TOTALS = {
    "preempted": 12345,
    "moved": 678,
    "recomputed": 9,
    "lost": 2,
    "responses": {"completed": 4321, "incomplete": 5, "cancelled": 6, "failed": 7},
    "refused": 8,
    "slo_violations": 11,
    "reasoning_tokens": 1000001,
    "answering_tokens": 2000002,
    "calling_tokens": 3,
    "released_tokens": 1900000,
}


async def _show(instances: int, requests: int) -> None:
    async with OpsFeed(instances, requests, LENGTH) as feed:
        print(feed.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The operations page with an invented cluster.")
    parser.add_argument("--instances", type=int, default=8)
    parser.add_argument("--requests", type=int, default=240)
    chosen = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_show(chosen.instances, chosen.requests))
