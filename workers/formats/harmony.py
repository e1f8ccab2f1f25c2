"""Harmony, the format of gpt-oss: prompts through vLLM, with the tokenizer's own vocabulary.

Harmony's library loads its vocabulary from the network, unless it finds it in a folder. The
vocabulary is that of the model, so the folder can be filled from the model's tokenizer.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FOLDER_VARIABLE = "TIKTOKEN_ENCODINGS_BASE"
_FILE = "o200k_base.tiktoken"
_BASE_TOKENS = 199_998  # ordinary tokens of the vocabulary; special ones follow


def provide_vocabulary(tokenizer: Any) -> bool:
    """Write Harmony's vocabulary from the model's tokenizer, and say where it is.

    Harmony checks its content, so that a wrong one is an error when the first prompt is written.

    :return: whether there is one now: False if this tokenizer has another vocabulary.
    """
    if os.environ.get(_FOLDER_VARIABLE):
        return True
    folder = _cache()
    if (folder / _FILE).is_file():
        os.environ[_FOLDER_VARIABLE] = str(folder)
        return True
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("vocab", {})
    if not isinstance(vocabulary, dict) or len(vocabulary) < _BASE_TOKENS:
        return False
    of_sign = {sign: byte for byte, sign in _signs().items()}
    ranked = sorted((index, token) for token, index in vocabulary.items())[:_BASE_TOKENS]
    lines = (
        base64.b64encode(bytes(of_sign[sign] for sign in token)) + b" %d\n" % index
        for index, token in ranked
    )
    content = b"".join(lines)
    try:
        _write(folder, content)
    except OSError:  # a home that nobody may write to
        folder = Path(tempfile.mkdtemp(prefix="pascal-harmony-"))
        _write(folder, content)
    os.environ[_FOLDER_VARIABLE] = str(folder)
    return True


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "pascal-serve" / "harmony"


def _write(folder: Path, content: bytes) -> None:
    """Write it whole or not at all: several workers may start at once."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{_FILE}.{os.getpid()}"
    part.write_bytes(content)
    part.replace(folder / _FILE)


def _signs() -> dict[int, str]:
    """The sign that stands for each byte in the files of byte-level tokenizers."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    signs = {byte: chr(byte) for byte in shown}
    return signs | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


def prompt(messages: Sequence[Any], tools: Sequence[Mapping[str, Any]], effort: Any) -> list[int]:
    """The token ids of a conversation, up to the beginning of the assistant's turn.

    :param messages: in the form of chat completions.
    :param effort: "low", "medium" or "high"; None: the model's own.
    :raises ValueError: another effort, or messages that Harmony cannot write.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam
    from vllm.entrypoints.openai.parser.harmony_utils import (
        build_harmony_preamble,
        extract_instructions_from_messages,
        parse_chat_inputs_to_harmony_messages,
        render_for_completion,
    )

    made: Any = ChatCompletionToolsParam
    functions: Any = [made(**tool) for tool in tools] or None
    instructions, rest = extract_instructions_from_messages(list(messages))
    written = build_harmony_preamble(
        instructions=instructions,
        tools=functions,
        reasoning_effort=effort,
        with_custom_tools=functions is not None,
    )
    written.extend(parse_chat_inputs_to_harmony_messages(rest))
    return list(render_for_completion(written))
