"""A trace of a simulation for chrome://tracing and Perfetto: the states of all requests over time.

Each instance is a process. A request is a span in one of its rows. Inside it, spans of its states
follow each other without a gap: ``queued``, ``prefill``, ``reasoning``, ``preempted``,
``answering`` and, after a move, ``migrating`` until it is scheduled. Counters show running and
waiting requests, and KV blocks in use. The file is written during the run, so that memory holds
only unfinished requests. Must not change the simulation.

Format: "Trace Event Format", JSON array; times in microseconds.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from vllm.v1.request import RequestStatus

from bench.simulator.cluster import Watch
from bench.simulator.instance import Ended, Live, SimulatedInstance
from bench.simulator.migration import Move

_WAITING = frozenset({"queued", "migrating", "preempted"})


@dataclass(slots=True)
class _Rows:
    """Rows of one instance. A new request takes the first free row."""

    pid: int
    counted_s: float = float("-inf")
    used: int = 0
    free: list[int] = field(default_factory=list)

    def take(self) -> int:
        if self.free:
            return heapq.heappop(self.free)
        self.used += 1
        return self.used


@dataclass(slots=True)
class _Span:
    """A request on an instance."""

    live: Live
    row: int
    state: str


class ChromeTrace(Watch):
    """Writes the trace of one simulation; a context manager.

    :param counters_s: least virtual time between two readings of an instance's counters.
    """

    def __init__(self, path: Path, counters_s: float = 0.1) -> None:
        """:raises OSError: if the file cannot be written."""
        self._file = path.open("w", encoding="utf-8")
        self._counters_s = counters_s
        self._rows: dict[str, _Rows] = {}
        self._spans: dict[str, dict[str, _Span]] = {}  # by instance and request
        self._names: dict[int, str] = {}  # of requests, by `id`; a move keeps the name
        self._arrived = 0
        self._begun = False

    def __enter__(self) -> ChromeTrace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.write("\n]\n" if self._begun else "[]\n")
        self._file.close()

    # ---- what happens

    def arrived(self, now: float, instance: SimulatedInstance, live: Live) -> None:
        """A request is queued."""
        self._arrived += 1
        self._names[id(live)] = f"request {self._arrived}"
        self._begin(now, instance, live, "queued")

    def step_began(self, now: float, instance: SimulatedInstance) -> None:
        """Follow requests that started or stopped running."""
        rows = self._rows_of(now, instance)
        spans = self._spans[instance.name]
        running = 0
        for span in spans.values():
            running += self._follow(now, rows, span)
        if now < rows.counted_s + self._counters_s:
            return
        rows.counted_s = now
        used, _ = instance.kv_blocks
        waiting = len(spans) - running
        self._count(now, rows, "requests", {"running": running, "waiting": waiting})
        self._count(now, rows, "KV blocks", {"used": used})

    def step_ended(self, now: float, instance: SimulatedInstance, ended: Ended) -> None:
        """Follow requests whose prefill has ended, and end finished ones."""
        rows = self._rows_of(now, instance)
        for span in self._spans[instance.name].values():
            if span.state == "prefill" and span.live not in ended.crossed:
                self._follow(now, rows, span)
        for live in ended.done:
            self._end(now, instance.name, live.request.request_id)
            del self._names[id(live)]

    def decided(self, now: float, here: SimulatedInstance, live: Live, chosen: str) -> None:
        """Begin the answer of a request that stays; end the span of one that moves."""
        if chosen == here.name:
            span = self._spans[chosen][live.request.request_id]
            self._follow(now, self._rows[chosen], span)
        else:
            self._end(now, here.name, live.request.request_id)

    def moved(self, now: float, there: SimulatedInstance, move: Move) -> None:
        """Begin the wait for KV and memory at the target."""
        self._begin(now, there, move.request, "migrating")

    def closed(self, now: float) -> None:
        """End the spans of unfinished requests."""
        for instance, spans in self._spans.items():
            for name in list(spans):
                self._end(now, instance, name, finished=False)

    # ---- spans

    def _begin(self, now: float, instance: SimulatedInstance, live: Live, state: str) -> None:
        rows = self._rows_of(now, instance)
        span = _Span(live, rows.take(), state)
        self._spans[instance.name][live.request.request_id] = span
        lengths = live.timeline.lengths
        args = {
            "prompt": lengths.prompt,
            "reasoning": lengths.reasoning,
            "answer": lengths.answer,
            "measured": live.measured,
        }
        self._event("B", self._names[id(live)], now, rows.pid, span.row, args)
        self._event("B", state, now, rows.pid, span.row)

    def _follow(self, now: float, rows: _Rows, span: _Span) -> bool:
        """Update the state of a span; :return: whether its request runs."""
        state, live = span.state, span.live
        running = live.request.status is RequestStatus.RUNNING
        if running and not live.generated:
            state = "prefill"
        elif running:
            state = "reasoning" if live.reasoning_ahead > 0 else "answering"
        elif state not in _WAITING:
            state = "preempted"
        if state != span.state:
            self._event("E", span.state, now, rows.pid, span.row)
            self._event("B", state, now, rows.pid, span.row)
            span.state = state
        return running

    def _end(self, now: float, instance: str, name: str, *, finished: bool = True) -> None:
        rows, span = self._rows[instance], self._spans[instance].pop(name)
        preemptions = span.live.preemptions + span.live.request.num_preemptions
        self._event("E", span.state, now, rows.pid, span.row)
        args = {"preemptions": preemptions, "finished": finished}
        self._event("E", self._names[id(span.live)], now, rows.pid, span.row, args)
        heapq.heappush(rows.free, span.row)

    # ---- the file

    def _rows_of(self, now: float, instance: SimulatedInstance) -> _Rows:
        rows = self._rows.get(instance.name)
        if rows is None:
            rows = self._rows[instance.name] = _Rows(len(self._rows) + 1)
            self._spans[instance.name] = {}
            self._event("M", "process_name", now, rows.pid, 0, {"name": instance.name})
        return rows

    def _count(self, now: float, rows: _Rows, name: str, values: dict[str, int]) -> None:
        self._event("C", name, now, rows.pid, 0, values)

    def _event(
        self,
        kind: str,
        name: str,
        now: float,
        pid: int,
        tid: int,
        args: dict[str, Any] | None = None,
    ) -> None:
        event: dict[str, Any] = {
            "ph": kind,
            "name": name,
            "ts": round(now * 1e6, 3),
            "pid": pid,
            "tid": tid,
        }
        if args is not None:
            event["args"] = args
        self._file.write(",\n" if self._begun else "[\n")
        self._begun = True
        json.dump(event, self._file, separators=(",", ":"))
