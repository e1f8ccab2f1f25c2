"""Prompts of about a wanted length, for servers whose tokenizer is not known here.

Pure but for the random generator that is passed in. How many tokens a word takes is learnt from two
prompts and what the server counted (`Fit`). Every prompt begins with words of its own, so that no
prefix cache finds in one prompt what it knows of another.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

SHORT_WORDS: Final = 20
LONG_WORDS: Final = 220

_OWN_WORDS: Final = 16  # at the beginning: 150 words to choose from make 115 bits
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
_TEXT: Final = tuple(islice(cycle(_WORDS), 4000))


def filler(words: int, rng: random.Random) -> str:
    """So many words, at least 1; the first of them drawn."""
    own = rng.choices(_WORDS, k=min(words, _OWN_WORDS))
    rest = max(0, words - _OWN_WORDS)
    return " ".join(own + list(islice(cycle(_TEXT), rest)))


@dataclass(frozen=True, slots=True)
class Fit:
    """Tokens of a prompt as a line in its words: what a chat template adds, and each word."""

    base: float
    per_word: float

    @classmethod
    def of(cls, short_tokens: int, long_tokens: int) -> Fit:
        """From what the server counted for prompts of `SHORT_WORDS` and `LONG_WORDS`.

        :raises ValueError: if the longer one does not have more tokens.
        """
        per_word = (long_tokens - short_tokens) / (LONG_WORDS - SHORT_WORDS)
        if per_word <= 0:
            raise ValueError(f"{short_tokens} and {long_tokens} tokens")
        return cls(short_tokens - per_word * SHORT_WORDS, per_word)

    def words(self, tokens: int) -> int:
        """How many words make about so many tokens; at least 1."""
        return max(1, round((tokens - self.base) / self.per_word))
