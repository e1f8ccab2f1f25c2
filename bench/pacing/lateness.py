"""How late the tokens of a stream were, by what its reader received. Pure.

The plan of a paced stream whose worker is far ahead: token *i* is due at ``p + i*tau``. The reader
does not know ``p``, when the first token was due, but an upper bound of it. No token goes out more
than one slot early, so ``p`` is at most ``r_i - i*tau`` plus a slot for every token received at
``r_i``. It is also at most ``r_0``. The plan here takes the smallest of these bounds. So a late
first token does not make the others look early.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from bench.reporting.statistics import percentile
from pacer.qoe import qoe

SLOT_S: Final = 0.005  # a token may be early by this much
BUCKETS_MS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)  # upper bounds
GOOD_QOE: Final = 0.99


def lateness_s(received_s: Sequence[float], tau_s: float) -> list[float]:
    """How late each token of one stream was, in seconds; 0 for a token that was early.

    :param received_s: when each token came, ascending.
    """
    if not received_s:
        return []
    due_s = plan_s(received_s, tau_s)
    return [max(0.0, at_s - due_s - index * tau_s) for index, at_s in enumerate(received_s)]


def plan_s(received_s: Sequence[float], tau_s: float) -> float:
    """When the first token of a stream was due, by what its reader received.

    :param received_s: when each token came, ascending; at least one.
    """
    anchors = (at_s - index * tau_s for index, at_s in enumerate(received_s))
    return min(received_s[0], min(anchors) + SLOT_S)


def worst_pause_s(
    streams: Iterable[Sequence[float]], tau_s: float, from_s: float, to_s: float
) -> float:
    """The longest time in which no stream got a token, less the longest one by the plans.

    :param streams: when each token of a stream came, ascending.
    :param from_s, to_s: a time in which all of them run.
    """
    ordered: list[float] = []
    phases_s = []
    for received_s in streams:
        if received_s:
            ordered += [at_s for at_s in received_s if from_s <= at_s <= to_s]
            phases_s.append(plan_s(received_s, tau_s) % tau_s)
    if len(ordered) < 2:
        return 0.0
    phases_s.sort()
    phases_s.append(phases_s[0] + tau_s)
    return max(0.0, _longest_gap(sorted(ordered)) - _longest_gap(phases_s))


def _longest_gap(ordered: Sequence[float]) -> float:
    return max(later - earlier for earlier, later in pairwise(ordered))


@dataclass(frozen=True, slots=True)
class Punctuality:
    """How punctual all streams were. Times are in milliseconds."""

    tokens: int
    late_p50_ms: float
    late_p99_ms: float
    late_max_ms: float
    histogram_ms: dict[str, int]  # tokens by the upper bound of their bucket
    qoe_min: float
    qoe_below_good: float  # share of the readers with a QoE below `GOOD_QOE`


def punctuality(streams: Iterable[Sequence[float]], tau_s: float) -> Punctuality:
    """Summarize streams.

    :param streams: when each token of a stream came, ascending; a stream without tokens counts
        only as a reader with a QoE of 0.
    """
    late_s: list[float] = []
    quality: list[float] = []
    for received_s in streams:
        late_s += lateness_s(received_s, tau_s)
        quality.append(qoe(received_s, tau_s=tau_s, origin_s=received_s[0]) if received_s else 0.0)
    late_s.sort()
    at = [percentile(late_s, percent) if late_s else 0.0 for percent in (50.0, 99.0, 100.0)]
    return Punctuality(
        tokens=len(late_s),
        late_p50_ms=1e3 * at[0],
        late_p99_ms=1e3 * at[1],
        late_max_ms=1e3 * at[2],
        histogram_ms=histogram([1e3 * late for late in late_s]),
        qoe_min=min(quality, default=0.0),
        qoe_below_good=sum(one < GOOD_QOE for one in quality) / max(1, len(quality)),
    )


def histogram(ordered_ms: Sequence[float]) -> dict[str, int]:
    """Number of values in each bucket, by its upper bound; ``more`` is beyond the last one.

    :param ordered_ms: ascending.
    """
    counts, below = {}, 0
    for bound in BUCKETS_MS:
        up_to = bisect.bisect_right(ordered_ms, bound)
        counts[f"{bound:g}"] = up_to - below
        below = up_to
    counts["more"] = len(ordered_ms) - below
    return counts


def buckets_of(metrics: str, name: str) -> dict[str, float]:
    """The buckets of a histogram on a metrics page: observations by upper bound, cumulated."""
    found = {}
    for line in metrics.splitlines():
        if line.startswith(f'{name}_bucket{{le="'):
            bound, _, count = line.removeprefix(f'{name}_bucket{{le="').partition('"} ')
            found[bound] = float(count)
    return found


def between(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """Observations of each bucket between two readings of cumulated buckets."""
    result, below = {}, 0.0
    for bound, count in after.items():
        up_to = count - before.get(bound, 0.0)
        result[bound] = int(up_to - below)
        below = up_to
    return result
