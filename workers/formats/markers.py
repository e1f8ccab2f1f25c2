"""Derives the markers of phases from vLLM's parsers, and how the text of the output is split.

The boundary must be a pure object that the scheduler can follow, so everything that a parser of
vLLM knows about token ids is read out of it here, once. There are three ways:

    ids       single tokens open and close thoughts and calls; text is cut at these tokens, and
              vLLM's tool parser reads the calls
    parser    vLLM's parser splits all text, because markers have several tokens, or because text
              next to them is no text for readers (names of channels, headers)
    channels  Harmony

Where ids cannot tell at all, `Markers.text_only` is set: phases then come from the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from vllm.parser import ParserManager
from vllm.parser.engine.parser_engine_config import ParserEngineConfig, ParserState
from vllm.reasoning import ReasoningParser
from vllm.tool_parsers import ToolParser

from workers.formats.choose import ParserNames, UnknownParser
from workers.formats.tokenizer import Tokenizer
from workers.policy.phase import Channels, Ids, Markers

Split: TypeAlias = Literal["ids", "parser", "channels"]

HARMONY = "openai_gptoss"
# Template options for which parsers read thoughts: some read none by default, and the markers of
# one model depend on the effort.
_THINKING = {"thinking": True, "enable_thinking": True}
_VARIANTS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "k2_horizon": tuple({"reasoning_effort": word} for word in ("high", "medium", "low")),
    "hy_v3": ({"reasoning_effort": "high"},),
}
# Only the text tells where these end: they consist of ordinary tokens, which merge with what
# stands next to them.
TEXT_ONLY = frozenset({"granite", "hf", "minimax_m3", "muse_glimmer", "olmo3"})
# Ids tell the phase, but parts of the text are markup: names of channels and of messages, tags
# around the answer, a marker of several tokens.
_MARKUP = frozenset(
    {
        "cohere_command3",
        "cohere_command4",
        "ernie45",
        "gemma4",
        "hunyuan_a13b",
        "inkling",
        "kimi_k3",
        "minicpmv",
        "minimax_m2_append_think",
        "plamo3",
    }
)
# Thoughts are part of the answer by the will of who chose this parser.
_NO_PHASES = frozenset({"minimax_m2_append_think"})
# Text that ends the turn, and that vLLM leaves in a streamed answer.
_ANSWER_ENDS: Mapping[str, tuple[str, ...]] = {"hunyuan_a13b": ("\n</answer>",)}
# Thoughts may begin again after an answer, and the parser does not say so itself.
_REOPENS = frozenset({"kimi_k3", "hunyuan_a13b"})
# What opens and closes calls for the parsers that do not say it: token texts.
_CALLS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cohere_command3": (("<|START_ACTION|>",), ("<|END_ACTION|>",)),
    "cohere_command4": (("<|START_ACTION|>",), ("<|END_ACTION|>",)),
    "deepseek_v3": (("<\uff5ctool▁calls▁begin\uff5c>",), ("<\uff5ctool▁calls▁end\uff5c>",)),
    "deepseek_v31": (("<\uff5ctool▁calls▁begin\uff5c>",), ("<\uff5ctool▁calls▁end\uff5c>",)),
    "dots": (("<dots_function_call>",), ("</dots_function_call>",)),
    "ernie45": (("<tool_call>",), ("</tool_call>",)),
    "functiongemma": (("<start_function_call>",), ("<end_function_call>",)),
    "granite-20b-fc": (("<function_call>",), ()),
    "granite4": (("<tool_call>",), ("</tool_call>",)),
    "hermes": (("<tool_call>",), ("</tool_call>",)),
    "hunyuan_a13b": (("<tool_calls>",), ("</tool_calls>",)),
    "internlm": (("<|action_start|>",), ("<|action_end|>",)),
    "jamba": (("<tool_calls>",), ("</tool_calls>",)),
    "k2_horizon": (("<ifm|tool_calls>",), ("</ifm|tool_calls>",)),
    "lfm2": (("<|tool_call_start|>",), ("<|tool_call_end|>",)),
    "longcat": (("<longcat_tool_call>",), ("</longcat_tool_call>",)),
    "poolside_v1": (("<tool_call>",), ("</tool_call>",)),
    "qwen3_json": (("<tool_call>",), ("</tool_call>",)),
    "step3": (("<\uff5ctool_calls_begin\uff5c>",), ("<\uff5ctool_calls_end\uff5c>",)),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """How the output of a model is read."""

    markers: Markers | None  # None: one phase, answering
    split: Split
    calls: Literal["ids", "text"] | None  # how calls are found; None: the model makes none
    answer_ends: tuple[str, ...] = ()  # stop strings that its format brings


def reading_of(names: ParserNames, tokenizer: Tokenizer) -> Reading:
    """Derive the markers.

    :raises UnknownParser: a parser cannot be used with this tokenizer.
    """
    vocabulary = tokenizer.get_vocab()
    if names.reasoning == HARMONY:
        return Reading(_harmony(vocabulary, tokenizer), "channels", "ids")
    found = _Found(vocabulary, tokenizer)
    if names.reasoning is None:
        plain = Markers.of_vocabulary(vocabulary) if names.plain else None
        if plain is not None:
            found.ends.update(plain.reasoning_ends)
            found.starts.update(plain.reasoning_starts)
    elif names.reasoning not in _NO_PHASES | TEXT_ONLY:
        _add_thoughts(found, names.reasoning, tokenizer)
    if names.tool is not None:
        _add_calls(found, names.tool, tokenizer)
    calls: Literal["ids", "text"] | None = None
    if names.tool is not None:
        calls = "ids" if found.calls else "text"
    thinks = names.reasoning is not None and names.reasoning not in _NO_PHASES
    if thinks and not found.ends:
        return Reading(Markers(text_only=True), "parser", calls and "text")
    by_parser = names.reasoning in _MARKUP or not found.single
    ends = _ANSWER_ENDS.get(names.reasoning or "", ())
    return Reading(found.markers(), "parser" if by_parser else "ids", calls, ends)


class _Found:
    """Markers that were found so far."""

    def __init__(self, vocabulary: Mapping[str, int], tokenizer: Tokenizer) -> None:
        self.starts: set[Ids] = set()
        self.ends: set[Ids] = set()
        self.calls: set[Ids] = set()
        self.call_ends: set[Ids] = set()
        self.reopens = False
        self.implicit = False
        self._vocabulary = vocabulary
        self._tokenizer = tokenizer

    @property
    def single(self) -> bool:
        """Whether every marker is one token."""
        every = (*self.starts, *self.ends, *self.calls, *self.call_ends)
        return all(len(ids) == 1 for ids in every)

    def markers(self) -> Markers | None:
        """All of them; None if there are none."""
        if not self.ends and not self.calls:
            return None
        return Markers(
            reasoning_starts=tuple(sorted(self.starts)),
            reasoning_ends=tuple(sorted(self.ends)),
            call_starts=tuple(sorted(self.calls)),
            call_ends=tuple(sorted(self.call_ends)),
            reopens=self.reopens and bool(self.starts),
            implicit=self.implicit and bool(self.calls),
        )

    def of_texts(self, texts: Iterable[str]) -> set[Ids]:
        """The tokens that spell markers; those that are no tokens of their own are left out."""
        return {(self._vocabulary[text],) for text in texts if text in self._vocabulary}

    def sequence(self, text: str) -> Ids:
        """The ids of a marker of one or several tokens."""
        if text in self._vocabulary:
            return (self._vocabulary[text],)
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))


def _add_thoughts(found: _Found, name: str, tokenizer: Tokenizer) -> None:
    for options in _VARIANTS.get(name, (_THINKING,)):
        parser = reasoning_parser(name, tokenizer, options)
        config = engine_config(parser)
        if config is not None:
            _add_engine(found, config, calls=True)
            continue
        if name == "hunyuan_a13b":
            _add_hunyuan(found, parser, tokenizer)
        else:
            start, end = parser.reasoning_start_str, parser.reasoning_end_str
            end = end or getattr(parser, "think_end_token", None)
            if end:
                found.ends.add(found.sequence(end))
            if start:
                found.starts.add(found.sequence(start))
        if name == "k2_horizon":
            found.calls |= found.of_texts(_CALLS[name][0])
            found.implicit = True
    found.reopens = found.reopens or name in _REOPENS


def _add_hunyuan(found: _Found, parser: Any, tokenizer: Tokenizer) -> None:
    """Hunyuan's parser holds the ids of one tokenizer; another one makes the text decide."""
    if tokenizer.encode("<think>\n", add_special_tokens=False) != parser.think_start_ids:
        return
    found.starts |= {tuple(parser.think_start_ids), tuple(parser.think_start_ids_fast)}
    # One of them ends with the other.
    found.ends.add(tuple(parser.response_start_ids_fast))


