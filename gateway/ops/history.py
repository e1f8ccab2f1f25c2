"""The last half hour, one row a second, in arrays: 30 columns take 220 kB."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from typing import Final

LENGTH: Final = 1800  # seconds
# A row is the Unix time and these; a value that is not known is NaN, and null in JSON.
COLUMNS: Final = (
    *("queued", "reasoning", "answering", "calling", "migrating", "delivering"),
    *("dry_readers", "buffered_tokens"),
    *("ttft_p50_s", "ttft_p90_s", "ttft_p99_s", "ttfat_p50_s", "ttfat_p99_s"),
    *("qoe_p1", "qoe_p5", "qoe_p50"),
    *("reasoning_tokens", "answering_tokens", "released_tokens"),  # in this second
    *("kv_reasoning", "kv_answering", "kv_held"),  # shares of all KV blocks
    *("preempted", "moved", "recomputed"),  # in this second
    *("late_p99_s", "serving", "instances"),
)

Row = list[float]


class History:
    """A ring of rows, the oldest of which is overwritten."""

    def __init__(self, length: int = LENGTH) -> None:
        self._length = length
        self._times = array("d", (0.0,)) * length
        self._columns = [array("f", (math.nan,)) * length for _ in COLUMNS]
        self._rows = 0  # ever written

    def __len__(self) -> int:
        return min(self._rows, self._length)

    def add(self, at: float, values: Mapping[str, float | None]) -> Row:
        """Write a row and return it.

        :param at: Unix time.
        :param values: by column; a column that is missing or None is not known.
        """
        place = self._rows % self._length
        self._rows += 1
        self._times[place] = at
        row = [at]
        for name, column in zip(COLUMNS, self._columns, strict=True):
            value = values.get(name)
            column[place] = math.nan if value is None else value
            row.append(_short(column[place]))
        return row

    def parts(self, size: int) -> Iterator[list[Row]]:
        """All rows, the oldest first, so many at a time."""
        begin = self._rows - len(self)
        for first in range(begin, self._rows, size):
            places = [n % self._length for n in range(first, min(first + size, self._rows))]
            yield [[self._times[n], *(_short(c[n]) for c in self._columns)] for n in places]


def _short(value: float) -> float:
    """A number whose decimals a chart can show."""
    return value if math.isnan(value) else round(value, 4)
