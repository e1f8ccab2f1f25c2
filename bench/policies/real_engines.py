"""Scheduling policies on real engines: each serves the same arrivals in real time, on CPU cores.

`run_engines` starts one process per core. Each round of a process has three steps:

1. It measures the time of an engine step, and derives the load and the readers' pace from it.
2. It runs the oracle, which is vLLM's own order with enough memory for all requests.
3. It runs every policy on the same requests with half of the KV memory that the oracle used on
   average; ``fcfs+watermark`` with each of its shares.

Prompts, outputs, quanta and water marks are a fifth of those that are simulated. All times are
multiples of the step, as on a GPU: a reader reads a token in `STEPS_PER_TOKEN` steps. A run begins
with the requests of a steady state, some steps before the window whose arrivals are measured. Load
goes on while these finish, up to a limit.

Imports no vLLM: the engine is `bench.policies.timed_engine`, in the child processes.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from bench.policies.engine_process import ROOT, EngineProcess, Send
from bench.simulator.results import ORACLE, PolicyRun
from bench.simulator.timeline import RequestMetrics, Timeline, metrics_of
from bench.simulator.watermark import NAME as WATERMARK
from bench.simulator.watermark import expanded, share_of
from bench.workloads.arrivals import poisson, under_way
from bench.workloads.lengths import ARENA_HARD, Lengths
from workers.policy.settings import POLICIES, PolicySettings
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from bench.policies.timed_engine import TimedEngine

# Modelled lengths are real lengths times this; `BIN_TOKENS` counts modelled tokens.
SCALE: Final = 5
LEAST_TOKENS: Final = 8
# 2% of requests are longer and are cut. Otherwise every run would end with one of them alone.
MOST: Final = Lengths(prompt=160, reasoning=1000, answer=500)

# As a 32B model on an H100 under load: 33 ms per step, 100 ms per token.
STEPS_PER_TOKEN: Final = 3

_LEAST_RUNNING: Final = 8  # of the burst that measures the step
_PLENTY_BLOCKS: Final = 2048  # KV memory for all requests
_CORES: Final = 2
_SEEDS_APART: Final = 100  # of the two processes

SETTINGS: Final = WorkerSettings(
    instance_id="bench",
    listen="unix:/dev/null",
    model=str(ROOT / "models" / "tiny-reasoner"),
    served_model_name="tiny",
    max_num_seqs=256,  # so that memory limits, not slots
    kv_blocks=_PLENTY_BLOCKS + 1,  # vLLM never gives the first one out
    block_size=32,  # the smallest that vLLM's CPU attention supports
    kv_offload_gib=0.5,  # more than all KV of a run
)


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """Extent of the measurement in one process."""

    seed: int  # of the first round; later rounds count up
    rounds: int  # runs of each policy
    running: int = 48  # requests that the oracle runs on average
    warm_steps: int = 100
    window_steps: int = 900
    cool_steps: int = 100
    burst: int = 64  # requests that measure the step


@dataclass(frozen=True, slots=True)
class Load:
    """Arrivals and readers' pace, derived from the speed of the engine."""

    step_s: float  # with the planned number of running requests
    rate: float  # requests per second

    @property
    def tau_s(self) -> float:
        """The readers' pace."""
        return STEPS_PER_TOKEN * self.step_s


def run_engines(quick: bool, progress: Callable[[str], None]) -> list[PolicyRun]:
    """Measure all policies; under each seed in the result there is a run of each.

    Results are those of scaled requests (see the module), but `reasoning_tokens` is scaled back.

    :param progress: called with lines for the user, from several threads, one at a time.
    :raises ProcessFailed: if a process failed.
    """
    cores = sorted(os.sched_getaffinity(0))[:_CORES]
    rounds = 1 if quick else 3
    extents = [
        Extent(seed=_SEEDS_APART * (index + 1), rounds=rounds) for index in range(len(cores))
    ]
    lock = threading.Lock()

    def report(line: str) -> None:
        with lock:
            progress(line)

    with ThreadPoolExecutor(len(cores)) as pool:
        by_core = pool.map(lambda core, one: measure_apart(core, one, report), cores, extents)
        return [run for runs in by_core for run in runs]


