"""Traces to compare a real engine with its model, and metrics of their difference. Pure.

The metrics are those with which the paper compares its simulator with hardware (there: 1.62% end to
end, 12.6% mean TTFT, 6.49% TPOT). The paper does not define the first exactly, so there are two:

    e2e        mean over requests of |simulated - real| / real, for the time from arrival to the
               last token: errors of requests do not cancel
    e2e_mean   mean over traces of |simulated - real| / real, for the trace's mean of that time
    ttft_mean  mean over traces of |simulated - real| / real, for the trace's mean TTFT
    tpot       the same for the trace's mean TPOT

TTFT is the time to the first answering token, TPOT the time per token after it, both as the engine
generates them. A trace may be replayed several times, and simulated for each replay with the speed
of the machine at that time (`bench.validation.machine_speed`). Then the times of a request are
means.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from bench.policies.engine_clock import Share
from bench.validation.replay_engine import Served, Trace
from bench.workloads.arrivals import poisson
from bench.workloads.lengths import ARENA_HARD, Lengths
from workers.emulation.device import StepTimes

# A fifth of the lengths of Arena-Hard, without the longest, which would run alone at the end.
SCALE: Final = 5
MOST: Final = Lengths(prompt=160, reasoning=400, answer=250)
_LEAST: Final = Lengths(prompt=8, reasoning=8, answer=8)

NUMBERS: Final[dict[str, Any]] = {"quantum_tokens": 500 // SCALE, "demotion_tokens": 5000 // SCALE}

_DRAWN: Final = 5000  # sample size for means of lengths
_MOST_HALVES: Final = 1000  # ways to halve a set of replays
_ROOM_BLOCKS: Final = 4  # beyond the longest request

THRESHOLDS: Final = {"e2e": 0.016, "ttft_mean": 0.12, "tpot": 0.06}


class ShortLengths:
    """Lengths of `ARENA_HARD`, divided by five."""

    longest_output = MOST.reasoning + MOST.answer

    def draw(self, rng: random.Random) -> Lengths:
        """Draw the lengths of one request."""
        drawn = ARENA_HARD.draw(rng)

        def fitted(name: str) -> int:
            least, most = getattr(_LEAST, name), getattr(MOST, name)
            return int(max(least, min(most, round(getattr(drawn, name) / SCALE))))

        return Lengths(fitted("prompt"), fitted("reasoning"), fitted("answer"))


@dataclass(frozen=True, slots=True)
class Regime:
    """A kind of trace."""

    name: str
    running: int  # requests that run on average, if memory suffices
    memory: float | None  # available share of the KV that they need; None: enough for all


CALM: Final = Regime("calm", 6, None)
PRESSED: Final = Regime("pressed", 10, 0.6)
JUDGED: Final = (CALM, PRESSED)
# Traces for the fit: other rates, above and below the compared ones, and other seeds. In each round
# one of them runs at the time of each compared trace.
CALIBRATION: Final = (
    (Regime("calibration, calm", 9, None), Regime("calibration, pressed", 14, 0.5)),
    (Regime("calibration, calmer", 4, None), Regime("calibration, less pressed", 8, 0.7)),
)


def burst(policy: str, kv_blocks: int, seed: int | str) -> Trace:
    """Requests that all arrive at once, for a first estimate of step times."""
    rng = random.Random(f"burst {seed}")
    drawn = [ShortLengths().draw(rng) for _ in range(16)]
    requests = tuple((0.0, one.prompt, one.reasoning, one.answer) for one in drawn)
    return Trace(
        name="burst", requests=requests, policy=policy, numbers=NUMBERS, kv_blocks=kv_blocks
    )


def trace_of(
    regime: Regime,
    times: StepTimes,
    *,
    requests: int,
    policy: str,
    block_size: int,
    kv_blocks: int,
    seed: int | str,
) -> Trace:
    """Poisson arrivals with the rate that keeps ``regime.running`` requests running (Little's law).

    :param times: an estimate of the engine's step times.
    :param kv_blocks: of the engine.
    """
    rng = random.Random(0)
    drawn = [ShortLengths().draw(rng) for _ in range(_DRAWN)]
    outputs = [one.reasoning + one.answer for one in drawn]
    output = statistics.fmean(outputs)
    # A running request is more likely to be a long one, and half done on average.
    held = statistics.fmean(one.prompt for one in drawn)
    held += statistics.fmean(tokens * tokens for tokens in outputs) / (2 * output)
    step_s = times.seconds(regime.running, round(regime.running * held), 0, 0)
    coming = poisson(regime.running / (step_s * output), ShortLengths(), f"{regime.name} {seed}")
    blocks = kv_blocks
    if regime.memory is not None:
        wanted = regime.running * (held / block_size + 0.5)
        longest = (MOST.prompt + ShortLengths.longest_output) // block_size + _ROOM_BLOCKS
        blocks = min(kv_blocks, max(longest, round(regime.memory * wanted)))
    return Trace(
        name=regime.name,
        requests=tuple(
            (round(a.at_s, 6), a.lengths.prompt, a.lengths.reasoning, a.lengths.answer)
            for a in itertools.islice(coming, requests)
        ),
        policy=policy,
        numbers=NUMBERS,
        kv_blocks=blocks,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One trace, real and simulated. Errors are relative."""

    name: str
    requests: int
    e2e_errors: tuple[float, ...]  # of requests, signed: above 0 if the simulated time is too long
    e2e_mean: float  # signed, as the next two
    ttft_mean: float
    tpot: float
    ttft_each: float  # MAPE over requests
    e2e_steady: float  # as `e2e`, simulated with constant machine speed
    noise: float  # MAPE between single replays and their mean, for e2e; 0 with one
    chance: float | None  # MAPE between two sets of that many replays, for e2e; None with one
    preemptions: tuple[float, float]  # real, mean of the replays, and simulated
    share: Share

    @property
    def e2e(self) -> float:
        """MAPE over requests."""
        return statistics.fmean(map(abs, self.e2e_errors))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "requests": self.requests,
            "mape": mape([self]),
            "bias": {
                "e2e": statistics.fmean(self.e2e_errors),
                "e2e_mean": self.e2e_mean,
                "ttft_mean": self.ttft_mean,
                "tpot": self.tpot,
            },
            "ttft_each": self.ttft_each,
            "e2e_steady": self.e2e_steady,
            "noise": self.noise,
            "chance": self.chance,
            "preemptions": {"real": self.preemptions[0], "simulated": self.preemptions[1]},
            "processor_share": self.share.had,
        }


