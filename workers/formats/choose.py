"""Chooses vLLM's parsers for a model: by name, by a plugin file, or "auto".

Knows vLLM's registries and the table in `workers.formats.known`. What the names mean for phases
is decided in `workers.formats.markers`.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

from vllm.config import ModelConfig
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager

from workers.formats.known import BY_VOCABULARY, KNOWN
from workers.formats.tokenizer import Tokenizer
from workers.policy.phase import THINK_END, THINK_START

AUTO, NONE = "auto", "none"
HF = "hf"


class UnknownParser(ValueError):
    """A setting names no parser; the message names the setting."""


@dataclass(frozen=True, slots=True)
class ParserNames:
    """The parsers of a model, by vLLM's names; None: it has none."""

    reasoning: str | None
    tool: str | None
    why: str  # one line for people
    plain: bool = False  # no parser reads thoughts, but ``</think>`` in the vocabulary ends them

    @property
    def line(self) -> str:
        """One line for a terminal or a log."""
        return f"reasoning {self.reasoning or NONE}, tools {self.tool or NONE} ({self.why})"


def choose(reasoning: str, tool: str, model: ModelConfig, tokenizer: Tokenizer) -> ParserNames:
    """The parsers for a model.

    :param reasoning: "auto", "none", a registered name, or a plugin: ``path.py`` or
        ``path.py:name``.
    :param tool: the same for calls of tools.
    :raises UnknownParser: a name that vLLM does not register, or a plugin that cannot be loaded.
    """
    found = _automatic(model, tokenizer)
    reasoning_name = _resolve(reasoning, "model.reasoning_parser", found.reasoning)
    tool_name = _resolve(tool, "model.tool_parser", found.tool)
    if HF in (reasoning_name, tool_name) and (reasoning_name or HF) != (tool_name or HF):
        # vLLM reads both with the template of the checkpoint, or neither.
        raise UnknownParser(
            f"model.reasoning_parser, model.tool_parser: {HF} reads thoughts and calls together, "
            f"and goes with no other parser; got {reasoning_name} and {tool_name}"
        )
    given = reasoning != AUTO, tool != AUTO
    why = "as configured" if all(given) else found.why
    plain = reasoning == AUTO and reasoning_name is None
    return ParserNames(reasoning_name, tool_name, why, plain)


def _resolve(value: str, setting: str, automatic: str | None) -> str | None:
    if value == AUTO:
        return automatic
    if value == NONE:
        return None
    manager: Any = ReasoningParserManager if "reasoning" in setting else ToolParserManager
    if value.partition(":")[0].endswith(".py"):
        return _plugin(value, setting, manager)
    registered: list[str] = manager.list_registered()
    if value not in registered:
        raise UnknownParser(
            f"{setting}: vLLM registers no parser {value!r}; it has {', '.join(registered)}"
        )
    return value


def _plugin(value: str, setting: str, manager: Any) -> str:
    path, _, name = value.partition(":")
    if not os.path.isfile(path):
        raise UnknownParser(f"{setting}: {path} is no file")
    before = set(manager.list_registered())
    load_plugin(path, setting)
    new = sorted(set(manager.list_registered()) - before) or ([name] if name in before else [])
    if name and name in manager.list_registered():
        return name
    if name or len(new) != 1:
        asked = f"no parser {name!r}" if name else f"{len(new)} parsers; name one with {path}:NAME"
        raise UnknownParser(f"{setting}: {path} registers {asked} ({', '.join(new) or 'none'})")
    (only,) = new
    return str(only)


def load_plugin(path: str, setting: str) -> None:
    """Run a plugin file, which registers its parsers.

    :raises UnknownParser: it raises; the message has the cause.
    """
    # Not vLLM's own `import_reasoning_parser`: it logs a failure and goes on.
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    assert spec is not None
    assert spec.loader is not None
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:
        raise UnknownParser(
            f"{setting}: {path} cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def _automatic(model: ModelConfig, tokenizer: Tokenizer) -> ParserNames:
    vocabulary, template = tokenizer.get_vocab(), chat_template_text(tokenizer)
    for architecture in model.architectures:
        name = architecture.partition("For")[0]
        for known in KNOWN:
            if known.fits(name, vocabulary, template):
                return ParserNames(known.reasoning, known.tool, f"by architecture {architecture}")
    if isinstance(getattr(tokenizer, "init_kwargs", {}).get("response_template"), dict):
        return ParserNames(HF, HF, "by the response template of the tokenizer")
    for known in BY_VOCABULARY:
        if known.fits("", vocabulary, template):
            usable = known.reasoning if THINK_START in vocabulary else None
            why = f"by {THINK_END} in the vocabulary" if known.token else "by the chat template"
            return ParserNames(usable, known.tool, why)
    return ParserNames(None, None, "nothing in tokenizer or template tells of thoughts or tools")


def chat_template_text(tokenizer: Any) -> str:
    """All chat templates of a tokenizer as one text; empty if it has none."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        return "\n".join(str(one) for one in template.values())
    return template if isinstance(template, str) else ""
