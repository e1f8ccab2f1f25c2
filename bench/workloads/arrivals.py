"""Arrivals of requests, with their lengths. Pure: all randomness comes from seeds.

It must not know names of workloads, or where lengths come from.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from bench.workloads.lengths import Lengths, Round
from bench.workloads.lengths import LengthSource as LengthSource

# Below this, nearly all gaps are 0 and the others overflow.
LEAST_BURSTINESS = 1e-3


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request and the time of its arrival."""

    at_s: float
    lengths: Lengths
    client: str | None = None  # the sender, if known
    conversation: str | None = None  # its prompts begin alike; None: this one is alone
    # Of an agent's task: this turn and those that follow it. `lengths` has the whole prompt.
    rounds: tuple[Round, ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of prompt and output, at the end of its task if it has one."""
        later = self.rounds[1:]
        added = sum(of.lengths.prompt + of.lengths.output for of in later)
        return self.lengths.prompt + self.lengths.output + added


def times(rate: float, burstiness: float, rng: random.Random) -> Iterator[float]:
    """Times of arrivals without end, in seconds from 0.

    :param rate: per second, on average; inf: all at once.
    :param burstiness: shape of the gamma-distributed gaps. 1 gives Poisson arrivals, less gives
        bursts, more is steadier, inf is regular.
    """
    at_s = 0.0
    while True:
        if burstiness == 1:
            at_s += rng.expovariate(rate)
        elif math.isinf(burstiness) or math.isinf(rate):
            at_s += 1 / rate  # a limit that the distribution cannot express
        else:
            at_s += rng.gammavariate(burstiness, 1 / (rate * burstiness))
        yield at_s


def poisson(rate: float, lengths: LengthSource, seed: int | str) -> Iterator[Arrival]:
    """Poisson arrivals without end, ``rate`` per second."""
    return gamma(rate, 1.0, lengths, seed)


def gamma(
    rate: float, burstiness: float, lengths: LengthSource, seed: int | str
) -> Iterator[Arrival]:
    """Arrivals without end whose gaps are gamma-distributed, as ``vllm bench serve`` draws them.

    :param rate: per second, on average; inf: all at once.
    :param burstiness: shape of the gaps. 1 gives the same arrivals as `poisson`, less gives bursts,
        more is steadier, inf is regular.
    :raises ValueError: if the rate is not above 0, or the burstiness below `LEAST_BURSTINESS`;
        raised by the call, not by the iterator.
    """
    if not (rate > 0 and burstiness >= LEAST_BURSTINESS):
        least = f"rate must be above 0 and burstiness {LEAST_BURSTINESS:g} or more"
        raise ValueError(f"{least}: {rate:g} and {burstiness:g}")
    rng = random.Random(seed)
    return (Arrival(at_s, lengths.draw(rng)) for at_s in times(rate, burstiness, rng))


def under_way(
    rate: float, lengths: LengthSource, token_s: float, seed: int | str
) -> Iterator[Arrival]:
    """Requests in progress at time 0, after a long time of arrivals at ``rate``, the oldest first.

    The tokens that they have generated are part of their prompts. A request that is already
    answering has one token of reasoning left.

    :param token_s: the time that each token has taken so far.
    """
    rng = random.Random(f"under way {seed}")
    longest_s = lengths.longest_output * token_s
    age_s = rng.expovariate(rate)
    running: list[Arrival] = []
    while age_s < longest_s:
        drawn = lengths.draw(rng)
        done = int(age_s / token_s)
        if done < drawn.reasoning + drawn.answer:
            left = Lengths(
                prompt=drawn.prompt + done,
                reasoning=max(1, drawn.reasoning - done),
                answer=drawn.answer - max(0, done - drawn.reasoning),
            )
            running.append(Arrival(0.0, left))
        age_s += rng.expovariate(rate)
    return reversed(running)
