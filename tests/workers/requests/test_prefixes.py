"""Which conversations' KV an engine holds, as far as its worker can tell."""

from __future__ import annotations

import random

from workers.requests.prefixes import MOST_PREFIXES, PrefixTable

BLOCK = 16


class Cache:
    """A prefix cache that evicts what was not used for longest, the ends of conversations first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.tokens: dict[int, int] = {}  # by conversation, in the order of their last use

    def serve(self, conversation: int, prompt_tokens: int, output_tokens: int) -> int:
        """Compute a turn; return the tokens that were cached before."""
        cached = min(self.tokens.pop(conversation, 0), prompt_tokens)
        self.tokens[conversation] = prompt_tokens + output_tokens
        while (above := sum(self.tokens.values()) - self.capacity) > 0:
            oldest = next(iter(self.tokens))
            self.tokens[oldest] -= min(above, self.tokens[oldest])
            if not self.tokens[oldest]:
                del self.tokens[oldest]
        return cached


def serve(
    table: PrefixTable, prefixes: tuple[int, ...], prompt: int, cached: int, output: int = 0
) -> None:
    expected = table.began(prefixes, prompt)
    assert expected is not None
    table.ended(expected, cached, output)


def test_a_conversation_is_known_by_its_longest_prompt_so_far() -> None:
    table = PrefixTable(1000, BLOCK)
    serve(table, (1,), 100, 0)
    serve(table, (1, 2, 3), 180, 100)
    assert (table.tokens_of(1), table.tokens_of(2), table.tokens_of(3)) == (100, 0, 180)
    assert table.changes() == {1: 100, 3: 180}
    assert table.changes() == {}
    assert table.held() == {1: 100, 3: 180}


def test_it_holds_no_more_than_the_engines_memory_shared_parts_once() -> None:
    table = PrefixTable(300, BLOCK)
    serve(table, (1,), 100, 0, 20)
    serve(table, (1, 2), 150, 100)
    serve(table, (1, 3), 150, 100)  # 100 tokens are shared: 220 in all
    serve(table, (4,), 80, 0)
    assert [table.tokens_of(prefix) for prefix in (1, 2, 3, 4)] == [100, 150, 150, 80]
    serve(table, (5,), 40, 0)
    assert [table.tokens_of(prefix) for prefix in (1, 2, 3, 4, 5)] == [100, 0, 150, 80, 40]
    assert table.changes()[2] == 0
    serve(table, (6,), 4000, 0)  # more than the memory: it alone is kept
    assert table.changes() == {1: 0, 3: 0, 4: 0, 5: 0, 6: 4000}


def test_what_was_used_before_something_lost_is_lost_too() -> None:
    table = PrefixTable(10_000, BLOCK)
    for conversation in (1, 2, 3):
        serve(table, (conversation,), 100, 0)
    serve(table, (2, 20), 150, 100 - BLOCK)  # all that is cached in whole blocks
    assert table.tokens_of(1) == 100
    serve(table, (3, 30), 150, 0)  # 3 is lost, so 1 is too; 2 was used since
    assert [table.tokens_of(prefix) for prefix in (1, 2, 3)] == [0, 100, 100]
    assert (table.tokens_of(20), table.tokens_of(30)) == (150, 150)


def test_it_has_a_bound_of_its_own() -> None:
    table = PrefixTable(10**9, BLOCK)
    for prefix in range(MOST_PREFIXES + 5):
        serve(table, (prefix,), 1, 0)
    assert (table.tokens_of(4), table.tokens_of(5)) == (0, 1)
    assert table.began((), 10) is None  # a gateway that sends none


def test_it_is_nearly_always_right_about_a_cache_that_evicts_the_oldest() -> None:
    rng = random.Random(7)
    # The memory that the table believes in, that of the cache, and how often it is right at least.
    for believed, real, least in ((4000, 4000, 0.9), (8000, 4000, 0.6)):
        cache, table = Cache(real), PrefixTable(believed, BLOCK)
        turns: dict[int, list[int]] = {}
        said = right = hits = 0
        for _ in range(3000):
            conversation = min(int(rng.expovariate(0.1)), 60)
            lengths = turns.setdefault(conversation, [])
            prompt = (lengths[-1] if lengths else 0) + rng.randrange(40, 120)
            if prompt > 900:
                lengths.clear()  # begins anew, as another conversation
                prompt = rng.randrange(40, 120)
            lengths.append(prompt)
            name = 1000 * conversation
            prefixes = tuple(hash((name, *lengths[:end])) for end in range(1, len(lengths) + 1))
            held = next((t for p in reversed(prefixes) if (t := table.tokens_of(p))), 0)
            output = rng.randrange(10, 40)
            cached = cache.serve(conversation, prompt, output) if len(lengths) > 1 else 0
            if len(lengths) == 1:
                cache.serve(conversation, prompt, output)
            said += held > 0
            right += held > 0 and cached + BLOCK >= held
            hits += cached > 0
            serve(table, prefixes, prompt, cached, output)
        assert said > 0.9 * hits
        assert right > least * said
