"""Traces on real engines: one process for each engine, which replays the traces that it gets.

`ReplayEngine` starts the process and returns, for every trace, the times of its requests. It does
not choose traces and draws no conclusions (`bench.validation.command` does). Imports no vLLM: the
engine is `bench.policies.timed_engine`, in the other process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from bench.policies.engine_clock import ClockName, Share, clock_of
from bench.policies.engine_process import EngineProcess, Send
from bench.simulator.timeline import Timeline
from bench.workloads.lengths import Lengths
from workers.policy.settings import PolicySettings
from workers.settings import WorkerSettings
from workers.step_log import SUFFIX, Header, LoggedStep, read_step_log


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first message to the process: the engine to load, and its clock."""

    settings: WorkerSettings
    clock: ClockName


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Requests, with the policy and the memory that serve them."""

    name: str
    requests: tuple[tuple[float, int, int, int], ...]  # arrival_s, prompt, reasoning, answer
    policy: str
    numbers: dict[str, Any]  # of `PolicySettings`
    kv_blocks: int  # for requests

    def timelines(self) -> list[Timeline]:
        """Empty timelines of the requests."""
        return [Timeline(at_s, Lengths(*lengths)) for at_s, *lengths in self.requests]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a trace, in seconds from the start of the trace.

    These are the engine's times. The reader's times would not do: pacing hides differences.
    """

    arrival_s: float
    first_s: float  # first answering token
    finished_s: float
    answer: int  # tokens
    preemptions: int

    @classmethod
    def of(cls, timeline: Timeline) -> Served:
        """The times of a finished request."""
        assert timeline.finished_s is not None
        return cls(
            arrival_s=timeline.arrival_s,
            first_s=timeline.answer_s[0],
            finished_s=timeline.finished_s,
            answer=len(timeline.answer_s),
            preemptions=timeline.preemptions,
        )

    @property
    def e2e_s(self) -> float:
        """From arrival to the last token."""
        return self.finished_s - self.arrival_s

    @property
    def ttft_s(self) -> float:
        """From arrival to the first answering token (paper, "Terms")."""
        return self.first_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Per answering token after the first; None for a single one."""
        return (self.finished_s - self.first_s) / (self.answer - 1) if self.answer > 1 else None


@dataclass(frozen=True, slots=True)
class Replayed:
    """One replay of a trace on a real engine."""

    requests: tuple[Served, ...]
    header: Header
    steps: list[LoggedStep]

    @property
    def share(self) -> Share:
        """Share of the processor while the engine had work."""
        return Share(
            sum(step.wall_s for step in self.steps), sum(step.processor_s for step in self.steps)
        )


class ReplayEngine(EngineProcess):
    """One real engine in a process of its own, which ends with the ``with`` block."""

    def __init__(self, settings: WorkerSettings, clock: ClockName, core: int | None) -> None:
        """:param core: the core on which it runs; None: any."""
        super().__init__("the engine", __name__, core=core)
        self._folder = tempfile.TemporaryDirectory(prefix="pascal-replay-")
        self._step_log = Path(self._folder.name) / f"engine{SUFFIX}"
        self._logged = 0  # number of steps that were returned
        settings = msgspec.structs.replace(settings, step_log=str(self._step_log))
        self._start = Start(settings=settings, clock=clock)

    def __enter__(self) -> Self:
        """Start it and wait until it can serve; :raises ProcessFailed: if it fails."""
        super().__enter__()
        try:
            self.send(self._start)
            self.receive(bool)
            self._logged = len(read_step_log(self._step_log)[1])  # the warm-up's
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process."""
        super().__exit__(kind, error, traceback)
        self._folder.cleanup()

    def replay(self, trace: Trace) -> Replayed:
        """Replay a trace to the end of its last request; :raises ProcessFailed: if that fails."""
        self.send(trace)
        requests = self.receive(tuple[Served, ...])
        header, steps = read_step_log(self._step_log)  # complete: the engine is idle
        new, self._logged = steps[self._logged :], len(steps)
        return Replayed(requests, header, new)


# ---- in the process of the engine


def serve(messages: Iterator[bytes], send: Send) -> None:
    """Start an engine by the first message, and replay the traces of all others."""
    from bench.policies.timed_engine import TimedEngine

    start = msgspec.json.decode(next(messages), type=Start)
    engine = TimedEngine(start.settings, clock_of(start.clock))
    send(True)
    for message in messages:
        trace = msgspec.json.decode(message, type=Trace)
        requests = trace.timelines()
        policy = PolicySettings.of({"policy": trace.policy} | trace.numbers)
        engine.run(policy, trace.kv_blocks, requests, requests)
        send([Served.of(timeline) for timeline in requests])
