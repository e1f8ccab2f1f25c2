"""The tokenizer: whole words for the exercises, and single bytes for all other text.

A byte-level BPE without merges. A piece of text in the vocabulary is one token (`ignore_merges`);
any other piece is split into bytes. So an unknown word is read letter by letter, as counting and
spelling need, and every input can be encoded.

- A digit is always one token, with the space before it if there is one.
- A word that ends at a quotation mark is always split into letters, even a known one.

    python -m models.tokenizer --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections import Counter
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from models.dialogue import END_OF_TEXT, END_THINK, IM_END, IM_START, THINK
from models.problems import FAMILIES, generate
from models.problems.words import WORDS

VOCAB_SIZE = 1024
SPECIAL = (END_OF_TEXT, IM_START, IM_END)
THINKING = (THINK, END_THINK)
"""Single ids, but not special: a detokenizer keeps them in the text, as it does for Qwen3."""

_SPLIT = r' ?\d| ?[A-Za-z](?=[A-Za-z]*")| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s+(?!\S)|\s+'
_SPELLED = frozenset(WORDS) - {"letter", "question", "answer"}
_PLURALS = frozenset({"problem", "number", "letter", "word", "apple", "orange"})
_SAMPLES_PER_FAMILY = 3000

CHAT_TEMPLATE = """\
{%- for message in messages %}
{%- set content = message['content'] if message['content'] is string else '' %}
{%- if message['role'] == 'assistant' and '</think>' in content %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _is_spelled(piece: str) -> bool:
    """True for the plural of a letter ("rs") or of a word that is to be spelled ("lemons")."""
    if len(piece) == 2:
        return piece.endswith("s") and piece.lower() not in ("is", "as", "us")
    return piece.endswith("s") and piece[:-1] in _SPELLED - _PLURALS


def _frequent_pieces(seed: int) -> list[str]:
    """The pieces of the exercises, most frequent first, without the words to be spelled."""
    rng, splitter = random.Random(seed), _pre_tokenizer()
    counts: Counter[str] = Counter()
    plain: set[str] = set()
    for family in FAMILIES:
        for _ in range(_SAMPLES_PER_FAMILY):
            problem = generate(family, rng, split="train")
            text = "\n".join((problem.question, *problem.thinking, "\n" + problem.answer))
            pieces = [piece for piece, _ in splitter.pre_tokenize_str(text)]
            counts.update(pieces)
            if family not in ("letters", "spelling", "chat"):
                plain.update(pieces)
    return [
        piece
        for piece, _ in counts.most_common()
        if not _is_spelled(piece.strip("Ġ"))
        and (piece in plain or piece.strip("Ġ").lower() not in _SPELLED)
    ]


def build(seed: int = 7) -> Tokenizer:
    """The tokenizer with exactly `VOCAB_SIZE` ids."""
    fixed = [*SPECIAL, *THINKING, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    fixed += [f"Ġ{c}" for c in string.ascii_lowercase + string.digits]
    vocab = {token: i for i, token in enumerate(fixed)}
    for piece in _frequent_pieces(seed):
        if len(vocab) == VOCAB_SIZE:
            break
        vocab.setdefault(piece, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in THINKING])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    tokenizer = build(args.seed)
    save(tokenizer, args.out)
    print(f"{tokenizer.get_vocab_size()} tokens in {args.out}")


if __name__ == "__main__":
    main()
