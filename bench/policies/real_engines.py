"""Scheduling policies on real engines: the same arrivals through each, in real time, on CPU cores.

`run_engines` starts one process per core. In each round it measures what a step of its engine
takes, derives from it the load and the readers' pace, and lets the same requests arrive under every
policy: the oracle, which is vLLM's own order with memory for all, and then the four policies with
half of the KV memory that the oracle used in the mean.

Prompts and outputs are a fifth as long as those that are simulated, and so are quanta and water
marks. All times follow the step, as on a GPU: a reader reads a token in `STEPS_PER_TOKEN` steps.
A run begins with the requests of a steady state, some steps before the window whose arrivals are
measured; load goes on while they are finished, but not for ever.

Imports no vLLM: the engine is `bench.policies.timed_engine`, in the processes that are started.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bench.reporting.errors import BenchmarkError
from bench.reporting.vllm_environment import one_threaded
from bench.simulator.results import ORACLE, PolicyRun
from bench.simulator.timeline import RequestMetrics, Timeline, metrics_of
from bench.workloads.arrivals import poisson, under_way
from bench.workloads.lengths import ARENA_HARD, Lengths
from workers.policy.settings import POLICIES, PolicySettings
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from bench.policies.timed_engine import TimedEngine

_ROOT: Final = Path(__file__).parents[2]

# Real outputs are so much shorter than the modelled ones; `BIN_TOKENS` counts modelled tokens.
SCALE: Final = 5
LEAST_TOKENS: Final = 8
# Two in a hundred are longer and are cut, or every run would end with one of them alone.
MOST: Final = Lengths(prompt=160, reasoning=1000, answer=500)

# As a 32B model on an H100 under load: 33 ms a step, 100 ms a token.
STEPS_PER_TOKEN: Final = 3

_LEAST_RUNNING: Final = 8  # of the burst with which the step is measured
_PLENTY_BLOCKS: Final = 2048  # KV memory for everybody
_CORES: Final = 2
_SEEDS_APART: Final = 100  # of two processes

SETTINGS: Final = WorkerSettings(
    instance_id="bench",
    listen="unix:/dev/null",
    model=str(_ROOT / "models" / "tiny-reasoner"),
    served_model_name="tiny",
    max_num_seqs=256,  # memory is to be what is scarce
    kv_blocks=_PLENTY_BLOCKS + 1,  # vLLM never gives the first one out
    block_size=32,  # the least that vLLM's CPU attention takes
    kv_offload_gib=0.5,  # more than all KV of a run
)


class EnginesError(BenchmarkError):
    """A measuring process failed; the message ends with what it said last."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one process measures."""

    seed: int  # of the first round; the others' follow
    rounds: int  # runs of each policy
    running: int = 48  # requests that the oracle has running in the mean
    warm_steps: int = 100
    window_steps: int = 900
    cool_steps: int = 100
    burst: int = 64  # requests with which the step is measured


@dataclass(frozen=True, slots=True)
class Load:
    """What arrives and how it is read, from what the engine can do."""

    step_s: float  # with as many running as planned
    rate: float  # requests per second

    @property
    def tau_s(self) -> float:
        """The readers' pace."""
        return STEPS_PER_TOKEN * self.step_s


def run_engines(quick: bool, progress: Callable[[str], None]) -> list[PolicyRun]:
    """Measure all policies; under each seed in the result there is a run of each.

    Figures are of scaled requests (see the module), but `reasoning_tokens` is scaled back.

    :param progress: called with lines for people, from several threads, one at a time.
    :raises EnginesError: if a process failed.
    """
    cores = sorted(os.sched_getaffinity(0))[:_CORES]
    rounds = 1 if quick else 3
    plans = [Plan(seed=_SEEDS_APART * (index + 1), rounds=rounds) for index in range(len(cores))]
    lock = threading.Lock()

    def told(line: str) -> None:
        with lock:
            progress(line)

    with ThreadPoolExecutor(len(cores)) as pool:
        found = list(pool.map(lambda core, plan: measure_apart(core, plan, told), cores, plans))
    return [run for runs in found for run in runs]


