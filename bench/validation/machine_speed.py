"""How a machine's speed wanders, as one engine tells it of another that shares its core.

On a machine that others use, or whose clock changes, a core takes 4 ms for a step now and 5 ms for
the same some seconds later, of the processor's own time. Two engines that take turns on a core are
slowed alike: what the steps of one took, over what the fitted times say of them, is the slowdown of
the other at that moment. Of the other nothing is looked at but how long it was at work. A device
that is slowed in this way is what a replay is compared with.

Time is here what an engine has had of the processor since both began: they get equal shares. It is
cut into windows of `WINDOW_S`; a step belongs to the one in which it begins.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from bench.policies.engine_clock import ClockName
from bench.validation.step_fit import Fit, fit_steps, modelled_s, seconds_of
from workers.emulation.device import StepTimes
from workers.step_log import LoggedStep

# Some sixty steps of a CPU engine: enough that their own errors cancel, and speed hardly changes
# within it.
WINDOW_S = 0.3
_ROUNDS = 3  # of fitting and dividing slowdowns out; the fit does not change any more


class SlowedTimes(StepTimes, frozen=True, kw_only=True):
    """Step times on a machine whose speed wanders; of one run, whose steps ask one after another.

    ``slowdowns`` are factors, one for each window; the last one holds on.
    """

    slowdowns: tuple[float, ...]
    spent_s: list[float]  # one number: what the steps until now took

    @classmethod
    def of(cls, times: StepTimes, slowdowns: Sequence[float]) -> SlowedTimes:
        """The same times, slowed."""
        own = {name: getattr(times, name) for name in StepTimes.__struct_fields__}
        return cls(**own, slowdowns=tuple(slowdowns), spent_s=[0.0])

    def seconds(
        self, decodes: int, decode_kv_tokens: int, prefill_tokens: int, prefill_tokens2: int
    ) -> float:
        """The next step."""
        took_s = super().seconds(decodes, decode_kv_tokens, prefill_tokens, prefill_tokens2)
        took_s *= self.slowdowns[_window(self.spent_s[0], len(self.slowdowns))]
        self.spent_s[0] += took_s
        return took_s


def during(steps: Sequence[LoggedStep], others: Sequence[LoggedStep]) -> list[LoggedStep]:
    """The steps of one engine that ended while another was at work that began when it did."""
    left_s = sum(step.wall_s for step in others)
    found = []
    for step in steps:
        left_s -= step.wall_s
        if left_s < 0.0:
            break
        found.append(step)
    return found


def slowdowns(times: StepTimes, steps: Sequence[LoggedStep], clock: ClockName) -> list[float]:
    """Of each window: what its steps took, over what they should; as before it, if it has none."""
    took_s: defaultdict[int, float] = defaultdict(float)
    should_s: defaultdict[int, float] = defaultdict(float)
    spent_s = 0.0
    for step in steps:
        window = int(spent_s / WINDOW_S)
        took_s[window] += seconds_of(step, clock)
        should_s[window] += modelled_s(times, step)
        spent_s += seconds_of(step, clock)
    found: list[float] = []
    for window in range(int(spent_s / WINDOW_S)):  # of the last one too little has been seen
        found.append(took_s[window] / should_s[window] if window in took_s else found[-1])
    return found or [sum(took_s.values()) / sum(should_s.values()) if took_s else 1.0]


def agreement(
    times: StepTimes, pairs: Iterable[tuple[Sequence[LoggedStep], Sequence[LoggedStep]]]
) -> float | None:
    """How far two engines that share a core are slowed alike: correlation of their slowdowns.

    :param pairs: what both did in spells that began at once, on the processor's clock.
    :return: from -1 to 1; None where it has no meaning.
    """
    both = [
        factors
        for spells in pairs
        for factors in zip(*(slowdowns(times, s, "processor") for s in spells), strict=False)
    ]
    try:
        return statistics.correlation(*zip(*both, strict=True)) if both else None
    except statistics.StatisticsError:  # a single window, or no change
        return None


def fit_slowed(spells: Sequence[Sequence[LoggedStep]], clock: ClockName) -> Fit:
    """Step times as they would be if the machine's speed did not wander.

    :param spells: the steps of one engine, each from a moment at which two began together.
    :raises FitError: as `fit_steps`.
    """
    fit = fit_steps([step for spell in spells for step in spell], clock)
    for _ in range(_ROUNDS):
        steady = [step for spell in spells for step in _steady(spell, fit.times, clock)]
        fit = fit_steps(steady, clock)
    return fit


def _steady(spell: Sequence[LoggedStep], times: StepTimes, clock: ClockName) -> list[LoggedStep]:
    """The same steps without their slowdowns, on either clock."""
    factors = slowdowns(times, spell, clock)
    spent_s, found = 0.0, []
    for step in spell:
        factor = factors[_window(spent_s, len(factors))]
        spent_s += seconds_of(step, clock)
        found.append(
            step._replace(wall_s=step.wall_s / factor, processor_s=step.processor_s / factor)
        )
    return found


def _window(spent_s: float, windows: int) -> int:
    return min(windows - 1, int(spent_s / WINDOW_S))
