from __future__ import annotations

import random

import pytest

from bench.load.prompt_filler import LONG_WORDS, SHORT_WORDS, Fit, filler


def test_a_filler_has_so_many_words_and_a_beginning_of_its_own() -> None:
    rng = random.Random(1)
    for words in (1, 5, 16, 17, 9000):
        assert len(filler(words, rng).split()) == words
    begins = {filler(30, rng)[:60] for _ in range(200)}
    assert len(begins) == 200


def test_words_come_from_what_the_server_counted() -> None:
    fit = Fit.of(7 + 2 * SHORT_WORDS, 7 + 2 * LONG_WORDS)  # seven of the template, two each
    assert (fit.base, fit.per_word) == (7.0, 2.0)
    assert fit.words(107) == 50
    assert fit.words(3) == 1


def test_a_server_that_counts_nothing_cannot_be_learnt_from() -> None:
    with pytest.raises(ValueError, match="5 and 5 tokens"):
        Fit.of(5, 5)
