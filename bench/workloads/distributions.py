"""Distributions given as tables: quantiles, or probabilities of values.

Pure, except for the random generator that is passed in, and that it reads the tables which the
project ships (bench/workloads/tables). It must not know the meaning of the values.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Protocol

from bench.workloads.table_reader import Row, TraceError, rows

TABLES = Path(__file__).parent / "tables"


class Distribution(Protocol):
    """A distribution of one number."""

    def draw(self, rng: random.Random) -> float:
        """Draw one number."""

    @property
    def most(self) -> float:
        """The largest number."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution from its quantiles, linear between them."""

    shares: tuple[float, ...]  # from 0 to 1, rising
    values: tuple[float, ...]  # one for each share, never falling

    def __post_init__(self) -> None:
        """:raises ValueError: if these are not quantiles."""
        shares, values = self.shares, self.values
        if len(shares) != len(values) or len(shares) < 2:
            raise ValueError("needs two quantiles or more, with a value each")
        if shares[0] != 0 or shares[-1] != 1 or any(a >= b for a, b in pairwise(shares)):
            raise ValueError("quantiles must rise from 0 to 1")
        if any(a > b for a, b in pairwise(values)):
            raise ValueError("values of rising quantiles must not fall")

    def at(self, share: float) -> float:
        """The quantile of ``share``, from 0 to 1."""
        index = min(max(bisect_right(self.shares, share), 1), len(self.shares) - 1)
        low, high = self.shares[index - 1], self.shares[index]
        part = (share - low) / (high - low)
        return self.values[index - 1] + part * (self.values[index] - self.values[index - 1])

    def draw(self, rng: random.Random) -> float:
        """Draw one number."""
        return self.at(rng.random())

    @property
    def most(self) -> float:
        """The largest number."""
        return self.values[-1]


@dataclass(frozen=True, slots=True)
class Probabilities:
    """A distribution from the probabilities of its values."""

    values: tuple[float, ...]
    cumulative: tuple[float, ...]

    @classmethod
    def of(cls, probabilities: Mapping[float, float]) -> Probabilities:
        """:param probabilities: by value; need not sum to 1.

        :raises ValueError: if one is negative or all are 0.
        """
        pairs = sorted((value, p) for value, p in probabilities.items() if p != 0)
        if not pairs or not all(0 < p < float("inf") for _, p in pairs):
            raise ValueError("probabilities must be positive and finite, not all 0")
        return cls(tuple(value for value, _ in pairs), tuple(accumulate(p for _, p in pairs)))

    def draw(self, rng: random.Random) -> float:
        """Draw one number."""
        return self.at(rng.random())

    def at(self, share: float) -> float:
        """The quantile of ``share``, from 0 to 1."""
        index = bisect_left(self.cumulative, share * self.cumulative[-1])
        return self.values[min(index, len(self.values) - 1)]

    def probabilities(self) -> dict[float, float]:
        """Probabilities by value; they sum to 1."""
        total = self.cumulative[-1]
        steps = (high - low for low, high in pairwise((0.0, *self.cumulative)))
        return {value: step / total for value, step in zip(self.values, steps, strict=True)}

    @property
    def most(self) -> float:
        """The largest number."""
        return self.values[-1]


def read_quantiles(path: Path, *columns: str) -> list[Quantiles]:
    """Columns of a table whose column ``q`` holds the shares of the quantiles.

    :raises TraceError: if it cannot be read, or a column does not hold quantiles.
    """
    return quantiles_of(list(rows(path)), path, *columns)


def quantiles_of(table: list[Row], path: Path, *columns: str) -> list[Quantiles]:
    """As `read_quantiles`, from the rows of ``path``."""
    shares = tuple(row.number("q", 0, 1) for row in table)
    quantiles = []
    for column in columns:
        try:
            quantiles.append(Quantiles(shares, tuple(row.number(column) for row in table)))
        except ValueError as error:
            line = table[-1].line if table else None
            raise TraceError(str(error), path, line, column) from error
    return quantiles
