"""From logged engine steps to the times of a device profile: a robust fit. Pure.

A step is modelled as a sum of

* the time of a batch with that number of decoding requests: a table, because on a CPU it is not
  linear,
* a time for each token of their KV,
* in steps that compute prompts or lost KV: a constant, a time for each token, and attention.

Huber's regression finds the shape, so that interrupted steps do not bend it. But a request waits
for sums of steps, interrupted ones included. Therefore the whole model is scaled until it adds up
to the measured total, in which the longest steps are capped at `_WORST` times the model.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench.policies.engine_clock import ClockName, Share
from bench.reporting.errors import BenchmarkError
from workers.emulation.device import BatchTable, StepTimes
from workers.step_log import LoggedStep

LEAST_STEPS = 200
_MOST_STEPS = 20_000  # more do not improve the fit; every n-th is used
_LEAST_AT_KNOT = 40  # steps between two knots of the table
_ROUNDS = 12  # of reweighting; the weights hardly change after five
_HUBER = 1.345  # deviations; 95% as efficient as least squares without outliers
_WORST = 5.0  # times the model; a longer step was not the engine's fault
_NOTHING_S = 1e-12  # a profile's numbers are above 0
_WINDOW = 50  # steps whose sum is judged

# Of the columns before those of the table (KV, prefill, its tokens, its attention), so that all
# are of a size.
_SCALES = (1e3, 1.0, 1e2, 1e5)

_Floats: TypeAlias = npt.NDArray[np.float64]


class FitError(BenchmarkError):
    """The steps do not suffice for a fit; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted times, and their errors on the same steps."""

    times: StepTimes
    steps: int
    median_error: float  # of a step, relative
    window_error: float  # of the sum of 50 successive steps, relative, mean
    share: Share  # of the processor, in the steps


def seconds_of(step: LoggedStep, clock: ClockName) -> float:
    """Measured time of a step."""
    return step.wall_s if clock == "wall" else step.processor_s


def fit_steps(steps: Sequence[LoggedStep], clock: ClockName) -> Fit:
    """Fit the model to steps.

    :raises FitError: if they are too few, or none of them decodes or prefills.
    """
    stride = -(-len(steps) // _MOST_STEPS) or 1
    used = [step for step in steps[::stride] if seconds_of(step, clock) > 0.0]
    decoding = sum(step.decodes > 0 for step in used)
    if decoding < LEAST_STEPS:
        raise FitError(f"{decoding} steps in which requests decode; at least {LEAST_STEPS} needed")
    if not any(step.prefills for step in used):
        raise FitError("no step that computes a prompt")
    took = [seconds_of(step, clock) for step in used]
    knots = _knots(step.decodes for step in used)
    values = _not_negative(_columns(used, knots), np.array(took))
    times = _times(values, knots)
    modelled = [modelled_s(times, step) for step in used]
    whole = sum(min(t, _WORST * m) for t, m in zip(took, modelled, strict=True)) / sum(modelled)
    times = _times(whole * values, knots)
    modelled = [modelled_s(times, step) for step in used]
    return Fit(
        times=times,
        steps=len(used),
        median_error=statistics.median(abs(m - t) / t for t, m in zip(took, modelled, strict=True)),
        window_error=_window_error(took, modelled),
        share=Share(sum(s.wall_s for s in used), sum(s.processor_s for s in used)),
    )


def modelled_s(times: StepTimes, step: LoggedStep) -> float:
    """Modelled time of a step."""
    return times.seconds(
        step.decodes, step.decode_kv_tokens, step.prefill_tokens, step.prefill_tokens2
    )


def _window_error(took: Sequence[float], modelled: Sequence[float]) -> float:
    errors = []
    for at in range(0, len(took) - _WINDOW + 1, _WINDOW):
        real = sum(took[at : at + _WINDOW])
        errors.append(abs(sum(modelled[at : at + _WINDOW]) - real) / real)
    return statistics.fmean(errors)


def _knots(decodes: Iterable[int]) -> list[int]:
    """Batch sizes of the table: denser for small batches, and only where there are enough steps."""
    sizes = sorted(size for size in decodes if size)
    wanted = sorted({round(1.5**power) for power in range(20)})
    knots: list[int] = []
    since = 0  # index of the last knot among the sizes
    for size in wanted:
        reached = sum(1 for other in sizes[since:] if other <= size)
        left = len(sizes) - since - reached
        if reached >= _LEAST_AT_KNOT and (left >= _LEAST_AT_KNOT or not knots):
            knots.append(size)
            since += reached
    if not knots or knots[-1] < sizes[-1]:
        knots.append(sizes[-1])
    return knots


def _columns(steps: Sequence[LoggedStep], knots: Sequence[int]) -> _Floats:
    """The model's terms: a row for each step.

    Those of the table are the first knot, and what each further knot takes more than the one
    before.
    """
    decodes, kv, prefill, prefill2 = np.array(
        [(s.decodes, s.decode_kv_tokens, s.prefill_tokens, s.prefill_tokens2) for s in steps],
        dtype=np.float64,
    ).T
    others = np.column_stack((kv, prefill > 0, prefill, prefill2)) / _SCALES
    table = [np.clip((decodes - a) / (b - a), 0.0, 1.0) for a, b in itertools.pairwise(knots)]
    return np.column_stack((others, np.ones(len(steps)), *table))


def _times(values: _Floats, knots: Sequence[int]) -> StepTimes:
    kv, prefill, token, token2 = (
        max(_NOTHING_S * 1e-3, float(value)) for value in values[: len(_SCALES)] / np.array(_SCALES)
    )
    table = tuple(np.cumsum(values[len(_SCALES) :]).tolist())
    return StepTimes(
        base_s=table[0],
        per_request_s=max(_NOTHING_S, _slope(knots, table)),
        per_kv_token_s=kv,
        prefill_base_s=prefill,
        prefill_per_token_s=token,
        prefill_per_token2_s=token2,
        table=BatchTable(decodes=tuple(knots), seconds=table),
    )


def _slope(knots: Sequence[int], table: Sequence[float]) -> float:
    """Slope of the whole table, used for batches beyond the last knot."""
    return (table[-1] - table[0]) / (knots[-1] - knots[0]) if len(knots) > 1 else 0.0


# ---- regression


def _not_negative(columns: _Floats, took: _Floats) -> _Floats:
    """Coefficients of at least 0: columns with negative ones are removed, one after another."""
    kept = list(range(columns.shape[1]))
    while True:
        values = np.zeros(columns.shape[1])
        values[kept] = _huber(columns[:, kept], took)
        worst = int(np.argmin(values))
        if values[worst] >= 0.0:
            return values
        kept.remove(worst)


def _huber(columns: _Floats, took: _Floats) -> _Floats:
    """Huber's regression: least squares with weights that follow from the residuals."""
    weights, values = np.ones(len(took)), np.zeros(columns.shape[1])
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        values = np.linalg.lstsq(columns * root[:, None], took * root, rcond=None)[0]
        residuals = np.abs(took - columns @ values)
        scale = max(1e-9, 1.4826 * float(np.median(residuals)))  # of a normal distribution
        weights = np.minimum(1.0, _HUBER * scale / np.maximum(residuals, 1e-12))
    return values