def scaled(lengths: Lengths) -> Lengths:
    """The modelled request with all lengths divided by `SCALE`, within bounds."""

    def fitted(tokens: int, most: int) -> int:
        return max(LEAST_TOKENS, min(most, round(tokens / SCALE)))

    return Lengths(
        prompt=fitted(lengths.prompt, MOST.prompt),
        reasoning=fitted(lengths.reasoning, MOST.reasoning),
        answer=fitted(lengths.answer, MOST.answer),
    )


class ScaledLengths:
    """Scaled lengths of `ARENA_HARD`."""

    longest_output = MOST.reasoning + MOST.answer

    def draw(self, rng: random.Random) -> Lengths:
        """Draw the lengths of one request."""
        return scaled(ARENA_HARD.draw(rng))


def arrivals(load: Load, seed: int, until_s: float) -> list[Timeline]:
    """The requests of a steady state at time 0, and later arrivals."""
    lengths = ScaledLengths()
    coming = itertools.takewhile(
        lambda arrival: arrival.at_s < until_s, poisson(load.rate, lengths, seed)
    )
    there = under_way(load.rate, lengths, load.step_s, seed)
    return [Timeline(arrival.at_s, arrival.lengths) for arrival in (*there, *coming)]


def load_for(running: int, steps: Iterable[tuple[int, float]]) -> Load:
    """The load under which the oracle runs ``running`` requests on average (Little's law).

    :param steps: batch sizes and seconds. A line is fitted to medians over groups of sizes.
    """
    groups: defaultdict[int, list[float]] = defaultdict(list)
    for size, seconds in steps:
        groups[size // 8].append(seconds)
    line = statistics.linear_regression(
        [8.0 * group + 4 for group in groups], [statistics.median(groups[g]) for g in groups]
    )
    step_s = line.intercept + line.slope * running
    rng = random.Random(0)
    drawn = [ScaledLengths().draw(rng) for _ in range(10_000)]
    output = statistics.fmean(one.reasoning + one.answer for one in drawn)
    return Load(step_s=step_s, rate=running / (step_s * output))


def numbers(policy: str, load: Load) -> PolicySettings:
    """The settings of a policy for requests and steps of this size."""
    tau_s = load.tau_s
    return PolicySettings(
        policy="fcfs" if policy == ORACLE or share_of(policy) is not None else policy,
        quantum_tokens=500 // SCALE,
        demotion_tokens=5000 // SCALE,
        low_water_s=20 * tau_s,
        # Half of the default. Answers are a fifth as long and would always be urgent.
        high_water_s=60 * tau_s,
        starvation_s=300 * tau_s,
        min_run_tokens=64 // SCALE,
        review_s=2.5 * tau_s,
        tau_s=tau_s,
        ttfat_s=2.5 * tau_s,
    )


def policy_order(round_number: int, seed: int) -> list[str]:
    """The order of policies in a round. The oracle is first: its run determines their memory."""
    policies = (*POLICIES, *expanded((WATERMARK,)))
    first = (round_number + seed // _SEEDS_APART) % len(policies)
    return [ORACLE, *policies[first:], *policies[:first]]


# ---- in a process of its own


def measure(extent: Extent, progress: Callable[[str], None]) -> list[PolicyRun]:
    """Measure in this process, which must not have imported vLLM."""
    from bench.policies.timed_engine import TimedEngine

    engine = TimedEngine(SETTINGS)
    runs: list[PolicyRun] = []
    for round_number in range(extent.rounds):
        # In every round, because the speed of a shared machine changes.
        load = _calibrate(engine, extent)
        progress(
            f"a step with {extent.running} running takes {load.step_s * 1e3:.1f} ms: "
            f"{load.rate:.1f} requests/s, read at {1 / load.tau_s:.0f} tokens/s"
        )
        kv_blocks = _PLENTY_BLOCKS
        for policy in policy_order(round_number, extent.seed):
            run, half_blocks = _run(
                engine, extent, load, policy, kv_blocks, extent.seed + round_number
            )
            runs.append(run)
            progress(_line(run))
            if policy == ORACLE:
                kv_blocks = half_blocks
    return runs


def _calibrate(engine: TimedEngine, extent: Extent) -> Load:
    rng = random.Random(extent.seed)
    burst = [Timeline(0.0, scaled(ARENA_HARD.draw(rng))) for _ in range(extent.burst)]
    run = engine.run(
        PolicySettings(policy="fcfs"), _PLENTY_BLOCKS, burst, burst, least_running=_LEAST_RUNNING
    )
    decodes = ((step.tokens, step.seconds) for step in run.steps if not step.prefill)
    return load_for(extent.running, decodes)


def _run(
    engine: TimedEngine, extent: Extent, load: Load, policy: str, kv_blocks: int, seed: int
) -> tuple[PolicyRun, int]:
    """Run one policy; :return: also half of the KV blocks in use, averaged over the window."""
    begin_s = extent.warm_steps * load.step_s
    end_s = begin_s + extent.window_steps * load.step_s
    requests = arrivals(load, seed, end_s + extent.cool_steps * load.step_s)
    measured = [one for one in requests if begin_s <= one.arrival_s < end_s]
    share = share_of(policy) or 0.0
    run = engine.run(numbers(policy, load), kv_blocks, requests, measured, watermark=share)
    steps = [step for step in run.steps if begin_s <= step.ended_s < end_s]
    results = PolicyRun(
        policy=policy,
        seed=seed,
        requests=[_figures(timeline, load.tau_s) for timeline in measured],
        throughput_tok_s=sum(step.tokens for step in steps) / (end_s - begin_s),
        generated_tokens=run.generated_tokens,
        recomputed_tokens=run.recomputed_tokens,
        reloaded_tokens=run.reloaded_tokens,
        kv_peak_blocks=run.kv_peak_blocks,
    )
    half_blocks = round(statistics.fmean(step.kv_blocks for step in steps)) // 2
    return results, max(half_blocks, least_blocks(requests))


def least_blocks(requests: Sequence[Timeline]) -> int:
    """The fewest blocks with which the longest request can finish."""
    lengths = (one.lengths for one in requests)
    longest = max(one.prompt + one.reasoning + one.answer for one in lengths)
    assert SETTINGS.block_size is not None
    return -(-longest // SETTINGS.block_size) + 1


def _figures(timeline: Timeline, tau_s: float) -> RequestMetrics:
    metrics = metrics_of(timeline, tau_s)
    return replace(metrics, reasoning_tokens=metrics.reasoning_tokens * SCALE)


def _line(run: PolicyRun) -> str:
    first, (count, p99_s) = next(iter(run.ttft_p99_by_bin().items()))
    preemptions = sum(request.preemptions for request in run.requests)
    return (
        f"seed {run.seed} {run.policy}: p99 TTFT {p99_s:.2f} s of {count} requests from "
        f"{first} tokens, {preemptions} preemptions of {len(run.requests)} requests, "
        f"{run.throughput_tok_s:.0f} tokens/s, KV peak {run.kv_peak_blocks} blocks"
    )


def measure_apart(core: int, extent: Extent, progress: Callable[[str], None]) -> list[PolicyRun]:
    """`measure` in a process of its own on a core; :raises ProcessFailed: if it failed."""
    with EngineProcess(f"the engine on core {core}", __name__, core=core) as process:
        process.send(extent)
        while isinstance(answer := process.receive(object), str):
            progress(f"core {core}: {answer}")
    return [PolicyRun.from_json(run) for run in cast(list[dict[str, Any]], answer)]


def serve(messages: Iterator[bytes], send: Send) -> None:
    """In that process: lines of progress as text, then the runs as one list."""
    extent = msgspec.json.decode(next(messages), type=Extent)
    send([run.to_json() for run in measure(extent, send)])
