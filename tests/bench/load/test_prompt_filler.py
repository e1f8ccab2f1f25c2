from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import models
from bench.load.prompt_filler import LONG_WORDS, SHORT_WORDS, Fit, filler

MODEL = Path(models.__file__).parent / "tiny-reasoner"


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


def test_texts_have_about_so_many_tokens() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))

    def tokens(words: int, rng: random.Random) -> int:
        return len(tokenizer.encode(filler(words, rng)).ids)

    fit = Fit.of(*(tokens(words, random.Random(0)) for words in (SHORT_WORDS, LONG_WORDS)))
    rng = random.Random(3)
    for wanted in (400, 1000, 4000, 30_000):
        assert tokens(fit.words(wanted), rng) == pytest.approx(wanted, rel=0.01, abs=25)


def test_a_server_that_counts_nothing_cannot_be_learnt_from() -> None:
    with pytest.raises(ValueError, match="5 and 5 tokens"):
        Fit.of(5, 5)
