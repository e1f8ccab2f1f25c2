"""Percentiles, summaries and intervals, the same in every report. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Final

SLO_QOE: Final = 0.95  # a request with a lower QoE violates its SLO (paper, "Terms")
PERCENTILES: Final = (50.0, 95.0, 99.0)  # in every summary

# Two-sided 95% quantiles of Student's t, by degrees of freedom.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
_T95_MANY = 2.0


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Percentile with linear interpolation between the closest ranks.

    :param ordered: at least one value, ascending.
    :param percent: from 0 to 100.
    """
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def percentile_key(percent: float) -> str:
    """Key of a percentile in a summary: ``p50``, ``p99.9``."""
    return f"p{percent:g}"


def summarize(
    values: Iterable[float | None], percentiles: Sequence[float] = PERCENTILES
) -> dict[str, float | None]:
    """Mean, percentiles, minimum and maximum.

    :param values: those that are None do not count; if none is left, every entry is None.
    :param percentiles: in addition to `PERCENTILES`.
    """
    ordered = sorted(value for value in values if value is not None)
    keys = sorted({*PERCENTILES, *percentiles})
    if not ordered:
        return dict.fromkeys(("mean", *map(percentile_key, keys), "min", "max"))
    return {
        "mean": math.fsum(ordered) / len(ordered),
        **{percentile_key(key): percentile(ordered, key) for key in keys},
        "min": ordered[0],
        "max": ordered[-1],
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean by Student's t; for a single value, the value twice."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, mean
    freedom = len(values) - 1
    t = _T95[freedom - 1] if freedom <= len(_T95) else _T95_MANY
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half
