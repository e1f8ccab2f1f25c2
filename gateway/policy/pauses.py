"""Conversations between two turns: what they will bring back to the instance that has their KV.

While a user reads or a tool runs, the conversation is no request of any instance. Its next turn
returns to its KV, though. Placement that looked at requests alone would fill an instance with
conversations that happen to pause at the same time.

A paused conversation counts for `PAUSE_S` after its turn, with its tokens times a share: how many
of the last pauses ended with another turn within that time. There is one share for conversations
with a single turn so far, and one for those with more. So where nobody asks a second question,
pauses do not count.

Pure: must not know clocks. ``now`` is in seconds, on one clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PAUSE_S = 60.0  # most people have answered by then, and most tools
_MOST = 16_384  # conversations that are remembered
_MEMORY = 0.99  # weight of a pause, relative to the next one; so about the last 100 count


@dataclass(slots=True)
class _Turn:
    """The last turn of a conversation."""

    later: bool  # it is not the first one
    instance_id: str = ""  # where it ended
    tokens: int = 0
    until_s: float | None = None  # the end of `PAUSE_S`; None: the turn has not ended


@dataclass(slots=True)
class _Kind:
    """The pauses after first turns, or those after later turns."""

    back: float = 0.0  # pauses that ended with another turn, the latest with a weight of 1
    gone: float = 0.0  # pauses that did not
    tokens: Counter[str] = field(default_factory=Counter)  # of those under way, by instance

    def note(self, *, back: bool) -> None:
        """A pause is over, or has lasted for `PAUSE_S`."""
        self.back, self.gone = _MEMORY * self.back + back, _MEMORY * self.gone + (not back)

    @property
    def share(self) -> float:
        """How many of the last pauses ended with another turn; 0 if nothing is known."""
        return self.back / (self.back + self.gone) if self.back else 0.0


class Pauses:
    """The conversations of one cluster. They are known by the hash of their last prompt.

    :param most: conversations that are remembered; the one that is oldest is forgotten first.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._turns: dict[int, _Turn] = {}
        self._paused: dict[int, _Turn] = {}  # by the ends of their pauses
        self._first, self._later = _Kind(), _Kind()

    def began(self, prefixes: Sequence[int], now: float) -> None:
        """A turn is about to be placed, perhaps not for the first time.

        :param prefixes: of its prompt, the shortest first; see `gateway.policy.prefixes`.
        """
        if not prefixes:
            return
        self._end_pauses(now)
        known = next((prefix for prefix in reversed(prefixes) if prefix in self._turns), None)
        later = False
        if known is not None:
            earlier = self._turns.pop(known)
            later = earlier.later or earlier.until_s is not None
            if self._stop_counting(known):
                self._kind(earlier).note(back=True)
        self._turns[prefixes[-1]] = _Turn(later)
        if len(self._turns) > self._most:
            oldest = next(iter(self._turns))
            self._stop_counting(oldest)
            del self._turns[oldest]

    def ended(self, prefixes: Sequence[int], instance_id: str, tokens: int, now: float) -> None:
        """A turn has ended on an instance.

        :param tokens: of its prompt and its output.
        """
        turn = self._turns.get(prefixes[-1]) if prefixes else None
        if turn is None:
            return
        self._stop_counting(prefixes[-1])
        turn.instance_id, turn.tokens, turn.until_s = instance_id, tokens, now + PAUSE_S
        self._paused[prefixes[-1]] = turn
        self._kind(turn).tokens[instance_id] += tokens

    def tokens(self, now: float) -> Mapping[str, int]:
        """Tokens that are expected back, by instance; those without any may be missing."""
        self._end_pauses(now)
        expected: Counter[str] = Counter()
        for kind in (self._first, self._later):
            if share := kind.share:
                expected.update({name: int(share * of) for name, of in kind.tokens.items()})
        return expected

    def lose(self, instance_id: str) -> None:
        """An instance is gone, and its KV with it."""
        for prefix in [p for p, turn in self._paused.items() if turn.instance_id == instance_id]:
            self._stop_counting(prefix)
        for kind in (self._first, self._later):
            del kind.tokens[instance_id]

    def _end_pauses(self, now: float) -> None:
        """End those that have lasted for `PAUSE_S`."""
        while self._paused:
            prefix, turn = next(iter(self._paused.items()))
            if turn.until_s is None or turn.until_s > now:
                break
            self._stop_counting(prefix)
            self._kind(turn).note(back=False)

    def _stop_counting(self, prefix: int) -> bool:
        """Whether it counted."""
        turn = self._paused.pop(prefix, None)
        if turn is not None:
            self._kind(turn).tokens[turn.instance_id] -= turn.tokens
        return turn is not None

    def _kind(self, turn: _Turn) -> _Kind:
        return self._later if turn.later else self._first
