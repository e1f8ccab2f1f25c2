"""The tokenizer: whole words for the exercises, and single bytes for all other text.

A byte-level BPE without merges. A piece of text in the vocabulary is one token (`ignore_merges`);
any other piece is split into bytes. So an unknown word is read letter by letter, as counting and
spelling need, and every input can be encoded.

- A digit is always one token, with the space before it if there is one.
- A word that ends at a quotation mark is always split into letters, even a known one, except
  between the quotation marks of JSON.
- What every tool definition and every call repeats (`", "description": "`) is one token, so that a
  definition is short.

    python -m models.tokenizer --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
from collections import Counter
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from models.conversation import draw_tool_talk
from models.dialogue import END_OF_TEXT, END_THINK, IM_END, IM_START, THINK
from models.problems import FAMILIES, generate
from models.problems.words import WORDS
from models.tools.schema import (
    END_TOOL_CALL,
    END_TOOL_RESPONSE,
    HEAD,
    TAIL,
    TOOL_CALL,
    TOOL_RESPONSE,
)

BASE = Path(__file__).parent / "tiny-reasoner" / "tokenizer.json"
BASE_SIZE, VOCAB_SIZE = 1024, 1280
SPECIAL = (END_OF_TEXT, IM_START, IM_END)
THINKING = (THINK, END_THINK)
CALLING = (TOOL_CALL, END_TOOL_CALL, TOOL_RESPONSE, END_TOOL_RESPONSE)
"""Single ids, but not special: a detokenizer keeps them in the text, as it does for Qwen3."""

JSON_PIECES = (
    HEAD,
    *(piece for piece in re.split("</?tool_call>", TAIL) if len(piece) > 1),
    '{"type": "function", "function": {"name": "',
    '", "description": "',
    '", "parameters": {"type": "object", "properties": {"',
    '", "parameters": {"type": "object", "properties": {',
    '": {"type": "string", "description": "',
    '": {"type": "number", "description": "',
    '": {"type": "integer", "description": "',
    '": {"type": "string"}, "',
    '": {"type": "number"}, "',
    '": {"type": "integer"}, "',
    '": {"type": "string"}}, "required": ["',
    '": {"type": "number"}}, "required": ["',
    '": {"type": "integer"}}, "required": ["',
    '"}}, "required": ["',
    '"}}, "required": []}}}',
    '": {"type": "',
    '"}, "',
    '"]}}}',
    '}, "required": []}}}',
    '{"name": "',
    '", "arguments": {"',
    '", "arguments": {}}',
    '", "parameters": {"',
    '": "',
    '", "',
    '":',
    ', "',
    '"}}',
    '"}',
    '"]',
    '{"',
)
"""Text that tool definitions, calls and results repeat; the longest that fits is one token."""

_LITERAL = "|".join(map(re.escape, sorted(JSON_PIECES, key=len, reverse=True)))
_JSON_QUOTE = r'"(?:, "|:|\}|\])'
_WORD_SPLIT = (
    r' ?\d| ?[A-Za-z](?=[A-Za-z]*"(?!, "|:|\}|\]))| ?[A-Za-z]+'
    rf"| ?(?:(?!{_JSON_QUOTE})[^\sA-Za-z\d])+|\s+(?!\S)|\s+"
)
_SPLIT = f"{_LITERAL}|{_WORD_SPLIT}"
_SPELLED = frozenset(WORDS) - {"letter", "question", "answer"}
_PLURALS = frozenset({"problem", "number", "letter", "word", "apple", "orange"})
_SAMPLES_PER_FAMILY = 3000
_TALKS, _TALKS_OF_A_PIECE = 4000, 20

CHAT_TEMPLATE = """\
{%- set simple = ('string', 'number', 'integer', 'boolean') %}
{%- macro property(schema) %}
{%- if schema is mapping and schema.type is string and schema.type in simple %}
{{- '{"type": ' + (schema.type | tojson) }}
{{- (', "description": ' + (schema.description | tojson)) if schema.description else '' }}
{{- (', "enum": ' + (schema.enum | tojson)) if schema.enum else '' }}
{{- '}' }}
{%- else %}
{{- schema | tojson }}
{%- endif %}
{%- endmacro %}
{%- macro tool_line(function) %}
{{- '{"type": "function", "function": {"name": ' + (function.name | tojson) }}
{{- ', "description": ' + ((function.description or '') | tojson) + ', "parameters": ' }}
{%- set schema = function.parameters or {} %}
{%- if schema is mapping and schema.properties is mapping and '$defs' not in schema %}
{{- '{"type": "object", "properties": {' }}
{%- for name, value in schema.properties.items() %}
{{- ('' if loop.first else ', ') + (name | tojson) + ': ' + property(value) }}
{%- endfor %}
{{- '}, "required": ' + ((schema.required or []) | tojson) + '}' }}
{%- else %}
{{- schema | tojson }}
{%- endif %}
{{- '}}' }}
{%- endmacro %}
{%- set ns = namespace(last_query=-1) %}
{%- for message in messages %}
{%- if message['role'] == 'user' %}
{%- set ns.last_query = loop.index0 %}
{%- endif %}
{%- endfor %}
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages and messages[0]['role'] == 'system' and messages[0]['content'] is string %}
{{- messages[0]['content'] + '\\n\\n' if messages[0]['content'] else '' }}
{%- endif %}
{{- '%(head)s' }}
{%- for tool in tools %}
{{- '\\n' + tool_line(tool.function if tool.function else tool) }}
{%- endfor %}
{{- '%(tail)s<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- set content = message['content'] if message['content'] is string else '' %}
{%- set thoughts = message['reasoning'] or message['reasoning_content'] or '' %}
{%- if message['role'] == 'assistant' and '</think>' in content %}
{%- if not thoughts %}
{%- set thoughts = content.split('</think>')[0].split('<think>')[-1] %}
{%- endif %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{%- if tools and loop.first and message['role'] == 'system' %}
{%- elif message['role'] == 'assistant' and message['tool_calls'] %}
{{- '<|im_start|>assistant\\n' }}
{%- if thoughts and loop.index0 > ns.last_query %}
{{- '<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' }}
{%- endif %}
{{- content }}
{%- for call in message['tool_calls'] %}
{%- set function = call.function if call.function else call %}
{%- if content or not loop.first %}
{{- '\\n' }}
{%- endif %}
{{- '<tool_call>\\n{"name": ' + (function.name | tojson) + ', "arguments": ' }}
{%- if function.arguments is string %}
{{- function.arguments }}
{%- else %}
{{- (function.arguments or {}) | tojson }}
{%- endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message['role'] == 'tool' %}
{%- if loop.first or loop.previtem['role'] != 'tool' %}
{{- '<|im_start|>user' }}
{%- endif %}
{{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
{%- if loop.last or loop.nextitem['role'] != 'tool' %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- else %}
{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}""".replace("%(head)s", HEAD.replace("\n", "\\n")).replace(
    "%(tail)s", TAIL.replace("\n", "\\n")
)


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


def _tool_pieces(seed: int) -> list[str]:
    """The pieces of conversations with tools, most frequent first; the rare ones are left out."""
    rng, splitter = random.Random(seed), _pre_tokenizer()
    counts: Counter[str] = Counter()
    talks: Counter[str] = Counter()
    tags = re.compile("|".join(map(re.escape, (*SPECIAL, *THINKING, *CALLING))))
    for _ in range(_TALKS):
        found: Counter[str] = Counter()
        for segment in draw_tool_talk(rng, 2).segments:
            for text in tags.split(segment.text):
                found.update(piece for piece, _ in splitter.pre_tokenize_str(text))
        counts.update(found)
        talks.update(dict.fromkeys(found, 1))
    return [
        piece
        for piece, _ in counts.most_common()
        if talks[piece] >= _TALKS_OF_A_PIECE
        and piece.strip("Ċ")
        and not _is_spelled(piece.strip("Ġ"))
        and piece.strip("Ġ").lower() not in _SPELLED
    ]


def _words(seed: int) -> list[str]:
    """The first `BASE_SIZE` entries, those of the exercises."""
    fixed = [*SPECIAL, *THINKING, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    fixed += [f"Ġ{c}" for c in string.ascii_lowercase + string.digits]
    return list(dict.fromkeys((*fixed, *_frequent_pieces(seed))))[:BASE_SIZE]


def build(seed: int = 7, base: Path | None = BASE) -> Tokenizer:
    """The tokenizer with exactly `VOCAB_SIZE` ids.

    The first are those of the tokenizer in `base`, so that weights trained with it can be trained
    further; without a base they are counted anew.
    """
    if base:
        known = Tokenizer.from_file(str(base)).get_vocab()
        first = sorted(known, key=lambda piece: known[piece])
    else:
        first = _words(seed)
    vocab = {token: i for i, token in enumerate(dict.fromkeys((*first, *CALLING)))}
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in JSON_PIECES:
        ((piece, _),) = byte_level.pre_tokenize_str(text)
        vocab.setdefault(piece, len(vocab))
    for piece in _tool_pieces(seed) if len(vocab) < VOCAB_SIZE else ():
        if len(vocab) == VOCAB_SIZE:
            break
        vocab.setdefault(piece, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    kept = (*THINKING, *CALLING)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in kept])
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
