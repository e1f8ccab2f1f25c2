"""From logged engine steps to the times of a device profile: a robust fit. Pure.

A step is modelled as a sum: what a batch of so many decoding requests takes (a table, for on a CPU
it is no line), their KV, and for steps that compute prompts or lost KV a constant, a part per token
and attention. Huber's regression finds the shape, so that a step which was held up does not bend
it. But a request waits for sums of steps, held up or not: so the whole is scaled until it adds up
to what the steps took, the worst of them cut.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.policies.engine_clock import ClockName, Share
from bench.reporting.errors import BenchmarkError
from workers.emulation.device import BatchTable, StepTimes
from workers.step_log import LoggedStep

LEAST_STEPS = 200
_MOST_STEPS = 20_000  # more tell nothing new; they are thinned out evenly
_LEAST_AT_KNOT = 40  # steps between two knots of the table
_ROUNDS = 12  # of reweighting; the weights hardly change after five
_HUBER = 1.345  # deviations; 95% as efficient as least squares where nothing is held up
_WORST = 5.0  # times the model: what is beyond is not the engine
_NOTHING_S = 1e-12  # a profile's numbers are above 0
_RIDGE = 1e-9  # keeps columns that never vary from dividing by 0
_WINDOW = 50  # steps whose sum is judged

_KV, _PREFILL, _PREFILL_TOKEN, _PREFILL_TOKEN2 = range(4)  # columns before those of the table
_SCALES = (1e3, 1.0, 1e2, 1e5)  # of them, so that all are of a size


class FitError(BenchmarkError):
    """The steps do not suffice; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What was found, and how well it describes the steps that it was fitted to."""

    times: StepTimes
    steps: int
    median_error: float  # of a step, relative
    window_error: float  # of the sum of 50 successive steps, relative, mean
    share: Share  # of the steps


def seconds_of(step: LoggedStep, clock: ClockName) -> float:
    """What a step took."""
    return step.wall_s if clock == "wall" else step.processor_s


def fit_steps(steps: Sequence[LoggedStep], clock: ClockName) -> Fit:
    """Fit the model to steps.

    :raises FitError: if they are too few, or nobody decodes or nothing is prefilled in them.
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
    rows = [_row(step, knots) for step in used]
    found = _not_negative(rows, took, len(_SCALES) + len(knots))
    times = _times(found, knots)
    modelled = [modelled_s(times, step) for step in used]
    whole = sum(min(t, _WORST * m) for t, m in zip(took, modelled, strict=True)) / sum(modelled)
    times = _times([whole * value for value in found], knots)
    modelled = [modelled_s(times, step) for step in used]
    return Fit(
        times=times,
        steps=len(used),
        median_error=statistics.median(abs(m - t) / t for t, m in zip(took, modelled, strict=True)),
        window_error=_window_error(took, modelled),
        share=Share(sum(s.wall_s for s in used), sum(s.processor_s for s in used)),
    )


def modelled_s(times: StepTimes, step: LoggedStep) -> float:
    """What a step should have taken."""
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
    """Batch sizes of the table: closer where batches are small, none without enough steps."""
    sizes = sorted(size for size in decodes if size)
    wanted = sorted({round(1.5**power) for power in range(20)})
    knots: list[int] = []
    since = 0  # where the last knot stands among the sizes
    for size in wanted:
        reached = sum(1 for other in sizes[since:] if other <= size)
        left = len(sizes) - since - reached
        if reached >= _LEAST_AT_KNOT and (left >= _LEAST_AT_KNOT or not knots):
            knots.append(size)
            since += reached
    if not knots or knots[-1] < sizes[-1]:
        knots.append(sizes[-1])
    return knots


def _row(step: LoggedStep, knots: Sequence[int]) -> list[tuple[int, float]]:
    """The columns of a step that are not 0.

    Those of the table are the first knot, and what each further one takes more than the one before.
    """
    row = [(_KV, step.decode_kv_tokens / _SCALES[_KV])]
    if step.prefill_tokens:
        row += [
            (_PREFILL, 1.0),
            (_PREFILL_TOKEN, step.prefill_tokens / _SCALES[_PREFILL_TOKEN]),
            (_PREFILL_TOKEN2, step.prefill_tokens2 / _SCALES[_PREFILL_TOKEN2]),
        ]
    first = len(_SCALES)
    row.append((first, 1.0))
    for index, (low, high) in enumerate(itertools.pairwise(knots), start=first + 1):
        if step.decodes <= low:
            break
        row.append((index, min(1.0, (step.decodes - low) / (high - low))))
    return row


def _times(values: Sequence[float], knots: Sequence[int]) -> StepTimes:
    kv, prefill, token, token2 = (
        max(_NOTHING_S * 1e-3, value / scale)
        for value, scale in zip(values[: len(_SCALES)], _SCALES, strict=True)
    )
    table = tuple(itertools.accumulate(values[len(_SCALES) :]))
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
    """Of the whole table: with it batches beyond the last knot go on."""
    return (table[-1] - table[0]) / (knots[-1] - knots[0]) if len(knots) > 1 else 0.0


# ---- regression


_Row = Sequence[tuple[int, float]]


def _not_negative(rows: Sequence[_Row], took: Sequence[float], width: int) -> list[float]:
    """Nothing saves time: leave out the columns that would, one after another."""
    without: set[int] = set()
    while True:
        kept = [[(c, x) for c, x in row if c not in without] for row in rows]
        found = _huber(kept, took, width)
        worst = min(range(width), key=found.__getitem__)
        if found[worst] >= 0.0:
            return found
        without.add(worst)


def _huber(rows: Sequence[_Row], took: Sequence[float], width: int) -> list[float]:
    """Huber's regression, by least squares with weights that follow from the residuals."""
    weights = [1.0] * len(rows)
    found = [0.0] * width
    for _ in range(_ROUNDS):
        found = _least_squares(rows, took, weights, width)
        residuals = [
            abs(t - sum(found[c] * x for c, x in row)) for row, t in zip(rows, took, strict=True)
        ]
        scale = max(1e-9, 1.4826 * statistics.median(residuals))  # of a normal distribution
        weights = [min(1.0, _HUBER * scale / max(r, 1e-12)) for r in residuals]
    return found


def _least_squares(
    rows: Sequence[_Row], took: Sequence[float], weights: Sequence[float], width: int
) -> list[float]:
    """Normal equations, solved by elimination with pivoting."""
    matrix = [[0.0] * (width + 1) for _ in range(width)]
    for row, t, weight in zip(rows, took, weights, strict=True):
        for c, x in row:
            line, wx = matrix[c], weight * x
            for other, y in row:
                line[other] += wx * y
            line[width] += wx * t
    for c in range(width):
        matrix[c][c] += _RIDGE * (matrix[c][c] + 1.0)
    for c in range(width):
        pivot = max(range(c, width), key=lambda r, c=c: abs(matrix[r][c]))  # type: ignore[misc]
        matrix[c], matrix[pivot] = matrix[pivot], matrix[c]
        for below in matrix[c + 1 :]:
            if factor := below[c] / matrix[c][c]:
                for index in range(c, width + 1):
                    below[index] -= factor * matrix[c][index]
    found = [0.0] * width
    for c in reversed(range(width)):
        rest = sum(matrix[c][k] * found[k] for k in range(c + 1, width))
        found[c] = (matrix[c][width] - rest) / matrix[c][c]
    return found
