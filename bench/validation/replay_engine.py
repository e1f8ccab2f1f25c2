"""Traces on real engines: a process of its own for each engine, which replays what it is sent.

`ReplayEngine` starts ``python -m bench.validation.replay_engine``, on one core; it answers every
trace with what became of its requests. What is replayed and what it means is decided elsewhere
(`bench.validation.command`). Imports no vLLM: the engine is `bench.policies.timed_engine`, in the
other process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from bench.policies.engine_clock import CLOCKS, ClockName, Share, clock_of
from bench.reporting.errors import BenchmarkError
from bench.reporting.vllm_environment import one_threaded
from bench.simulator.timeline import Timeline
from bench.workloads.lengths import Lengths
from workers.policy.settings import PolicySettings
from workers.settings import WorkerSettings
from workers.step_log import SUFFIX, Header, LoggedStep, read_step_log

_ROOT: Final = Path(__file__).parents[2]
_MARK: Final = "=replay "  # begins the lines that are meant; libraries print, too
_LAST_WORDS: Final = 2000  # characters


class ReplayError(BenchmarkError):
    """An engine's process failed; the message ends with what it said last."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Requests, and what they are served with."""

    name: str
    requests: tuple[tuple[float, int, int, int], ...]  # arrival_s, prompt, reasoning, answer
    policy: str
    numbers: dict[str, Any]  # of `PolicySettings`
    kv_blocks: int  # that requests may have

    def timelines(self) -> list[Timeline]:
        """The requests, to be filled in."""
        return [Timeline(at_s, Lengths(*lengths)) for at_s, *lengths in self.requests]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a trace: seconds from the start of the trace, the engine's own times.

    Not the reader's: pacing would hide what is to be compared.
    """

    arrival_s: float
    first_s: float  # first answering token
    finished_s: float
    answer: int  # tokens
    preemptions: int

    @classmethod
    def of(cls, timeline: Timeline) -> Served:
        """From a finished request's timeline."""
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
    """What became of a trace on a real engine."""

    requests: tuple[Served, ...]
    header: Header
    steps: list[LoggedStep]

    @property
    def share(self) -> Share:
        """How quiet the machine was, while the engine had work."""
        return Share(
            sum(step.wall_s for step in self.steps), sum(step.processor_s for step in self.steps)
        )


class ReplayEngine:
    """One real engine, in a process of its own. A context manager: it ends with the block."""

    def __init__(self, settings: WorkerSettings, clock: ClockName, core: int | None) -> None:
        """:param core: to which the process is pinned; None: to none."""
        self._folder = tempfile.TemporaryDirectory(prefix="pascal-replay-")
        self._log = Path(self._folder.name) / f"engine{SUFFIX}"
        self._logged = 0  # steps, of those that were returned
        settings = msgspec.structs.replace(settings, step_log=str(self._log))
        self._command = [sys.executable, "-m", "bench.validation.replay_engine", "--clock", clock]
        self._command += ["--settings", msgspec.json.encode(settings).decode()]
        if core is not None:
            self._command += ["--core", str(core)]

    def __enter__(self) -> ReplayEngine:
        """Start it and wait until it can serve; :raises ReplayError: if it fails."""
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._command,
            cwd=_ROOT,
            env=one_threaded(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for who started it, who then ends it
        )
        try:
            self._answer()
            self._logged = len(read_step_log(self._log)[1])  # the warm-up's
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process."""
        self._end()

    def replay(self, trace: Trace) -> Replayed:
        """Replay a trace to the end of its last request; :raises ReplayError: if that fails."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(trace).decode() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: `_answer` says why
        requests = msgspec.json.decode(self._answer(), type=tuple[Served, ...])
        header, steps = read_step_log(self._log)  # complete: the engine is idle
        new, self._logged = steps[self._logged :], len(steps)
        return Replayed(requests, header, new)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_MARK):
                return line.removeprefix(_MARK)
        self._process.wait()
        self._errors.seek(0)
        raise ReplayError(f"the engine failed: {self._errors.read()[-_LAST_WORDS:].strip()}")

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()
        self._folder.cleanup()


# ---- in the process of the engine


def main() -> None:
    """Serve traces from standard input until it ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.validation.replay_engine")
    parser.add_argument("--core", type=int)
    parser.add_argument("--clock", choices=CLOCKS, required=True)
    parser.add_argument("--settings", required=True, help="`WorkerSettings` as JSON")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    from bench.policies.timed_engine import TimedEngine

    settings = msgspec.json.decode(arguments.settings, type=WorkerSettings)
    engine = TimedEngine(settings, clock_of(arguments.clock))
    print(f"{_MARK}ready", flush=True)
    for line in sys.stdin:
        trace = msgspec.json.decode(line, type=Trace)
        requests = trace.timelines()
        policy = PolicySettings.of({"policy": trace.policy} | trace.numbers)
        engine.run(policy, trace.kv_blocks, requests, requests)
        replayed = [Served.of(timeline) for timeline in requests]
        print(_MARK + msgspec.json.encode(replayed).decode(), flush=True)


if __name__ == "__main__":
    main()
