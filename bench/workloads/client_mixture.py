"""Arrivals as the sum of clients, each with its own rate, bursts and lengths.

The model is ServeGen's (Xiang et al., NSDI '26): within a window of time the gaps between a
client's requests are independent, with a Gamma or Weibull distribution. Pure: all randomness comes
from seeds. It must not know where the clients come from.

A gap is drawn with mean 1 and consumed at the rate of the current window. This makes rates exact,
also across windows. Another rate stretches each client's gaps and keeps their spread, as in
ServeGen. The first gap is the rest of one that was in progress at time 0. Otherwise all bursty
clients would begin with a burst.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal, assert_never

from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths, LengthSource

Family = Literal["Gamma", "Weibull"]

# A smaller Weibull shape makes gaps that overflow; measured shapes are far above it.
LEAST_SHAPE = 0.01
MOST_SHAPE = 10_000.0


@dataclass(frozen=True, slots=True)
class Window:
    """Behaviour of a client from a time on, until its next window."""

    start_s: float
    rate: float  # requests per second; 0: silent
    family: Family
    shape: float  # below 1: bursts
    lengths: LengthSource

    def gap(self, rng: random.Random) -> float:
        """A gap between two requests, with mean 1."""
        match self.family:
            case "Gamma":
                return rng.gammavariate(self.shape, 1 / self.shape)
            case "Weibull":
                return rng.weibullvariate(1 / math.gamma(1 + 1 / self.shape), self.shape)
            case _:
                assert_never(self.family)

    def rest(self, rng: random.Random) -> float:
        """Time from a random moment to the next request, in mean gaps.

        A random moment falls more often into a long gap: its gap has the density ``x f(x)``.
        """
        match self.family:
            case "Gamma":
                met = rng.gammavariate(self.shape + 1, 1 / self.shape)
            case "Weibull":
                power = rng.gammavariate(1 + 1 / self.shape, 1.0)
                met = power ** (1 / self.shape) / math.gamma(1 + 1 / self.shape)
            case _:
                assert_never(self.family)
        return met * rng.random()


@dataclass(frozen=True, slots=True)
class Client:
    """A sender of requests."""

    name: str
    windows: tuple[Window, ...]  # by start, the first at the mixture's start


class ClientMixture:
    """Clients over a span of time, which repeats without end."""

    def __init__(self, clients: tuple[Client, ...], start_s: float, end_s: float) -> None:
        """:raises ValueError: if no client sends anything, or the windows do not fit the span."""
        for client in clients:
            starts = [window.start_s for window in client.windows]
            if not starts or starts[0] != start_s or starts[-1] >= end_s:
                raise ValueError(f"windows of client {client.name} do not fit the span")
            if any(a >= b for a, b in pairwise(starts)):
                raise ValueError(f"windows of client {client.name} do not follow each other")
        self.clients = clients
        self.start_s = start_s
        self.end_s = end_s
        # Every window with its number of requests, for the mean rate and the draw of lengths.
        sent = [
            (window.lengths, window.rate * (until_s - window.start_s))
            for client in clients
            for window, until_s in _spans(client, end_s)
        ]
        self._sources = [lengths for lengths, _ in sent]
        self._cumulative = list(accumulate(requests for _, requests in sent))
        if not self._cumulative or self._cumulative[-1] <= 0:
            raise ValueError("no client sends anything")

    @property
    def rate(self) -> float:
        """Requests per second of all clients, on average over the span."""
        return self._cumulative[-1] / (self.end_s - self.start_s)

    @property
    def longest_output(self) -> int:
        """Maximum of reasoning and answer together, in tokens."""
        return max(source.longest_output for source in self._sources)

    def draw(self, rng: random.Random) -> Lengths:
        """Draw a client by its number of requests, and one of its requests."""
        index = bisect_right(self._cumulative, rng.random() * self._cumulative[-1])
        return self._sources[min(index, len(self._sources) - 1)].draw(rng)

    def arrivals(self, rate: float | None, seed: int | str) -> Iterator[Arrival]:
        """The requests of all clients without end, by time from 0.

        :param rate: of all clients per second, on average over the span; None: their own.
        """
        scale = 1.0 if rate is None else rate / self.rate
        streams = [
            self._requests(client, scale, random.Random(f"{seed}/client {client.name}"))
            for client in self.clients
            if any(window.rate > 0 for window in client.windows)
        ]
        return heapq.merge(*streams, key=lambda arrival: arrival.at_s)

    def _requests(self, client: Client, scale: float, rng: random.Random) -> Iterator[Arrival]:
        span_s = self.end_s - self.start_s
        lap_s = 0.0  # start of this repetition of the span, from time 0
        sent = sum((end_s - w.start_s) * w.rate for w, end_s in _spans(client, self.end_s)) * scale
        active = next(window for window in client.windows if window.rate > 0)
        left = active.rest(rng)  # of the gap to the next request, in mean gaps
        while True:
            # A gap of a long-tailed distribution may span thousands of laps: skip them at once.
            laps, left = divmod(left, sent)
            lap_s += laps * span_s
            for window, until_s in _spans(client, self.end_s):
                now = window.start_s
                rate = window.rate * scale
                while rate > 0 and left <= (until_s - now) * rate:
                    now += left / rate
                    at_s = lap_s + now - self.start_s
                    yield Arrival(at_s, window.lengths.draw(rng), client.name)
                    left = window.gap(rng)
                left -= (until_s - now) * rate
            lap_s += span_s

    def between(self, start_s: float, end_s: float) -> ClientMixture:
        """The same clients over a part of the span.

        :raises ValueError: if it is not a part of the span, or no client sends anything in it.
        """
        if not self.start_s <= start_s < end_s <= self.end_s:
            raise ValueError(
                f"{start_s:g}-{end_s:g} is not part of {self.start_s:g}-{self.end_s:g} s"
            )
        cut = (
            Client(
                client.name,
                tuple(
                    replace(window, start_s=max(start_s, window.start_s))
                    for window, until_s in _spans(client, self.end_s)
                    if window.start_s < end_s and until_s > start_s
                ),
            )
            for client in self.clients
        )
        return ClientMixture(tuple(cut), start_s, end_s)


def _spans(client: Client, end_s: float) -> Iterator[tuple[Window, float]]:
    """Every window with its end."""
    ends = [window.start_s for window in client.windows[1:]]
    return zip(client.windows, [*ends, end_s], strict=True)
