"""Agents and chatters together, in virtual time: the load, the sides, and one run of a side.

Decides what is compared. All sides get the same chats and the same tasks, by seed. The turns of a
task come when the side has served the turns before them, so that a slow side gets them later.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from bench.simulator.case import CaseSpec, run_case
from bench.simulator.defaults import LONGEST, PROFILE, RULES
from bench.simulator.load import Extent, SteadyLoad
from bench.simulator.parallel import in_parallel
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.timeline import TAU_S, RequestMetrics, TaskMetrics, call_wait_s, metrics_of
from bench.simulator.watermark import NAME as WATERMARK
from bench.simulator.watermark import expanded
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Round
from gateway.policy.placement import Rules
from workers.emulation.profile import load_profile
from workers.policy.settings import PolicySettings

HIGH_WATER_S: Final = PolicySettings().high_water_s
# An answer is urgent at first, until its reader has `high_water_s` of text. A call that is
# scheduled as an answer is urgent to its end if it is no longer than this: with the default mark,
# for a reader of 10 tokens/s, at 33 ms a token.
SHORT_CALL: Final = 180


@dataclass(frozen=True, slots=True)
class Side:
    """What serves the load."""

    name: str
    policy: str  # inside the engines
    calls: Literal["calling", "answering"] = "calling"  # how the policy schedules a call
    paced: bool = False  # whether the gateway releases calls at a reader's pace
    high_water_s: float = HIGH_WATER_S  # of the policy


# Three ways to treat a call under the default policy.
PACED, UNPACED, CALLING = "slack, paced answers", "slack, answers", "slack, calls"
WAYS = (PACED, UNPACED, CALLING)
# The turns of a task return to their KV, as they do by default. No request changes instances.
PLACEMENT: Final = replace(RULES["off"], affinity=Rules().affinity)
SIDES = (
    Side("fcfs", "fcfs"),
    Side(WATERMARK, WATERMARK),
    Side("pascal, answers", "pascal", calls="answering"),
    Side("pascal, calls", "pascal"),
    Side(PACED, "slack", calls="answering", paced=True),
    Side(UNPACED, "slack", calls="answering"),
    Side(CALLING, "slack"),
)


# How long calls are.
#     short  none is longer than 100 tokens: what a search or a shell command takes
#     agent  those of the workload: 11% are longer than `SHORT_CALL`
#     files  these are three times as long, at most 8000 tokens, as from agents that write files.
#            Outputs of turns are then like those of Claude Code (docs/reference/workloads.md)
CallLengths = Literal["short", "agent", "files"]
_SHORT_MOST, _FILES_FACTOR, _FILES_MOST = 100, 3, 8000


def call_of(tokens: int, lengths: CallLengths) -> int:
    """Tokens of a call that has ``tokens`` in the workload."""
    match lengths:
        case "short":
            return min(tokens, _SHORT_MOST)
        case "agent":
            return tokens
        case "files":
            return min(_FILES_FACTOR * tokens, _FILES_MOST) if tokens > SHORT_CALL else tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Chats and tasks at constant rates, on instances with less memory than they ask for."""

    chat_rate: float  # per second, all instances together
    task_rate: float
    extent: Extent
    instances: int
    kv_share: float  # of the device's KV memory
    # That a step may compute. All decoding waits for the long prompts of agents: 8192 tokens of
    # them take 0.8 s, and then a reader whose answer has just begun has nothing to read.
    step_tokens: int = 2048
    token_s: float  # per token of what is under way at time 0
    seeds: tuple[int, ...]
    # Seeds of the part that compares the three ways to treat calls. Tasks of one seed are few and
    # differ much, so a difference between two ways needs more seeds than a table of sides.
    way_seeds: int
    chats: str = "arena-hard"
    longest: int = LONGEST  # tokens; longer chats and tasks are left out of the rates
    calls: CallLengths = "agent"

    def arrivals(self, seed: int) -> Iterator[Arrival]:
        """Chats and first turns in order of time, those under way at time 0 included."""
        chats = self._load(self.chats, self.chat_rate).arrivals(seed)
        drawn = self._load("agent", self.task_rate).arrivals(f"{seed}/agents")
        tasks = (_with_calls(task, self.calls) for task in drawn)
        fitting = (task for task in tasks if task.longest <= LONGEST)
        return heapq.merge(chats, fitting, key=lambda arrival: arrival.at_s)

    def _load(self, workload: str, rate: float) -> SteadyLoad:
        return SteadyLoad(
            workload=workload,
            rate=rate,
            extent=self.extent,
            token_s=self.token_s,
            longest=self.longest,
        )


def _with_calls(turn: Arrival, lengths: CallLengths) -> Arrival:
    """The turn and those that follow it, with other calls.

    The context of a task that is under way stays what it is.
    """
    rounds = tuple(_with_call(of, lengths) for of in turn.rounds)
    return replace(turn, lengths=replace(turn.lengths, call=rounds[0].lengths.call), rounds=rounds)


def _with_call(of: Round, lengths: CallLengths) -> Round:
    return replace(of, lengths=replace(of.lengths, call=call_of(of.lengths.call, lengths)))


