"""Which conversations' KV the prefix cache of the engine still holds, as far as can be told.

A conversation that goes on repeats its messages, so an engine that served an earlier turn has most
of the KV of the next. The gateway numbers each beginning of a conversation, a *prefix*, by a hash
(`gateway.policy.prefixes`). This table has the tokens of those that were whole prompts here.

The engine does not say what it evicts. So the table is bounded by the engine's memory. It is also
corrected: when the engine finds less of a prefix than the table says, the cache has lost it. The
cache evicts what was not used for longest, so it has lost all that was used before, too.

Pure; knows no engine. Tokens are those of prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_PREFIXES = 4096  # of one table


@dataclass(slots=True)
class _Held:
    tokens: int  # of the prefix
    own_tokens: int  # of these, those that no other prefix counts, and those generated after it
    used: int  # when it was used last: a number that grows


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the table said when a request began."""

    prefixes: tuple[int, ...]
    prompt_tokens: int
    held_tokens: int  # of its prompt; 0: nothing was known
    used: int  # when they were used before


class PrefixTable:
    """Prefixes by the time of their last use.

    :param capacity_tokens: that fit into the engine's KV memory.
    :param block_size: tokens that the engine caches together.
    """

    def __init__(self, capacity_tokens: int, block_size: int) -> None:
        self._capacity = capacity_tokens
        self._block = block_size
        self._held: dict[int, _Held] = {}  # the one that was not used for longest comes first
        self._tokens = 0  # of all
        self._uses = 0
        self._changes: dict[int, int] = {}

    def tokens_of(self, prefix: int) -> int:
        """Tokens of a prefix whose KV is probably held; 0 if it is not."""
        held = self._held.get(prefix)
        return 0 if held is None else held.tokens

    def began(self, prefixes: Sequence[int], prompt_tokens: int) -> Expectation | None:
        """A request is in the engine, whose prompt has these prefixes, the shortest first."""
        if not prefixes:
            return None
        known = next((prefix for prefix in reversed(prefixes) if prefix in self._held), None)
        earlier = None if known is None else self._held[known]
        held_tokens = used = 0
        if known is not None and earlier is not None:
            held_tokens, used = earlier.tokens, earlier.used
            self._use(known)
        expected = Expectation(tuple(prefixes), prompt_tokens, held_tokens, used)
        self._hold(prefixes[-1], prompt_tokens, earlier)
        return expected

    def ended(self, expected: Expectation, cached_tokens: int, output_tokens: int) -> None:
        """The request ended.

        :param cached_tokens: of its prompt, that the engine found in its cache.
        :param output_tokens: that it generated; their KV is behind the prompt's.
        """
        if cached_tokens + self._block < min(expected.held_tokens, expected.prompt_tokens):
            lost = [prefix for prefix, held in self._held.items() if held.used <= expected.used]
            for prefix in lost:
                self._forget(prefix)
        held = self._held.get(expected.prefixes[-1])
        if held is not None:
            held.own_tokens += output_tokens
            self._tokens += output_tokens
            self._make_room()

    def changes(self) -> dict[int, int]:
        """Tokens of the prefixes that have changed since the last call; 0 for what is gone."""
        changes, self._changes = self._changes, {}
        return changes

    def held(self) -> dict[int, int]:
        """Tokens of all prefixes that are held."""
        return {prefix: held.tokens for prefix, held in self._held.items()}

    def _hold(self, prefix: int, tokens: int, earlier: _Held | None) -> None:
        own_tokens = tokens if earlier is None else max(0, tokens - earlier.tokens)
        held = self._held.get(prefix)
        if held is None:
            self._held[prefix] = _Held(tokens, own_tokens, 0)
            self._tokens += own_tokens
            self._changes[prefix] = tokens
        elif held.tokens != tokens:  # as the gateway counts it: other options of the template
            held.tokens = tokens
            self._changes[prefix] = tokens
        self._use(prefix)
        self._make_room()

    def _use(self, prefix: int) -> None:
        held = self._held[prefix] = self._held.pop(prefix)
        self._uses += 1
        held.used = self._uses

    def _make_room(self) -> None:
        while len(self._held) > 1 and (
            self._tokens > self._capacity or len(self._held) > MOST_PREFIXES
        ):
            self._forget(next(iter(self._held)))

    def _forget(self, prefix: int) -> None:
        self._tokens -= self._held.pop(prefix).own_tokens
        self._changes[prefix] = 0
