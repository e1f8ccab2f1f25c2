"""Slowdowns of a core over time, measured with one engine and applied to another on the same core.

On a shared machine, or one whose clock rate changes, a step may take 4 ms of processor time now and
5 ms some seconds later. Two engines that take turns on a core are slowed by the same factor.
Therefore the slowdown of one engine is the measured time of the other's steps, divided by their
fitted time. Of the slowed engine itself only the duration of its work is used. A replay is compared
with a simulated device that is slowed in this way.

Time here is the processor time of an engine since both began; they get equal shares. It is divided
into windows of `WINDOW_S`. A step belongs to the window in which it begins.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from bench.policies.engine_clock import ClockName
from bench.validation.step_fit import Fit, fit_steps, modelled_s, seconds_of
from workers.emulation.device import StepTimes
from workers.step_log import LoggedStep

# About sixty steps of a CPU engine: enough for errors of single steps to cancel, and short enough
# for the speed to hardly change.
WINDOW_S = 0.3
_ROUNDS = 3  # of fitting and dividing by the slowdowns; further ones do not change the fit


class SlowedTimes(StepTimes, frozen=True, kw_only=True):
    """Step times of one run on a machine whose speed changes; steps must ask in order.

    ``slowdowns`` are factors, one for each window; the last one also holds afterwards.
    """

    slowdowns: tuple[float, ...]
    spent_s: list[float]  # one number: the time of all steps so far

    @classmethod
    def of(cls, times: StepTimes, slowdowns: Sequence[float]) -> SlowedTimes:
        """The same times, slowed."""
        values = {name: getattr(times, name) for name in StepTimes.__struct_fields__}
        return cls(**values, slowdowns=tuple(slowdowns), spent_s=[0.0])

    def seconds(
        self, decodes: int, decode_kv_tokens: int, prefill_tokens: int, prefill_tokens2: int
    ) -> float:
        """Time of the next step."""
        took_s = super().seconds(decodes, decode_kv_tokens, prefill_tokens, prefill_tokens2)
        took_s *= self.slowdowns[_window(self.spent_s[0], len(self.slowdowns))]
        self.spent_s[0] += took_s
        return took_s


def during(steps: Sequence[LoggedStep], others: Sequence[LoggedStep]) -> list[LoggedStep]:
    """The steps of one engine until the end of another's work; both began at the same time."""
    left_s = sum(step.wall_s for step in others)
    overlapping = []
    for step in steps:
        left_s -= step.wall_s
        if left_s < 0.0:
            break
        overlapping.append(step)
    return overlapping


def slowdowns(times: StepTimes, steps: Sequence[LoggedStep], clock: ClockName) -> list[float]:
    """Measured over modelled time in each window; a window without steps repeats the one before."""
    took_s: defaultdict[int, float] = defaultdict(float)
    expected_s: defaultdict[int, float] = defaultdict(float)
    spent_s = 0.0
    for step in steps:
        window = int(spent_s / WINDOW_S)
        took_s[window] += seconds_of(step, clock)
        expected_s[window] += modelled_s(times, step)
        spent_s += seconds_of(step, clock)
    factors: list[float] = []
    for window in range(int(spent_s / WINDOW_S)):  # the last one is incomplete
        factors.append(took_s[window] / expected_s[window] if window in took_s else factors[-1])
    return factors or [sum(took_s.values()) / sum(expected_s.values()) if took_s else 1.0]


def agreement(
    times: StepTimes, pairs: Iterable[tuple[Sequence[LoggedStep], Sequence[LoggedStep]]]
) -> float | None:
    """Correlation of the slowdowns of two engines that share a core.

    :param pairs: steps of both in spells that began together, on the processor's clock.
    :return: from -1 to 1; None if it is undefined.
    """
    both = [
        factors
        for spells in pairs
        for factors in zip(*(slowdowns(times, s, "processor") for s in spells), strict=False)
    ]
    try:
        return statistics.correlation(*zip(*both, strict=True)) if both else None
    except statistics.StatisticsError:  # a single window, or constant speed
        return None


def fit_slowed(spells: Sequence[Sequence[LoggedStep]], clock: ClockName) -> Fit:
    """Step times as they would be at constant machine speed.

    :param spells: the steps of one engine, each from the moment at which two engines began.
    :raises FitError: as `fit_steps`.
    """
    fit = fit_steps([step for spell in spells for step in spell], clock)
    for _ in range(_ROUNDS):
        steady = [step for spell in spells for step in _steady(spell, fit.times, clock)]
        fit = fit_steps(steady, clock)
    return fit


def _steady(spell: Sequence[LoggedStep], times: StepTimes, clock: ClockName) -> list[LoggedStep]:
    """The same steps without their slowdowns, in both times."""
    factors = slowdowns(times, spell, clock)
    spent_s, steady = 0.0, []
    for step in spell:
        factor = factors[_window(spent_s, len(factors))]
        spent_s += seconds_of(step, clock)
        steady.append(
            step._replace(wall_s=step.wall_s / factor, processor_s=step.processor_s / factor)
        )
    return steady


def _window(spent_s: float, windows: int) -> int:
    return min(windows - 1, int(spent_s / WINDOW_S))
