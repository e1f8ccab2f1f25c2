"""Whether a series grows: a robust slope, an interval that allows for autocorrelation, a verdict.

Pure: reads no clock and no process. Samples become block means. The slope is that of Theil and
Sen, the median over all pairs of blocks. Its interval comes from the spread of the residuals,
widened by the correlation of neighbouring blocks.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HOUR_S = 3600.0
_MOST_BLOCKS = 45
_FEWEST_BLOCKS = 6
_Z = 1.96  # of a two-sided interval of 95%
_THEIL_SEN = 1.03  # its standard error over that of least squares, for normal noise
# A single step must fit this much better than a line; otherwise it is noise or growth.
_STEP_FIT = 0.4


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a series behaves. Levels in its own unit, slopes in its unit per hour."""

    start: float  # median of the first quarter
    end: float  # median of the last quarter
    slope: float
    low: float  # the interval of the slope, 95%
    high: float
    allowed: float  # the slope up to which growth counts as noise
    verdict: str  # "steady", "grows", "step" or "too short"

    @property
    def failed(self) -> bool:
        """Whether this is a leak."""
        return self.verdict == "grows"


def judge(
    times_s: Sequence[float],
    values: Sequence[float],
    *,
    rise: float,
    share: float,
) -> Judgement:
    """Judge one series.

    :param rise: growth over the whole window that is noise, in the unit of the series.
    :param share: the same as a share of the level; the larger of the two counts.
    """
    x, y = blocks(times_s, values)
    if len(x) < _FEWEST_BLOCKS:
        level = statistics.median(values) if values else math.nan
        return Judgement(level, level, 0.0, -math.inf, math.inf, math.inf, "too short")
    quarter = max(1, len(values) // 4)
    start, end = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
    hours = (times_s[-1] - times_s[0]) / HOUR_S
    allowed = max(rise, share * abs(statistics.median(values))) / hours
    slope, low, high = theil_sen(x, y)
    if low <= 0 or slope <= allowed:
        verdict = "steady"
    else:
        verdict = "step" if is_step(x, y, slope) else "grows"
    return Judgement(start, end, slope, low, high, allowed, verdict)


def blocks(times_s: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means over spans of equal length, at most `_MOST_BLOCKS`; times in hours."""
    if not times_s or times_s[-1] <= times_s[0]:
        return [], []
    count = min(_MOST_BLOCKS, max(_FEWEST_BLOCKS, len(values) // 3))
    began_s, span_s = times_s[0], (times_s[-1] - times_s[0]) / count
    members: dict[int, list[tuple[float, float]]] = {}
    for time_s, value in zip(times_s, values, strict=True):
        number = min(count - 1, int((time_s - began_s) / span_s))
        members.setdefault(number, []).append((time_s / HOUR_S, value))
    x = [statistics.fmean(time for time, _ in block) for block in members.values()]
    y = [statistics.fmean(value for _, value in block) for block in members.values()]
    return x, y


def theil_sen(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Slope, and its interval of 95%."""
    n = len(x)
    slopes = [(y[j] - y[i]) / (x[j] - x[i]) for i in range(n) for j in range(i + 1, n)]
    slope = statistics.median(slopes)
    residuals = [value - slope * time for time, value in zip(x, y, strict=True)]
    widened = inflation(residuals)
    spread = statistics.stdev(residuals) * math.sqrt((n - 1) / (n - 2))
    along = math.sqrt(sum((time - statistics.fmean(x)) ** 2 for time in x))
    half = student(n / widened - 2) * math.sqrt(widened) * _THEIL_SEN * spread / along
    return slope, slope - half, slope + half


def student(freedom: float) -> float:
    """Two-sided quantile of 95% of Student's t, an expansion; at least 2 degrees of freedom."""
    freedom = max(2.0, freedom)
    return _Z + 2.37 / freedom + 2.82 / freedom**2


def inflation(residuals: Sequence[float]) -> float:
    """The factor by which autocorrelation increases the variance of a trend: (1 + r) / (1 - r).

    r is the correlation of neighbours, corrected for its bias in short series (Kendall), and at
    most 0.9.
    """
    n = len(residuals)
    mean = statistics.fmean(residuals)
    total = sum((value - mean) ** 2 for value in residuals)
    # An exact line leaves rounding errors.
    if total <= 1e-18 * max(1.0, mean**2):
        return 1.0
    pairs = itertools.pairwise(residuals)
    r = sum((one - mean) * (two - mean) for one, two in pairs) / total
    r = min(0.9, max(0.0, (n * r + 1) / (n - 4)))
    return (1 + r) / (1 - r)


def is_step(x: Sequence[float], y: Sequence[float], slope: float) -> bool:
    """Whether two levels with one jump between them fit the series far better than a line."""
    offset = statistics.median(value - slope * time for time, value in zip(x, y, strict=True))
    line = sum(abs(value - slope * time - offset) for time, value in zip(x, y, strict=True))
    two_levels = min(_spread(y[:cut]) + _spread(y[cut:]) for cut in range(2, len(y) - 1))
    return two_levels < _STEP_FIT * line


def _spread(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    return sum(abs(value - middle) for value in values)
