"""Prompts of about a given length, for servers whose tokenizer is unknown.

`Fit` derives the tokens per word from two prompts and the counts that the server reported for them.
Every prompt begins with random words, so that no two prompts share a prefix in a cache. Pure,
except for the random generator that is passed in.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

_OWN_WORDS: Final = 16  # random ones at the beginning: 115 bits, from a choice of 150 words
_WORDS: Final = (
    "the of and to in is that it was for on are as with his they at be this from have or by one "
    "had not but what all were when we there can an your which their said if do will each about "
    "how up out them then she many some so these would other into has more her two like him see "
    "time could no make than first been its who now people my made over did down only way find "
    "use may water long little very after words called just where most know get through back much "
    "before go good new write our used me man too any day same right look think also around "
    "another came come work three word must because does part even place well such here take why "
    "things help put years different away again off went old number"
).split()
# The longer probe has each word twice more, so that the difference is that of an average word.
SHORT_WORDS: Final = 20
LONG_WORDS: Final = SHORT_WORDS + 2 * len(_WORDS)


def filler(words: int, rng: random.Random) -> str:
    """A text of that many words, at least 1; the first words are drawn."""
    beginning = rng.choices(_WORDS, k=min(words, _OWN_WORDS))
    first, rest = rng.randrange(len(_WORDS)), max(0, words - _OWN_WORDS)
    return " ".join(beginning + list(islice(cycle(_WORDS), first, first + rest)))


@dataclass(frozen=True, slots=True)
class Fit:
    """Tokens of a prompt, linear in its words: ``base`` is what the chat template adds."""

    base: float
    per_word: float

    @classmethod
    def of(cls, short_tokens: int, long_tokens: int) -> Fit:
        """Fit the counts that the server reported for prompts of `SHORT_WORDS` and `LONG_WORDS`.

        :raises ValueError: if the longer one does not have more tokens.
        """
        per_word = (long_tokens - short_tokens) / (LONG_WORDS - SHORT_WORDS)
        if per_word <= 0:
            raise ValueError(f"{short_tokens} and {long_tokens} tokens")
        return cls(short_tokens - per_word * SHORT_WORDS, per_word)

    def words(self, tokens: int) -> int:
        """The number of words that make about ``tokens`` tokens; at least 1."""
        return max(1, round((tokens - self.base) / self.per_word))
