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
# Of the requests beside it: a calibration trace that follows another which ended too soon.
_MORE = 0.25

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is run."""

    policy: str
    rounds: int
    requests: int  # of a trace
    seed: int
    profile: str  # of the emulated part


@dataclass(frozen=True, slots=True)
class Rounds:
    """What real engines did."""

    traces: list[Trace]  # the judged
    replays: dict[str, list[Replayed]]  # of the judged, by their names
    # For each replay, what the other engine did: at the same time, if two shared the core.
    calibration: dict[str, list[list[LoggedStep]]]

    @property
    def spells(self) -> list[list[LoggedStep]]:
        """All calibration."""
        return [spell for spells in self.calibration.values() for spell in spells]


def replay_rounds(
    plan: Plan, settings: WorkerSettings, clock: ClockName, core: int | None, advance: Advance
) -> Rounds:
    """Calibration and judged traces, so that both see the same machine.

    On the wall's clock they take turns. On the processor's two engines share the core, one for the
    one and one for the other: what others do to the machine's speed happens to both at a time.
    """
    assert settings.kv_blocks is not None
    assert settings.block_size is not None
    blocks = settings.kv_blocks - 1
    replays: dict[str, list[Replayed]] = defaultdict(list)
    calibration: dict[str, list[list[LoggedStep]]] = defaultdict(list)
    shared = clock == "processor"
    with (
        ThreadPoolExecutor(2 if shared else 1) as pool,  # ends when the engines have
        ReplayEngine(settings, clock, core) as fitted,
        ReplayEngine(settings, clock, core) as real,
    ):
        first = fitted.replay(burst(plan.policy, blocks, plan.seed))
        roughly = fit_steps(first.steps, clock).times

        def trace(regime: Regime, requests: int, seed: int | str) -> Trace:
            return trace_of(
                regime,
                roughly,
                requests=requests,
                policy=plan.policy,
                block_size=settings.block_size or 0,
                kv_blocks=blocks,
                seed=seed,
            )

        judged = [trace(regime, plan.requests, plan.seed) for regime in JUDGED]
        for number in range(plan.rounds):
            regimes = CALIBRATION[number // 2 % len(CALIBRATION)]  # each beside either engine
            for regime, beside, mine in zip(regimes, JUDGED, judged, strict=True):
                as_many = plan.requests * regime.running / beside.running
                other = trace(regime, round(as_many), f"round {number} of {plan.seed}")
                calibrating = pool.submit(fitted.replay, other)
                replaying = pool.submit(real.replay, mine)
                steps = calibrating.result().steps
                more = 0
                while shared and not replaying.done():  # its whole time is to be seen
                    more += 1
                    seed = f"{more} more in round {number} of {plan.seed}"
                    steps += fitted.replay(trace(regime, 1 + int(_MORE * as_many), seed)).steps
                replayed = replaying.result()
                replays[mine.name].append(replayed)
                calibration[mine.name].append(during(steps, replayed.steps) if shared else steps)
                advance(mine.name)
            fitted, real = real, fitted  # in case one process is the faster one
    return Rounds(judged, replays, calibration)


def simulated(
    trace: Trace,
    profile: DeviceProfile,
    settings: WorkerSettings,
    slowdowns: Sequence[float] | None = None,
) -> tuple[Served, ...]:
    """The same trace, scheduler, policy and memory, in virtual time.

    :param slowdowns: of the machine, by `bench.validation.machine_speed`; None: it is as the
    profile says.
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
        leaps=slowdowns is None,  # else each step asks for itself, and once
    )
    arrivals = [Arrival(one.arrival_s, one.lengths) for one in trace.timelines()]
    run = simulate(numbers, 1, arrivals, Window(0.0, float("inf")))
    return tuple(Served.of(timeline) for timeline in run.timelines)
