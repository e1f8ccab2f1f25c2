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
    """The part of a fast tokenizer of transformers that is used here."""

    chat_template: Any

    @property
    def backend_tokenizer(self) -> Backend:
        """The tokenizer proper."""

    def get_vocab(self) -> dict[str, int]:
        """Token ids by token."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """The conversation as text, with ``tokenize=False``."""
