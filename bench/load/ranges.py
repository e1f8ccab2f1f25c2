"""What the load generator draws for every request: lengths in tokens, and pauses for thought.

Pure but for the random generator that is passed in. Both have the same three forms: one value
exactly, ``LOW-HIGH`` uniform, ``MEAN:SD`` normal.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from workers.checked import seconds


@dataclass(frozen=True, slots=True)
class Length:
    """A length in tokens, at least 1: ``80`` exactly, ``50-200`` uniform, ``100:30`` normal."""

    text: str
    kind: Literal["exact", "uniform", "normal"]
    first: float  # the length; the low end; the mean
    second: float = 0.0  # unused; the high end; the standard deviation

    @classmethod
    def parse(cls, text: str, unit: str = "token") -> Length:
        """:raises ValueError: if it has none of the three forms, or could not be positive."""
        if match := re.fullmatch(r"\d+", text):
            length = cls(text, "exact", int(text))
        elif match := re.fullmatch(r"(\d+)-(\d+)", text):
            length = cls(text, "uniform", int(match[1]), int(match[2]))
            if length.second < length.first:
                raise ValueError(f"{text!r} ends before it begins")
        elif match := re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", text):
            length = cls(text, "normal", float(match[1]), float(match[2]))
        else:
            raise ValueError(f"{text!r} is neither N, nor LOW-HIGH, nor MEAN:SD, in {unit}s")
        if length.first < 1:
            raise ValueError(f"{text!r} is below one {unit}")
        return length

    @classmethod
    def parse_turns(cls, text: str) -> Length:
        """The same for a number of turns. Raises ValueError likewise."""
        return cls.parse(text, "turn")

    def draw(self, rng: random.Random) -> int:
        """One length, at least 1."""
        match self.kind:
            case "exact":
                return int(self.first)
            case "uniform":
                return rng.randint(int(self.first), int(self.second))
            case "normal":
                return max(1, round(rng.gauss(self.first, self.second)))


@dataclass(frozen=True, slots=True)
class Pause:
    """A time: ``5s`` exactly, ``2s-10s`` uniform, ``8s:3s`` normal, never below 0."""

    text: str
    kind: Literal["exact", "uniform", "normal"]
    first_s: float  # the time; the low end; the mean
    second_s: float = 0.0  # unused; the high end; the standard deviation

    @classmethod
    def parse(cls, text: str) -> Pause:
        """:raises ValueError: if it has none of the three forms."""
        low, dash, high = text.partition("-")
        mean, colon, deviation = text.partition(":")
        if dash:
            pause = cls(text, "uniform", seconds(low), seconds(high))
            if pause.second_s < pause.first_s:
                raise ValueError(f"{text!r} ends before it begins")
            return pause
        if colon:
            return cls(text, "normal", seconds(mean), seconds(deviation))
        return cls(text, "exact", seconds(text))

    def draw_s(self, rng: random.Random) -> float:
        """One time in seconds, at least 0."""
        match self.kind:
            case "exact":
                return self.first_s
            case "uniform":
                return rng.uniform(self.first_s, self.second_s)
            case "normal":
                return max(0.0, rng.gauss(self.first_s, self.second_s))