# Memory is short, but queues do not grow: tasks hold about 100,000 tokens of it and chats 40,000
# while the model works on them, of 180,000; what waits for a tool or a reader takes the rest. The
# longest tasks, four in ten, are left out: a window then holds more tasks, and a run ends sooner.
FULL = Mix(
    chat_rate=0.5,
    task_rate=0.21,
    extent=Extent(60.0, 180.0, 900.0),
    instances=2,
    kv_share=1.0,
    token_s=0.034,
    seeds=(1, 2, 3),
    way_seeds=12,
    longest=16_000,
)
# Short tasks, so that the last one ends soon.
QUICK = Mix(
    chat_rate=0.7,
    task_rate=0.35,
    extent=Extent(0.0, 80.0, 400.0),
    instances=2,
    kv_share=0.22,
    token_s=0.03,
    seeds=(1, 2),
    way_seeds=2,
    chats="alpacaeval",
    longest=8000,
)


@dataclass(frozen=True, slots=True)
class Call:
    """What an agent waited for after the model's thoughts."""

    tokens: int  # of prose and call
    wait_s: float  # from the end of thoughts to the whole call


@dataclass(frozen=True, slots=True, kw_only=True)
class SideRun:
    """One side under the arrivals of one seed; measured are those that arrive in the window."""

    side: Side
    seed: int
    tasks: Sequence[TaskMetrics]
    chats: Sequence[RequestMetrics]
    finals: Sequence[RequestMetrics]  # final answers of agents
    calls: Sequence[Call]
    throughput_tok_s: float  # of the window
    busy_share: float
    kv_peak_share: float
    ended_s: float

    @property
    def readers(self) -> list[RequestMetrics]:
        """All answers that a person reads."""
        return [*self.chats, *self.finals]


Case = tuple[Side, int, Mix]  # of one run, with its seed


def run_cases(
    cases: Sequence[Case],
    progress: Callable[[float, int], None],
    done: Callable[[Case, int, int], None],
) -> list[SideRun]:
    """Run cases in one process per core.

    :param progress: called regularly with the number of finished runs, parts included, and of all.
    :param done: called after each run with the case, the number of finished runs, and of all.
    :return: the runs in the order of the cases.
    """
    work = [(index, *case) for index, case in enumerate(cases)]
    runs: dict[int, SideRun] = {}
    for index, run in in_parallel(_run_nth, work, lambda share: progress(share, len(cases))):
        runs[index] = run
        done(cases[index], len(runs), len(cases))
    return [runs[index] for index in range(len(cases))]


def cases_of(mix: Mix, sides: Sequence[Side] = SIDES) -> list[Case]:
    """Every side under the arrivals of every seed; ``fcfs+watermark`` with each of its shares."""
    runnable = runs_of(sides)
    return [(side, seed, mix) for seed in mix.seeds for side in runnable]


def cases_of_ways(mix: Mix) -> list[Case]:
    """The three ways to treat calls, under the arrivals of the seeds from 1 to ``way_seeds``."""
    ways = [side for side in SIDES if side.name in WAYS]
    return [(side, seed, mix) for seed in range(1, mix.way_seeds + 1) for side in ways]


def runs_of(sides: Sequence[Side]) -> list[Side]:
    """The sides to run: one for each share of ``fcfs+watermark``."""
    return [
        replace(side, name=policy if side.policy == WATERMARK else side.name, policy=policy)
        for side in sides
        for policy in expanded([side.policy])
    ]


def _run_nth(index: int, side: Side, seed: int, mix: Mix) -> tuple[int, SideRun]:
    return index, run_side(index, side, seed, mix)


def run_side(index: int, side: Side, seed: int, mix: Mix) -> SideRun:
    """One side under the arrivals of one seed.

    :param index: of the case among those of `bench.simulator.parallel.in_parallel`.
    """
    blocks = int(load_profile(PROFILE).kv.blocks * mix.kv_share)
    numbers: dict[str, Any] = {"calls": side.calls, "high_water_s": side.high_water_s}
    spec = CaseSpec(
        policy=side.policy,
        seed=seed,
        extent=mix.extent,
        instances=mix.instances,
        rules=PLACEMENT,
        instance=InstanceSettings(
            kv_blocks=blocks, policy_numbers=numbers, max_num_batched_tokens=mix.step_tokens
        ),
        calls_tau_s=TAU_S if side.paced else None,
    )
    outcome = run_case(spec, mix.arrivals(seed), index=index)
    tau_s = spec.calls_tau_s
    read = [timeline for timeline in outcome.timelines if timeline.read]
    return SideRun(
        side=side,
        seed=seed,
        tasks=outcome.tasks,
        chats=[metrics_of(one) for one in read if not one.rounds],
        finals=[metrics_of(one) for one in read if one.rounds],
        calls=[
            Call(one.lengths.answer + one.lengths.call, call_wait_s(one, tau_s))
            for one in outcome.timelines
            if one.lengths.call
        ],
        throughput_tok_s=outcome.run.throughput_tok_s,
        busy_share=outcome.busy_share,
        kv_peak_share=outcome.kv_peak_share,
        ended_s=outcome.ended_s,
    )
