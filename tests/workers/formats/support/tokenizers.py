"""Small tokenizers that contain the markers of a format, built on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.tokenizers.hf import get_cached_tokenizer


def tokenizer_with(
    markers: Sequence[str], special: Sequence[str] = ("<eos>",), words: Sequence[str] = ()
) -> Any:
    """A tokenizer of bytes, in which each marker is one token.

    :param special: tokens that are no text.
    :param words: ordinary tokens of several bytes, in the spelling of byte-level tokenizers.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: index for index, sign in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    return _tokenizer(vocabulary, merges, markers, special)


def tokenizer_of_hunyuan() -> Any:
    """A tokenizer that has, of Hunyuan's, the ids that vLLM's parser holds for its markers.

    The other ids are of no model.
    """
    signs = [chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))]
    signs += [chr(256 + index) for index in range(256 - len(signs))]
    vocabulary = {sign: index for index, sign in enumerate(signs)}
    ids = {"</": 524, "ink": 771, "<th": 14023, "think": 27963, "answer": 9399}
    ids |= {">\u010a": 397, ">\u010a\u010a": 1363}  # with ends of lines
    pairs = "< / | i n | in k | < t | <t h | t h | th ink | > \u010a | >\u010a \u010a"
    pairs += " | a n | an s | ans w | answ e | answe r"
    merges = []
    for first, second in (pair.split() for pair in pairs.split(" | ")):
        merges.append((first, second))
        vocabulary[first + second] = ids.get(first + second, 30_000 + len(vocabulary))
    return _tokenizer(vocabulary, merges, (), ("<eos>",))


def _tokenizer(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    markers: Sequence[str],
    special: Sequence[str],
) -> Any:
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(text, normalized=False) for text in markers])
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return get_cached_tokenizer(PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>"))