def scaled(lengths: Lengths) -> Lengths:
    """A request that this engine is as long busy with as a GPU with the modelled one, in steps."""

    def fitted(tokens: int, most: int) -> int:
        return max(LEAST_TOKENS, min(most, round(tokens / SCALE)))

    return Lengths(
        prompt=fitted(lengths.prompt, MOST.prompt),
        reasoning=fitted(lengths.reasoning, MOST.reasoning),
        answer=fitted(lengths.answer, MOST.answer),
    )


class ScaledLengths:
    """Lengths of `ARENA_HARD`, scaled."""

    longest_output = MOST.reasoning + MOST.answer

    def draw(self, chance: random.Random) -> Lengths:
        """One request."""
        return scaled(ARENA_HARD.draw(chance))


def arrivals(load: Load, seed: int, until_s: float) -> list[Timeline]:
    """The requests of a steady state, and those that come later."""
    lengths = ScaledLengths()
    coming = itertools.takewhile(
        lambda arrival: arrival.at_s < until_s, poisson(load.rate, lengths, seed)
    )
    there = under_way(load.rate, lengths, load.step_s, seed)
    return [Timeline(arrival.at_s, arrival.lengths) for arrival in (*there, *coming)]


def load_for(running: int, steps: Iterable[tuple[int, float]]) -> Load:
    """The load under which the oracle has so many requests running in the mean.

    :param steps: batch sizes and seconds; medians over groups of sizes count.
    """
    groups: defaultdict[int, list[float]] = defaultdict(list)
    for size, seconds in steps:
        groups[size // 8].append(seconds)
    line = statistics.linear_regression(
        [8.0 * group + 4 for group in groups], [statistics.median(groups[g]) for g in groups]
    )
    step_s = line.intercept + line.slope * running
    chance = random.Random(0)
    drawn = [ScaledLengths().draw(chance) for _ in range(10_000)]
    output = statistics.fmean(one.reasoning + one.answer for one in drawn)
    return Load(step_s=step_s, rate=running / (step_s * output))


def numbers(policy: str, load: Load) -> PolicySettings:
    """A policy's numbers for requests and steps of this size."""
    tau_s = load.tau_s
    return PolicySettings(
        policy="fcfs" if policy == ORACLE else policy,
        quantum_tokens=500 // SCALE,
        demotion_tokens=5000 // SCALE,
        low_water_s=20 * tau_s,
        # Half of the default: answers are a fifth as long, and would be urgent to their end.
        high_water_s=60 * tau_s,
        starvation_s=300 * tau_s,
        min_run_tokens=64 // SCALE,
        review_s=2.5 * tau_s,
        tau_s=tau_s,
        ttfat_s=2.5 * tau_s,
    )


def turns(round_number: int, seed: int) -> list[str]:
    """The order of the policies in a round; the oracle's run says how much memory they get."""
    first = (round_number + seed // _SEEDS_APART) % len(POLICIES)
    return [ORACLE, *POLICIES[first:], *POLICIES[:first]]


# ---- in a process of its own


def measure(plan: Plan, progress: Callable[[str], None]) -> list[PolicyRun]:
    """Run everything in this process, which must not have imported vLLM."""
    from bench.policies.timed_engine import TimedEngine

    engine = TimedEngine(SETTINGS)
    runs: list[PolicyRun] = []
    for round_number in range(plan.rounds):
        # Anew, for a machine that others use too is not always as fast.
        load = _calibrate(engine, plan)
        progress(
            f"a step with {plan.running} running takes {load.step_s * 1e3:.1f} ms: "
            f"{load.rate:.1f} requests/s, read at {1 / load.tau_s:.0f} tokens/s"
        )
        kv_blocks = _PLENTY_BLOCKS
        for policy in turns(round_number, plan.seed):
            run, half_blocks = _run(engine, plan, load, policy, kv_blocks, plan.seed + round_number)
            runs.append(run)
            progress(_line(run))
            if policy == ORACLE:
                kv_blocks = half_blocks
    return runs


def _calibrate(engine: TimedEngine, plan: Plan) -> Load:
    chance = random.Random(plan.seed)
    burst = [Timeline(0.0, scaled(ARENA_HARD.draw(chance))) for _ in range(plan.burst)]
    run = engine.run(
        PolicySettings(policy="fcfs"), _PLENTY_BLOCKS, burst, burst, least_running=_LEAST_RUNNING
    )
    decodes = ((step.tokens, step.seconds) for step in run.steps if not step.prefill)
    return load_for(plan.running, decodes)


def _run(
    engine: TimedEngine, plan: Plan, load: Load, policy: str, kv_blocks: int, seed: int
) -> tuple[PolicyRun, int]:
    """:return: also half of the KV blocks in use, in the mean over the steps of the window."""
    begin_s = plan.warm_steps * load.step_s
    end_s = begin_s + plan.window_steps * load.step_s
    requests = arrivals(load, seed, end_s + plan.cool_steps * load.step_s)
    measured = [one for one in requests if begin_s <= one.arrival_s < end_s]
    run = engine.run(numbers(policy, load), kv_blocks, requests, measured)
    steps = [step for step in run.steps if begin_s <= step.ended_s < end_s]
    found = PolicyRun(
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
    return found, max(half_blocks, least_blocks(requests))


def least_blocks(requests: Sequence[Timeline]) -> int:
    """With fewer blocks the longest request would never come to its end."""
    lengths = (one.lengths for one in requests)
    longest = max(one.prompt + one.reasoning + one.answer for one in lengths)
    assert SETTINGS.block_size is not None
    return -(-longest // SETTINGS.block_size) + 1


def _figures(timeline: Timeline, tau_s: float) -> RequestMetrics:
    found = metrics_of(timeline, tau_s)
    return replace(found, reasoning_tokens=found.reasoning_tokens * SCALE)


def _line(run: PolicyRun) -> str:
    first, (count, p99_s) = next(iter(run.ttft_p99_by_bin().items()))
    preemptions = sum(request.preemptions for request in run.requests)
    return (
        f"seed {run.seed} {run.policy}: p99 TTFT {p99_s:.2f} s of {count} requests from "
        f"{first} tokens, {preemptions} preemptions of {len(run.requests)} requests, "
        f"{run.throughput_tok_s:.0f} tokens/s, KV peak {run.kv_peak_blocks} blocks"
    )


def measure_apart(core: int, plan: Plan, progress: Callable[[str], None]) -> list[PolicyRun]:
    """`measure` in a process of its own on a core; :raises EnginesError: if it failed."""
    command = [sys.executable, "-m", "bench.policies.real_engines", "--core", str(core)]
    command += ["--plan", msgspec.json.encode(plan).decode()]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=one_threaded(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert child.stdout is not None
        result = ""
        try:
            for line in child.stdout:
                if line.startswith("["):
                    result = line
                else:
                    progress(f"core {core}: {line.strip()}")
            status = child.wait()
        finally:
            child.kill()
            child.wait()
        errors.seek(0)
        if status:
            raise EnginesError(f"the engine on core {core} failed: {errors.read()[-2000:]}")
    found: list[dict[str, Any]] = json.loads(result)
    return [PolicyRun.from_json(run) for run in found]


def main() -> None:
    """Measure by a plan on one core; the last line of the output is the runs as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.policies.real_engines")
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--plan", required=True, help="`Plan` as JSON")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.core})
    plan = msgspec.json.decode(arguments.plan, type=Plan)
    runs = measure(plan, lambda line: print(line, flush=True))
    print(json.dumps([run.to_json() for run in runs]))


if __name__ == "__main__":
    main()
