"""What the phase boundary has cost: how long requests waited there for their first answering token.

Pure bookkeeping; `gateway.policy.placement` weighs the costs. The cost of a move is read off a line
through the latest samples, by KV blocks. The cost of staying is the mean of the latest samples at
each instance. Old samples do not count, so that placement tries again what was expensive once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.policy.placement import MoveCost

_SAMPLES = 16
_FEWEST = 4  # samples of moves before there is an estimate
_MEMORY_S = 60.0


class BoundaryTimes:
    """Seconds from the boundary to the next token."""

    def __init__(self) -> None:
        self._moves: deque[_Sample] = deque(maxlen=_SAMPLES)
        self._stays: dict[str, deque[_Sample]] = {}

    def moved(self, kv_blocks: int, seconds: float, now: float) -> None:
        """A request changed instances with this much KV."""
        self._moves.append(_Sample(now, kv_blocks, seconds))

    def stayed(self, instance_id: str, seconds: float, now: float) -> None:
        """A request stayed where it was."""
        samples = self._stays.setdefault(instance_id, deque(maxlen=_SAMPLES))
        samples.append(_Sample(now, 0, seconds))

    def cost(
        self, instance_id: str, kv_blocks: int, unnoticed_s: float, now: float
    ) -> MoveCost | None:
        """The cost of a move from an instance; None while there are too few samples of moves.

        Without a recent sample of staying there, staying counts as free. Then placement makes only
        moves that no reader notices, and each request that stays supplies the missing sample.

        :param unnoticed_s: the wait that the reader expects anyway.
        """
        moves = _recent(self._moves, now)
        stays = _recent(self._stays.get(instance_id, ()), now)
        if len(moves) < _FEWEST:
            return None
        stay_s = sum(sample.seconds for sample in stays) / len(stays) if stays else 0.0
        return MoveCost(_on_line(moves, kv_blocks), stay_s, unnoticed_s)


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    kv_blocks: int
    seconds: float


def _recent(samples: Iterable[_Sample], now: float) -> list[_Sample]:
    return [sample for sample in samples if now - sample.at_s <= _MEMORY_S]


def _on_line(samples: list[_Sample], kv_blocks: int) -> float:
    """The line through the samples (least squares), at this many KV blocks."""
    mean_blocks = sum(sample.kv_blocks for sample in samples) / len(samples)
    mean_s = sum(sample.seconds for sample in samples) / len(samples)
    spread = sum((sample.kv_blocks - mean_blocks) ** 2 for sample in samples)
    if not spread:
        return mean_s
    covariance = sum(
        (sample.kv_blocks - mean_blocks) * (sample.seconds - mean_s) for sample in samples
    )
    # More KV never takes less time: a slope below 0 is noise.
    slope = max(0.0, covariance / spread)
    return max(0.0, mean_s + slope * (kv_blocks - mean_blocks))
