"""The parts of a model's tokenizer that the worker uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Backend(Protocol):
    """The part of `tokenizers.Tokenizer` that is used here."""

    def encode_batch(self, input: list[str], *, add_special_tokens: bool) -> list[Any]:
        """Texts to encodings, which have ``ids``."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Token ids to text."""


class Tokenizer(Protocol):
    """The part of a tokenizer of vLLM that is used here.

    Fast tokenizers of transformers have ``backend_tokenizer`` and ``chat_template`` in addition.
    """

    @property
    def all_special_ids(self) -> list[int]:
        """Tokens that are no text."""

    def get_vocab(self) -> dict[str, int]:
        """Token ids by token."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Text to token ids."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Token ids to text."""