def _add_calls(found: _Found, name: str, tokenizer: Tokenizer) -> None:
    config = engine_config(tool_parser(name, tokenizer))
    if config is not None:
        _add_engine(found, config, calls=True, thoughts=False)
    opens, closes = _CALLS.get(name, ((), ()))
    found.calls |= found.of_texts(opens)
    found.call_ends |= found.of_texts(closes)


def _add_engine(
    found: _Found, config: ParserEngineConfig, *, calls: bool, thoughts: bool = True
) -> None:
    """Read the transitions of a parser of vLLM's declarative kind."""
    if thoughts:
        found.starts |= found.of_texts(_spellings(config, "THINK_START"))
    for (state, terminal), transition in config.transitions.items():
        ids = found.of_texts(_spellings(config, terminal))
        if not ids:
            continue
        match _kind(state), _kind(transition.next_state):
            case "reasoning", "answer" if thoughts:
                found.ends |= ids
            case "answer", "reasoning" if thoughts:
                found.starts |= ids
                found.reopens = True
            case ("reasoning" | "answer") as before, "call" if calls:
                found.calls |= ids
                found.implicit = found.implicit or (thoughts and before == "reasoning")
            case "call", "answer" if calls:
                found.call_ends |= ids
            case _:
                pass


def _spellings(config: ParserEngineConfig, terminal: str) -> set[str]:
    value = config.terminals.get(terminal, ())
    texts = {value} if isinstance(value, str) else set(value)
    if terminal in config.token_id_terminals:
        texts.add(config.token_id_terminals[terminal])
    return texts


