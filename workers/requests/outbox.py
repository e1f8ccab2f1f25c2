"""Messages that wait to be sent to the gateway. A slow gateway gets them merged.

Decides order and merging. Pure; knows no socket. Messages leave in the order in which they were
put, with two exceptions that do not change what the gateway learns. A step is merged into the last
message if that is a step too, and only the newest heartbeat is kept. So at most one
step waits between two other messages, however much the engine produces.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import msgspec

from workers.messages import Accepted, Heartbeat, PeerMet, Rejected, Step, StepStats, TokenRun


@dataclass(slots=True)
class _PendingStep:
    runs: dict[str, TokenRun]  # by request id; a frame has one run per request
    stats: StepStats


class Outbox:
    """Messages of one connection."""

    def __init__(self) -> None:
        self.tokens = 0  # that wait to be sent
        self._items: deque[Accepted | Rejected | PeerMet | _PendingStep] = deque()
        self._heartbeat: Heartbeat | None = None
        self._sequence = 0  # of the next step

    def __bool__(self) -> bool:
        return bool(self._items) or self._heartbeat is not None

    def put(self, message: Accepted | Rejected | PeerMet) -> None:
        """Add the answer to a `Submit` or a `MeetPeer`."""
        self._items.append(message)

    def put_heartbeat(self, message: Heartbeat) -> None:
        """Replace the heartbeat; it is sent when nothing else waits."""
        self._heartbeat = message

    def put_step(self, runs: tuple[TokenRun, ...], stats: StepStats) -> None:
        """Add the output of a step. Consecutive runs of a request must have no gap between them."""
        self.tokens += sum(len(run.token_ids) for run in runs)
        last = self._items[-1] if self._items else None
        if not isinstance(last, _PendingStep):
            self._items.append(_PendingStep({run.request_id: run for run in runs}, stats))
            return
        last.stats = stats
        for run in runs:
            earlier = last.runs.get(run.request_id)
            last.runs[run.request_id] = run if earlier is None else joined(earlier, run)

    def take(self) -> Accepted | Rejected | PeerMet | Step | Heartbeat | None:
        """Remove and return the next message; None if there is none."""
        if not self._items:
            heartbeat, self._heartbeat = self._heartbeat, None
            return heartbeat
        item = self._items.popleft()
        if not isinstance(item, _PendingStep):
            return item
        runs = tuple(item.runs.values())
        self.tokens -= sum(len(run.token_ids) for run in runs)
        step = Step(sequence=self._sequence, runs=runs, stats=item.stats)
        self._sequence += 1
        return step


def joined(first: TokenRun, second: TokenRun) -> TokenRun:
    """Two consecutive runs of a request as one."""
    boundary = first.boundary
    if second.boundary is not None:
        boundary = len(first.token_ids) + second.boundary
    return msgspec.structs.replace(
        first,
        token_ids=first.token_ids + second.token_ids,
        texts=first.texts + second.texts,
        boundary=boundary,
        finish=second.finish,
    )
