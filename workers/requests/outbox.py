"""Messages that wait to be sent to the gateway. A slow gateway gets them merged.

Decides order and merging. Pure; knows no socket. Messages leave in the order in which they were
put, with exceptions that do not change what the gateway learns. A step is merged into the last
message if that is a step too, only the newest heartbeat and loads are kept, and changes of prefixes
are merged. So at most one step waits between two other messages, however much the engine produces.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from workers.messages import (
    Accepted,
    Counted,
    Detokenized,
    Heartbeat,
    OtherLoads,
    PeerMet,
    PolicySet,
    Prefixes,
    Rejected,
    Step,
    StepStats,
    TokenRun,
)

Reply: TypeAlias = Accepted | Counted | Detokenized | Rejected | PeerMet | PolicySet


@dataclass(slots=True)
class _PendingStep:
    # By request id. A frame has one run per request, if they can be joined.
    runs: dict[str, list[TokenRun]]
    stats: StepStats


class Outbox:
    """Messages of one connection."""

    def __init__(self) -> None:
        self.tokens = 0  # that wait to be sent
        self._items: deque[Reply | _PendingStep] = deque()
        self._heartbeat: Heartbeat | None = None
        self._loads: OtherLoads | None = None
        self._prefixes: dict[int, int] = {}  # of the next `Prefixes`
        self._sequence = 0  # of the next step

    def __bool__(self) -> bool:
        latest = self._heartbeat or self._loads
        return bool(self._items or self._prefixes) or latest is not None

    def put(self, message: Reply) -> None:
        """Add the answer to a message of the gateway."""
        self._items.append(message)

    def put_heartbeat(self, message: Heartbeat) -> None:
        """Replace the heartbeat; it is sent when nothing else waits."""
        self._heartbeat = message

    def put_loads(self, message: OtherLoads) -> None:
        """Replace what the other gateways have; it is sent when no answer and no step waits."""
        self._loads = message

    def put_prefixes(self, tokens: dict[int, int]) -> None:
        """Add changes of the prefixes that are held; they are sent when nothing else waits."""
        self._prefixes |= tokens

    def put_step(self, runs: tuple[TokenRun, ...], stats: StepStats) -> None:
        """Add the output of a step. Consecutive runs of a request must have no gap between them."""
        self.tokens += sum(len(run.token_ids) for run in runs)
        last = self._items[-1] if self._items else None
        if not isinstance(last, _PendingStep):
            self._items.append(_PendingStep({run.request_id: [run] for run in runs}, stats))
            return
        last.stats = stats
        for run in runs:
            earlier = last.runs.setdefault(run.request_id, [])
            if earlier and can_join(earlier[-1], run):
                earlier[-1] = joined(earlier[-1], run)
            else:
                earlier.append(run)

    def take(self) -> Reply | Step | OtherLoads | Prefixes | Heartbeat | None:
        """Remove and return the next message; None if there is none."""
        if not self._items and self._loads is not None:
            loads, self._loads = self._loads, None
            return loads
        if not self._items and self._prefixes:
            tokens, self._prefixes = self._prefixes, {}
            return Prefixes(tokens=tokens)
        if not self._items:
            heartbeat, self._heartbeat = self._heartbeat, None
            return heartbeat
        item = self._items.popleft()
        if not isinstance(item, _PendingStep):
            return item
        runs = tuple(run for of_request in item.runs.values() for run in of_request)
        self.tokens -= sum(len(run.token_ids) for run in runs)
        step = Step(sequence=self._sequence, runs=runs, stats=item.stats)
        self._sequence += 1
        return step


def can_join(first: TokenRun, second: TokenRun) -> bool:
    """Whether two consecutive runs of a request can be one run.

    Texts belong to the phases of their tokens, and pieces say what they belong to. So these two do
    not join.
    """
    return (first.pieces is None) == (second.pieces is None)


def joined(first: TokenRun, second: TokenRun) -> TokenRun:
    """Two consecutive runs of a request as one."""
    before = len(first.token_ids)
    pieces = None
    if first.pieces is not None and second.pieces is not None:
        moved = (msgspec.structs.replace(piece, at=before + piece.at) for piece in second.pieces)
        pieces = (*first.pieces, *moved)
    turns = (msgspec.structs.replace(turn, at=before + turn.at) for turn in second.turns)
    return msgspec.structs.replace(
        first,
        token_ids=first.token_ids + second.token_ids,
        texts=first.texts + second.texts,
        turns=(*first.turns, *turns),
        pieces=pieces,
        logprobs=first.logprobs + second.logprobs,
        finish=second.finish,
    )
