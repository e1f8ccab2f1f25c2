"""The runs that ``pascal simulate validate`` compares: on real engines, and in virtual time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from bench.policies.engine_clock import ClockName
from bench.validation.machine_speed import SlowedTimes, during
from bench.validation.regimes import CALIBRATION, JUDGED, Regime, burst, trace_of
from bench.validation.replay_engine import Replayed, ReplayEngine, Served, Trace
from bench.validation.step_fit import fit_steps
from workers.emulation.device import DeviceProfile
from workers.settings import WorkerSettings
from workers.step_log import LoggedStep

BATCHED_TOKENS = 2048  # of a step
# Requests of a further calibration trace, after one that ended too early, as a share of the first.
_MORE = 0.25

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Extent of a validation."""

    policy: str
    rounds: int
    requests: int  # of a trace
    seed: int
    profile: str  # of the emulated part


@dataclass(frozen=True, slots=True)
class Rounds:
    """Steps and requests of the real engines."""

    traces: list[Trace]  # the compared ones
    replays: dict[str, list[Replayed]]  # of the compared traces, by name
    # For each replay, the steps of the other engine: at the same time, if two shared the core.
    calibration: dict[str, list[list[LoggedStep]]]

    @property
    def spells(self) -> list[list[LoggedStep]]:
        """Steps of all calibration traces."""
        return [spell for spells in self.calibration.values() for spell in spells]


def replay_rounds(
    extent: Extent, settings: WorkerSettings, clock: ClockName, core: int | None, advance: Advance
) -> Rounds:
    """Run calibration traces and compared traces, so that both see the same machine.

    On the wall's clock they take turns. On the processor's clock two engines share the core, one
    for each kind: changes in the machine's speed affect both at the same time.
    """
    assert settings.kv_blocks is not None
    assert settings.block_size is not None
    blocks = settings.kv_blocks - 1
    replays: dict[str, list[Replayed]] = defaultdict(list)
    calibration: dict[str, list[list[LoggedStep]]] = defaultdict(list)
    shared = clock == "processor"
    with (
        ThreadPoolExecutor(2 if shared else 1) as pool,  # outlives the engines
        ReplayEngine(settings, clock, core) as fitted,
        ReplayEngine(settings, clock, core) as real,
    ):
        first = fitted.replay(burst(extent.policy, blocks, extent.seed))
        roughly = fit_steps(first.steps, clock).times

        def trace(regime: Regime, requests: int, seed: int | str) -> Trace:
            return trace_of(
                regime,
                roughly,
                requests=requests,
                policy=extent.policy,
                block_size=settings.block_size or 0,
                kv_blocks=blocks,
                seed=seed,
            )

        judged = [trace(regime, extent.requests, extent.seed) for regime in JUDGED]
        for number in range(extent.rounds):
            regimes = CALIBRATION[number // 2 % len(CALIBRATION)]  # each one with either engine
            for regime, compared, this in zip(regimes, JUDGED, judged, strict=True):
                requests = extent.requests * regime.running / compared.running
                other = trace(regime, round(requests), f"round {number} of {extent.seed}")
                calibrating = pool.submit(fitted.replay, other)
                replaying = pool.submit(real.replay, this)
                steps = calibrating.result().steps
                more = 0
                while shared and not replaying.done():  # observe its whole time
                    more += 1
                    seed = f"{more} more in round {number} of {extent.seed}"
                    steps += fitted.replay(trace(regime, 1 + int(_MORE * requests), seed)).steps
                replayed = replaying.result()
                replays[this.name].append(replayed)
                calibration[this.name].append(during(steps, replayed.steps) if shared else steps)
                advance(this.name)
            fitted, real = real, fitted  # one process may be faster
    return Rounds(judged, replays, calibration)


def simulated(
    trace: Trace,
    profile: DeviceProfile,
    settings: WorkerSettings,
    slowdowns: Sequence[float] | None = None,
) -> tuple[Served, ...]:
    """The same trace, scheduler, policy and memory, in virtual time.

    :param slowdowns: of the machine, from `bench.validation.machine_speed`; None: its speed is
        that of the profile.
    """
    from bench.simulator.cluster import Window, simulate
    from bench.simulator.scheduler_factory import InstanceSettings
    from bench.workloads.arrivals import Arrival

    if slowdowns is not None:
        profile = msgspec.structs.replace(profile, step=SlowedTimes.of(profile.step, slowdowns))
    numbers = InstanceSettings(
        profile=profile,
        model=settings.model,
        policy=trace.policy,
        policy_numbers=trace.numbers,
        kv_blocks=trace.kv_blocks + 1,  # vLLM never gives the first one out
        offload=False,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens or BATCHED_TOKENS,
        leaps=slowdowns is None,  # otherwise each step must ask for its own time, once
    )
    arrivals = [Arrival(one.arrival_s, one.lengths) for one in trace.timelines()]
    run = simulate(numbers, 1, arrivals, Window(0.0, float("inf")))
    return tuple(Served.of(timeline) for timeline in run.timelines)