def _kind(state: ParserState) -> Literal["reasoning", "answer", "call"]:
    if state is ParserState.REASONING:
        return "reasoning"
    return "call" if state.name.startswith("TOOL") else "answer"


def _harmony(vocabulary: Mapping[str, int], tokenizer: Tokenizer) -> Markers:
    def name(text: str) -> Ids:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    try:
        start, channel, message, end = (
            vocabulary[token] for token in ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")
        )
    except KeyError as error:
        raise UnknownParser(
            f"model.reasoning_parser: {HARMONY} needs {error} in the vocabulary"
        ) from error
    thoughts, answer = name("analysis"), name("final")
    channels = Channels(
        start=start,
        channel=channel,
        message=message,
        reasoning=(thoughts,),
        answering=(answer, name("commentary")),
        recipients=(name(" to=functions"), name("to=functions")),
    )
    return Markers(
        channels=channels,
        # A prompt ends with the start of a message of the assistant.
        opening=(channel, *thoughts, message),
        closing=(end, start, *name("assistant"), channel, *answer, message),
    )


def reasoning_parser(
    name: str, tokenizer: Tokenizer, options: Mapping[str, Any]
) -> ReasoningParser:
    """vLLM's parser of thoughts; :raises UnknownParser: it does not go with the tokenizer."""
    made: Any = ParserManager.get_reasoning_parser(name)
    return _made("model.reasoning_parser", name, made, tokenizer, dict(options))


def tool_parser(name: str, tokenizer: Tokenizer) -> ToolParser:
    """vLLM's parser of calls; :raises UnknownParser: it does not go with the tokenizer."""
    made: Any = ParserManager.get_tool_parser(name, enable_auto_tools=True)
    return _made("model.tool_parser", name, made, tokenizer, None)


def _made(
    setting: str, name: str, made: Any, tokenizer: Tokenizer, options: dict[str, Any] | None
) -> Any:
    try:
        if options is None:
            return made(tokenizer)
        return made(tokenizer, chat_template_kwargs=options)
    except Exception as error:
        raise UnknownParser(
            f"{setting}: {name} cannot be used with this tokenizer: {error}"
        ) from error


def engine_config(parser: Any) -> ParserEngineConfig | None:
    """The table of a parser of vLLM's declarative kind; None: it is code."""
    engine = getattr(parser, "_parser_engine", None)
    return None if engine is None else engine.parser_engine_config
