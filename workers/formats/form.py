"""The format of one model: its parsers, markers, abilities, and what a request needs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from vllm.config import ModelConfig, VllmConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.exceptions import VLLMValidationError
from vllm.parser import Parser, ParserManager
from vllm.sampling_params import StructuredOutputsParams

from workers.errors import RequestRejected
from workers.formats.choose import ParserNames, UnknownParser, choose
from workers.formats.control import Control, FormatFacts, budgets_of, control_of, facts_of
from workers.formats.markers import Reading, engine_config, reading_of
from workers.formats.template import Template, as_message
from workers.formats.tokenizer import Tokenizer
from workers.formats.tools import check_conversation, check_tools
from workers.messages import ChatMessage, Structure, Submit
from workers.policy.phase import Markers
from workers.settings import WorkerSettings

_log = structlog.get_logger()

# Thoughts that clients send back, where the template itself does not decide what becomes of them.
_DROPS_THOUGHTS = frozenset({"deepseek_r1"})  # they would mislead the model
_SPLITS_THOUGHTS = frozenset({"gemma4"})  # kept between calls, dropped when the user speaks


@dataclass(frozen=True, slots=True)
class Chosen:
    """The parsers of a model and what follows from them for scheduler and stream."""

    names: ParserNames
    reading: Reading


def chosen_for(settings: WorkerSettings, model: ModelConfig, tokenizer: Tokenizer) -> Chosen:
    """Choose the parsers.

    One that was chosen by "auto" and does not go with the tokenizer is left out, with a warning.

    :raises UnknownParser: a configured one does not exist, or does not go with the tokenizer.
    """
    names = choose(settings.reasoning_parser, settings.tool_parser, model, tokenizer)
    try:
        return Chosen(names, reading_of(names, tokenizer))
    except UnknownParser as error:
        configured = settings.reasoning_parser != "auto", settings.tool_parser != "auto"
        if any(configured):
            raise
        _log.warning("parsers_unusable", reason=str(error), parsers=names.line)
        why = "the parsers of its architecture do not fit its tokenizer"
        none = ParserNames(None, None, why, plain=True)
        return Chosen(none, reading_of(none, tokenizer))


@dataclass(frozen=True, slots=True)
class Request:
    """What the format says about one request."""

    control: Control
    messages: tuple[ChatMessage, ...]  # as the template gets them
    tools: tuple[dict[str, Any], ...]  # as the template gets them
    markers: Markers | None  # without those of calls, if it may make none
    structure: Structure | None  # what the output must look like; of tools or of the request
    forced: str | None  # the answer is nothing but calls in JSON: the tool's name, or ""
    calls: bool  # whether calls in the output are read
    wire: ChatCompletionRequest  # for vLLM's parsers
    parser_options: Mapping[str, Any] = field(default_factory=dict)


class Format:
    """How one model writes."""

    def __init__(self, chosen: Chosen, template: Template, budgets: Mapping[str, int]) -> None:
        """:param budgets: reasoning tokens by word of effort; see `control_of`."""
        self.names, self.reading = chosen.names, chosen.reading
        self.template = template
        self.tokenizer = template.tokenizer
        self._budgets = budgets
        self._model = template.model
        # Tokens that end an output; vLLM's parsers get them without their text.
        self.ending = _ending(template.model, self.tokenizer)
        self.parser_class: type[Parser] | None = ParserManager.get_parser(
            tool_parser_name=self.names.tool,
            reasoning_parser_name=self.names.reasoning,
            enable_auto_tools=True,
            is_harmony=template.harmony,
        )
        markers = self.reading.markers
        self.facts: FormatFacts = facts_of(
            template,
            thinks=markers is not None and markers.thinks,
            calls=self.reading.calls is not None,
            budget=markers is not None and bool(markers.closing_ids),
        )

    @classmethod
    def of(cls, settings: WorkerSettings, config: VllmConfig) -> Format:
        """The format of the model that an engine is configured for.

        :raises UnknownParser: a setting names a parser that cannot be used.
        :raises WorkerError: the model has no chat template.
        """
        template = Template(config)
        chosen = chosen_for(settings, config.model_config, template.tokenizer)
        return cls(chosen, template, budgets_of(settings.thinking_budgets))

    def request(self, submit: Submit) -> Request:
        """Check a request and translate it.

        :raises RequestRejected: naming the field that the model cannot serve, or that is wrong.
        """
        check_tools(submit.tools, submit.tool_choice)
        check_conversation(submit.messages)
        if submit.tools and not self.facts.tools:
            raise RequestRejected(
                "unsupported_value", "the model's chat template knows no tools", "tools"
            )
        control = control_of(submit, self.facts, self._budgets)
        calls = bool(submit.tools) and submit.tool_choice.mode != "none"
        wire = self._wire(submit, control, calls=calls)
        structure, forced = submit.structure, None
        if calls:
            structure, forced = self._constrained(submit, wire, control)
        markers = self.reading.markers
        if markers is not None and not calls:
            markers = markers.without_calls
        return Request(
            control=control,
            messages=self._with_thoughts(submit.messages),
            tools=submit.tools if calls else (),
            markers=markers,
            structure=structure,
            forced=forced,
            calls=calls,
            wire=wire,
            parser_options=dict(control.options),
        )

    def plain(self, submit: Submit) -> Request:
        """A request whose prompt is no conversation: all of its output is an answer."""
        made: Any = ChatCompletionRequest
        return Request(
            control=Control(options={}, thinking=None, budget=None),
            messages=(),
            tools=(),
            markers=None,
            structure=submit.structure,
            forced=None,
            calls=False,
            wire=made(messages=[]),
        )

    def parser(self, request: Request) -> Parser:
        """A fresh parser of vLLM for the output of a request.

        Where one declarative parser reads thoughts and calls alike, it is that parser itself: two
        composed ones would not see thoughts that open again.
        """
        assert self.parser_class is not None
        parser = self._composed(request.wire, request.parser_options)
        reasoning, tool = parser.reasoning_parser, parser.tool_parser
        if engine_config(reasoning) is None or (
            tool is not None and _engine_class(tool) is not _engine_class(reasoning)
        ):
            return parser
        return self._made(_engine_class(reasoning), request.wire, request.parser_options)

    def composed(self, request: Request) -> Parser:
        """vLLM's parser with separate parsers for thoughts and calls."""
        return self._composed(request.wire, request.parser_options)

    def _composed(self, wire: ChatCompletionRequest, options: Mapping[str, Any]) -> Parser:
        assert self.parser_class is not None
        return self._made(self.parser_class, wire, options)

    def _made(self, made: Any, wire: ChatCompletionRequest, options: Mapping[str, Any]) -> Any:
        try:
            return made(
                self.tokenizer,
                wire.tools,
                model_config=self._model,
                chat_template_kwargs=dict(options),
            )
        except ValueError as error:  # such as an effort that its parser does not know
            raise RequestRejected("invalid_value", str(error), "template") from error

    def _wire(self, submit: Submit, control: Control, *, calls: bool) -> ChatCompletionRequest:
        """The request as vLLM's own server has it."""
        choice = submit.tool_choice
        fields: dict[str, Any] = {
            "messages": [as_message(message) for message in submit.messages],
            "chat_template_kwargs": dict(control.options),
            "parallel_tool_calls": choice.parallel,
        }
        if calls:
            fields["tools"] = [dict(tool) for tool in submit.tools]
            fields["tool_choice"] = (
                {"type": "function", "function": {"name": choice.name}}
                if choice.name is not None
                else choice.mode
            )
        try:
            made: Any = ChatCompletionRequest
            wire: ChatCompletionRequest = made(**fields)
        except ValueError as error:
            raise RequestRejected("invalid_value", _first_line(error), "tools") from error
        return wire

    def _constrained(
        self, submit: Submit, wire: ChatCompletionRequest, control: Control
    ) -> tuple[Structure | None, str | None]:
        """What vLLM's own server makes of the choice of tools: a grammar for the output.

        :return: the grammar, and the name of the tool if the answer is its arguments and nothing
            else; "" if it is a list of calls.
        :raises RequestRejected: naming ``tools``, ``tool_choice`` or ``structure``.
        """
        choice = submit.tool_choice
        structure = submit.structure if choice.mode == "auto" else None
        if structure is not None:
            # A call, or an answer of that form. vLLM would compile the form here to see whether it
            # goes with calls, and a hostile one could crash this process. So it gets no form.
            wire = wire.model_copy(update={"tool_choice": "required"})
        outputs: StructuredOutputsParams | None = None
        # For newer tokenizers of Mistral, vLLM makes grammars that only llguidance reads, and the
        # engine has xgrammar.
        readable = not getattr(self.tokenizer, "supports_grammar", False)
        if readable:
            try:
                adjusted: Any = self._composed(wire, control.options).adjust_request(wire)
            except (VLLMValidationError, ValueError, TypeError) as error:
                raise RequestRejected("invalid_value", _first_line(error), "tools") from error
            outputs = adjusted.structured_outputs
        if structure is not None:
            if outputs is None or outputs.structural_tag is None:
                raise RequestRejected(
                    "unsupported_value",
                    "the answer of this model can have no form beside tools: vLLM has no grammar "
                    "for its calls",
                    "structure",
                )
            either = {"calls": outputs.structural_tag, "answer": msgspec.to_builtins(structure)}
            return Structure(kind="structural_tag", value=either), None
        if outputs is None:
            if choice.mode == "required":
                raise RequestRejected(
                    "unsupported_value",
                    "the model cannot be made to call a tool: vLLM has no grammar for its calls",
                    "tool_choice",
                )
            return None, None
        if outputs.structural_tag is not None:
            return Structure(kind="structural_tag", value=outputs.structural_tag), None
        if choice.mode != "required":
            return None, None
        return Structure(kind="json", value=outputs.json), choice.name or ""

    def _with_thoughts(self, messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
        """The conversation with those earlier thoughts that the model wants to see."""
        kept_from = 0
        # Mistral's renderer refuses thoughts for a model that has none.
        strange = self.names.reasoning is None and not self.facts.thinks
        if strange or self.names.reasoning in _DROPS_THOUGHTS:
            kept_from = len(messages)
        elif self.names.reasoning in _SPLITS_THOUGHTS:
            users = [index for index, message in enumerate(messages) if message.role == "user"]
            kept_from = users[-1] if users else 0
        if kept_from == 0:
            return messages
        return tuple(
            msgspec.structs.replace(message, reasoning=None)
            if index < kept_from and message.reasoning is not None
            else message
            for index, message in enumerate(messages)
        )


def _engine_class(parser: Any) -> Any:
    return getattr(parser, "_parser_engine_cls", None)


def _ending(model: ModelConfig, tokenizer: Any) -> frozenset[int]:
    eos = model.try_get_generation_config().get("eos_token_id", [])
    ids = {eos} if isinstance(eos, int) else set(eos)
    own = getattr(tokenizer, "eos_token_id", None)
    return frozenset(ids if own is None else ids | {own})


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:300]


def describe(form: Format) -> Sequence[str]:
    """What was chosen and what the model can do, in lines for people."""
    names, reading, facts = form.names, form.reading, form.facts
    ways = {
        "ids": "tokens",
        "parser": "vLLM's parser",
        "channels": "channels (Harmony)",
    }
    markers = reading.markers
    phases = "by tokens"
    if markers is None:
        phases = "one phase"
    elif markers.text_only:
        phases = "by text, one step later"
    switch = ", ".join(facts.switch) or "none"
    return (
        f"parsers: {names.line}",
        f"phases: {phases}; text is cut by {ways[reading.split]}",
        f"thinking: {'yes' if facts.thinks else 'no'}; switch: {switch}; "
        f"effort: {', '.join(facts.efforts) or 'by budget' if facts.thinks else 'none'}",
        f"tools: {'yes' if facts.tools else 'no'}",
    )