def compare(
    name: str,
    replays: Sequence[Sequence[Served]],
    simulated: Sequence[Sequence[Served]],
    steady: Sequence[Served],
    share: Share,
) -> Comparison:
    """Compare one trace.

    :param replays: on the real engine, all with the same requests in the same order.
    :param simulated: the same requests, simulated once, or once for each replay.
    :param steady: the same requests, simulated once at constant machine speed.
    """

    def errors(runs: Sequence[Sequence[Served]], metric: _Metric) -> list[float]:
        pairs = zip(_means(runs, metric), _means(replays, metric), strict=True)
        return [simulated_s / real_s - 1.0 for simulated_s, real_s in pairs]

    def error(metric: _Metric) -> float:
        return _mean(_means(simulated, metric)) / _mean(_means(replays, metric)) - 1.0

    real_e2e = _means(replays, _E2E)
    return Comparison(
        name=name,
        requests=len(steady),
        e2e_errors=tuple(errors(simulated, _E2E)),
        e2e_mean=error(_E2E),
        ttft_mean=error(_TTFT),
        tpot=error(_TPOT),
        ttft_each=_mean(map(abs, errors(simulated, _TTFT))),
        e2e_steady=_mean(map(abs, errors([steady], _E2E))),
        noise=statistics.fmean(
            abs(one.e2e_s / real - 1.0)
            for replay in replays
            for one, real in zip(replay, real_e2e, strict=True)
        ),
        chance=_chance(replays),
        preemptions=(
            sum(one.preemptions for replay in replays for one in replay) / len(replays),
            sum(one.preemptions for run in simulated for one in run) / len(simulated),
        ),
        share=share,
    )


def mape(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """The metrics of the module's docstring."""
    return {
        "e2e": statistics.fmean(abs(e) for one in comparisons for e in one.e2e_errors),
        "e2e_mean": statistics.fmean(abs(one.e2e_mean) for one in comparisons),
        "ttft_mean": statistics.fmean(abs(one.ttft_mean) for one in comparisons),
        "tpot": statistics.fmean(abs(one.tpot) for one in comparisons),
    }


def _chance(replays: Sequence[Sequence[Served]]) -> float | None:
    """From halves of the replays; means of the double number differ less by a factor of sqrt(2)."""
    half = len(replays) // 2
    if not half:
        return None
    apart = []
    for first in itertools.islice(itertools.combinations(range(len(replays)), half), _MOST_HALVES):
        second = [i for i in range(len(replays)) if i not in first][:half]
        one, other = (_means([replays[i] for i in of], _E2E) for of in (first, second))
        apart += [abs(a / b - 1.0) for a, b in zip(one, other, strict=True)]
    return statistics.fmean(apart) * math.sqrt(half / len(replays))


_Metric = Callable[[Served], float | None]
_E2E: Final[_Metric] = attrgetter("e2e_s")
_TTFT: Final[_Metric] = attrgetter("ttft_s")
_TPOT: Final[_Metric] = attrgetter("tpot_s")


def _means(runs: Sequence[Sequence[Served]], metric: _Metric) -> list[float]:
    """A metric of each request, averaged over runs of a trace; requests without it are omitted."""
    each = zip(*([metric(one) for one in run] for run in runs), strict=True)
    return [_mean(values) for values in each if None not in values]


def _mean(values: Iterable[float | None]) -> float:
    return statistics.fmean(value for value in values if value is not None)
