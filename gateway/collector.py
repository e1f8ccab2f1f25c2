"""Full garbage collections in quiet moments, instead of whenever Python thinks fit.

A full collection walks all objects, and every reader waits meanwhile: 40 ms for a million objects
at the least. Python runs one when a quarter of the old objects are new, however many readers wait
for a token. `FullCollections` sets the objects that have become old aside (`gc.freeze`) each time
they are some ten thousand, so that no later collection walks them. It collects in full when few
read, or when it cannot wait any longer.

Almost all objects go without a collection, when nothing refers to them any more. Only those that
refer to each other in a circle have to wait for one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import structlog

log = structlog.get_logger()

Reason: TypeAlias = Literal["quiet", "grown", "overdue"]

GENERATIONS = 3
PAUSE_EDGES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# New objects before a young collection; young collections before one of the middle generation,
# which then walks 6,000 objects; and of those before one of the last generation, which walks
# 24,000 and sets them aside. A walk takes 0.04 us an object, and 0.3 us in a busy gateway, whose
# objects are in no cache. Higher thresholds would make fewer and longer pauses.
_THRESHOLDS = (1_000, 4, 3)
_LOOK_EVERY_S = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Heap:
    """What is known of the gateway's objects without walking them."""

    collected_s: float  # when the last full collection ended, monotonic
    pause_s: float  # how long it took
    aged: bool  # whether objects have become old since then
    resident_then_bytes: int  # memory of the process after it
    resident_bytes: int  # memory of the process now
    unfinished: int  # responses that are not fully delivered
    gap_s: float  # until the next token is due


@dataclass(frozen=True, slots=True)
class CollectionRule:
    """When to collect in full."""

    least_s: float = 30.0  # shortest time between two, in quiet moments and for memory
    most_s: float = 3600.0  # longest time without one
    few: int = 2  # most unfinished responses of a quiet moment, if no token is due in it
    growth: float = 2.0  # of memory since the last one that calls for the next
    least_growth_bytes: int = 2**29  # smaller growth calls for none

    def reason(self, now: float, heap: Heap) -> Reason | None:
        """Return why to collect now, or None."""
        passed_s = now - heap.collected_s
        if passed_s >= self.most_s:
            return "overdue"
        if passed_s < self.least_s:
            return None
        then_bytes = heap.resident_then_bytes
        if heap.resident_bytes >= max(
            self.growth * then_bytes, then_bytes + self.least_growth_bytes
        ):
            return "grown"
        few = heap.unfinished <= self.few and heap.gap_s > heap.pause_s
        if heap.aged and (few or not heap.unfinished):
            return "quiet"
        return None


class CollectionPauses:
    """How long collections stopped this process, by generation.

    A collection begins at any allocation, so that noting it must not wait for a lock, as a metric
    of the Prometheus client does.
    """

    def __init__(self) -> None:
        # By generation: at most as long as each edge and longer than the one before; longer.
        self.counts = [[0] * (len(PAUSE_EDGES_S) + 1) for _ in range(GENERATIONS)]
        self.sums_s = [0.0] * GENERATIONS
        self.longest_s = [0.0] * GENERATIONS
        self._begun_s: float | None = None

    def note(self, phase: str, info: dict[str, Any]) -> None:
        """Take part in a collection (`gc.callbacks`)."""
        if phase == "start":
            self._begun_s = time.monotonic()
        elif self._begun_s is not None:
            self.add(info["generation"], time.monotonic() - self._begun_s)
            self._begun_s = None

    def add(self, generation: int, pause_s: float) -> None:
        """Count one collection."""
        self.counts[generation][bisect_left(PAUSE_EDGES_S, pause_s)] += 1
        self.sums_s[generation] += pause_s
        self.longest_s[generation] = max(self.longest_s[generation], pause_s)


def resident_bytes() -> int:
    """Memory of this process; 0 if it cannot be read."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:  # no descriptor is free
        return 0


class FullCollections:
    """Collects in full by a rule, while Python does not.

    :param unfinished: returns the number of responses that are not fully delivered.
    :param gap_s: returns the time until the next token is due, in seconds; 0: not known.
    """

    def __init__(
        self,
        pauses: CollectionPauses,
        unfinished: Callable[[], int],
        *,
        gap_s: Callable[[], float] = lambda: 0.0,
        rule: CollectionRule | None = None,
    ) -> None:
        self._pauses = pauses
        self._unfinished = unfinished
        self._gap_s = gap_s
        self._rule = rule or CollectionRule()
        self._collected_s = time.monotonic()
        self._pause_s = 0.0
        self._collections = _old_collections()  # when the last full one had ended
        self._resident_then_bytes = resident_bytes()

    @contextmanager
    def taking_over(self) -> Iterator[None]:
        """Stop Python from collecting in full; afterwards it does so as before."""
        thresholds = gc.get_threshold()
        gc.callbacks.append(self._pauses.note)
        gc.callbacks.append(_set_old_aside)
        gc.set_threshold(*_THRESHOLDS)
        try:
            yield
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(_set_old_aside)
            gc.callbacks.remove(self._pauses.note)
            gc.unfreeze()

    def freeze(self) -> None:
        """Keep what exists now out of later collections, while nobody reads yet."""
        with self._unnoted():
            gc.collect()  # sets what is left aside
        self._ended()

    async def run(self) -> None:
        """Look every second whether to collect, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                self.look(time.monotonic())
            except Exception:  # a bug; without collections, memory would grow
                log.exception("full_collection_failed")

    def look(self, now: float) -> None:
        """Collect if the rule says so.

        :param now: monotonic seconds.
        """
        heap = Heap(
            collected_s=self._collected_s,
            pause_s=self._pause_s,
            aged=gc.get_count()[-1] > 0 or _old_collections() > self._collections,
            resident_then_bytes=self._resident_then_bytes,
            resident_bytes=resident_bytes(),
            unfinished=self._unfinished(),
            gap_s=self._gap_s(),
        )
        if (reason := self._rule.reason(now, heap)) is not None:
            self._collect(reason, heap)

    def _collect(self, reason: Reason, heap: Heap) -> None:
        begun_s = time.monotonic()
        gc.unfreeze()
        found = gc.collect()  # sets what is left aside
        self._ended()
        self._pause_s = self._collected_s - begun_s
        log.debug(
            "full_collection_finished",
            reason=reason,
            seconds=round(self._pause_s, 4),
            found=found,
            unfinished=heap.unfinished,
            resident_bytes=self._resident_then_bytes,
        )

    def _ended(self) -> None:
        """Note that a full collection has ended."""
        # Python lets a quarter of what its last full collection left become old before the next,
        # which would walk them all. This one leaves nothing, because all are set aside.
        with self._unnoted():
            gc.collect()
        self._collections = _old_collections()
        self._collected_s = time.monotonic()
        self._resident_then_bytes = resident_bytes()

    @contextmanager
    def _unnoted(self) -> Iterator[None]:
        """Count no collection as a pause."""
        gc.callbacks.remove(self._pauses.note)
        try:
            yield
        finally:
            gc.callbacks.append(self._pauses.note)


def _old_collections() -> int:
    """Count the collections of the last generation, which include all the others."""
    return int(gc.get_stats()[-1]["collections"])


def _set_old_aside(phase: str, info: dict[str, Any]) -> None:
    """Let no later collection walk what a collection of all generations has left."""
    if phase == "stop" and info["generation"] == GENERATIONS - 1:
        gc.freeze()
