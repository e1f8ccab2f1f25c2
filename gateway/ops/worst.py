"""The requests behind a figure of the page: the three that are worst by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import nlargest
from typing import Final, TypeAlias, get_args

from gateway.api.documents.frames import Figure
from gateway.ops.watch import SLICE, Seen
from gateway.response.tally import LIVE_STATES

FIGURES: Final[tuple[Figure, ...]] = get_args(Figure)
MOST: Final = 3
_QUEUED, _REASONING, _ANSWERING, _DELIVERING = (
    LIVE_STATES.index(state) for state in ("queued", "reasoning", "answering", "delivering")
)
_Badness: TypeAlias = Callable[[Seen, float], float | None]  # None: it is not behind the figure


def _age(one: Seen, now: float) -> float:
    return now - one.session.delivery.submitted_s


def _queued(one: Seen, now: float) -> float | None:
    return _age(one, now) if one.state == _QUEUED else None


def _thinking(one: Seen, now: float) -> float | None:
    since_s = one.session.delivery.first_token_s
    return now - since_s if one.state == _REASONING and since_s is not None else None


def _answers(one: Seen, now: float) -> float | None:
    delivery = one.session.delivery
    since_s = delivery.boundary_s or delivery.first_token_s
    return now - since_s if one.state == _ANSWERING and since_s is not None else None


def _unread(one: Seen, now: float) -> float | None:
    if one.state != _DELIVERING or one.ahead_s is None:
        return None
    return one.ahead_s - (now - one.ahead_at)


def _ttft(one: Seen, _: float) -> float | None:
    return one.session.delivery.times_to_first()[0]


def _ttfat(one: Seen, _: float) -> float | None:
    return one.session.delivery.times_to_first()[1]


def _qoe(one: Seen, _: float) -> float | None:
    return None if one.ahead_s is None else -one.qoe


def _dry(one: Seen, now: float) -> float | None:
    return now - one.ahead_at - (one.ahead_s or 0.0) if one.dry else None


def _waiting(one: Seen, now: float) -> float | None:
    return now - one.since_s if one.stalled and one.state != _QUEUED else None


def _moved(one: Seen, _: float) -> float | None:
    return float(one.session.migrations) or None


_BADNESS: Mapping[Figure, _Badness] = dict(
    zip(
        FIGURES,
        (_age, _queued, _thinking, _answers, _unread, _ttft, _ttfat, _qoe, _dry, _waiting, _moved),
        strict=True,
    )
)


class Worst:
    """Finds the worst requests for one figure."""

    def __init__(self, figure: Figure) -> None:
        self.rows: list[tuple[int, float]] = []  # number and value, the worst first
        self._figure: Figure = figure

    def look(self, seen: Sequence[Seen], now: float) -> Iterator[None]:
        """Look at all requests; stops after every `SLICE` of them."""
        badness = _BADNESS[self._figure]
        best: list[tuple[float, int]] = []
        for first in range(0, len(seen), SLICE):
            found = ((badness(one, now), -one.number) for one in seen[first : first + SLICE])
            best += [(bad, number) for bad, number in found if bad is not None]
            best = nlargest(MOST, best)
            yield
        # QoE is the better the larger, and 0 is not -0.
        self.rows = [(-number, round(abs(bad), 4)) for bad, number in best]
