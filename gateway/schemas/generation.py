"""The gateway's own form of a request, the same for both APIs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import orjson

from gateway.config import PacingConfig
from gateway.policy.prefixes import without_nonce
from gateway.schemas import conversation, input_items, structure, tools
from gateway.schemas.bodies import (
    ChatBody,
    ForcedLengthsBody,
    Pacing,
    Reasoning,
    ResponsesBody,
    TextConfig,
)
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.sampling import sampling_of, thinking_of
from gateway.schemas.tools import ToolName, Tools
from workers.messages import (
    ChatMessage,
    ForcedLengths,
    PlainPrompt,
    Sampling,
    Structure,
    ToolChoice,
)

_ANY_TOOL = ToolChoice()
_SLO_PREFIXES = ("x-llm-d-", "x-")  # of headers; the second one is the older name of the first
_INDEXED = re.compile(r"(?P<field>messages|tools)\[(?P<index>\d+)\](?P<rest>.*)", re.DOTALL)
_IN_CALL = re.compile(r"(\.tool_calls\[\d+\])\.(name|arguments)\b")


@dataclass(frozen=True, slots=True)
class Targets:
    """What the reader expects, in seconds.

    With ``paced`` false, tokens are delivered at once instead of at this pace. The client asks with
    ``lead_s`` for each token so long before its time, and holds it back itself.
    """

    tpot_s: float
    ttfat_s: float
    ttft_s: float
    paced: bool
    lead_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Generation:
    """A checked request of either API.

    ``names``, ``message_items`` and ``tool_sources`` translate the worker's names of fields to
    those of the API; see `public_param`.
    """

    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    targets: Targets
    thinking: bool | None
    forced_lengths: ForcedLengths | None
    store: bool
    messages_param: str  # the API's name for the messages, or for the prompt
    prompt: PlainPrompt | None = None  # instead of messages
    effort: str | None = None  # how much to think, in the client's word
    template: Mapping[str, Any] = field(default_factory=dict)  # options of the chat template
    tools: tuple[dict[str, Any], ...] = ()  # in the form of chat completions
    tool_choice: ToolChoice = _ANY_TOOL
    # By the model's name of a tool, if the client knows it by another name or in another form.
    tool_names: Mapping[str, ToolName] = field(default_factory=dict)
    structure: Structure | None = None
    # Fields of the response object that repeat the request, for orjson.
    echo: Mapping[str, Any] = field(default_factory=dict)
    tools_bytes: int = 0  # size of `tools` as JSON
    instructions: str | None = None
    previous_response_id: str | None = None
    metadata: Mapping[str, str] | None = None
    user: str | None = None
    affinity_key: str | None = None  # see `gateway.policy.affinity`
    choices: int = 1  # of chat completions
    conversation_id: str | None = None  # to which its items are added at the end
    background: bool = False  # its client comes back for it
    input_items: bytes = b"[]"  # of its own request; see `gateway.schemas.input_items`
    truncates: bool = False  # turns that do not fit are dropped; see `gateway.schemas.truncation`
    summary: bool = False  # the thoughts are sent as the summary of their items
    seal: Callable[[str], str] | None = None  # encrypts the thoughts for the client to keep
    read_along: bool = True  # False: the client gets the response as a whole, at its end
    resumable: bool = True  # False: it cannot be read after its end
    outlives_client: bool = True  # False: cancelled some time after its last reader left
    names: Mapping[str, str] = field(default_factory=dict)
    # Of the last messages, those of ``input``: the index of the item with which each begins.
    message_items: tuple[int, ...] = ()
    before_items: str = "previous_response_id"  # what the messages before them came from
    tool_sources: tuple[str, ...] = ()
    # Replacements that make this API's path within a tool of the one in chat completions.
    tool_fields: tuple[tuple[str, str], ...] = ()

    @property
    def keeps_events(self) -> bool:
        """Whether a client may ask for its events: it can come back, and can be resumed."""
        return (self.read_along or self.background) and self.resumable

    @property
    def input_characters(self) -> int:
        """How much the model is to read: messages, calls, thoughts and tools."""
        return _of_prompt(self.prompt) + self.tools_bytes + sum(map(_characters, self.messages))

    @property
    def prompt_tokens_guess(self) -> int:
        """The length of the prompt, until a worker has counted it; an estimate."""
        if self.prompt is not None:
            return _of_prompt(self.prompt) // 4
        of_messages = sum(8 + _characters(message) // 4 for message in self.messages)
        return of_messages + self.tools_bytes // 4

    def unpaced(self) -> Generation:
        """The same request for a client that gets the response as a whole."""
        return replace(self, targets=replace(self.targets, paced=False), read_along=False)

    def each_choice(self) -> list[Generation]:
        """One request for each choice. They have the same prompt, and seeds of their own."""
        seed = self.sampling.seed
        if seed is None:
            return [self] * self.choices
        return [
            replace(self, sampling=msgspec.structs.replace(self.sampling, seed=seed + index))
            for index in range(self.choices)
        ]

    def steady(self) -> Generation:
        """The same request without what makes each prompt another one; see `without_nonce`."""
        # In the Messages API the system prompt is none of the client's messages.
        messages = without_nonce(self.messages, optional=self.before_items == "system")
        return self if messages is self.messages else replace(self, messages=messages)

    def public_param(self, param: str | None) -> str | None:
        """Translate the name of a field of `workers.messages.Submit` to this request's API."""
        if param is None:
            return None
        if (name := self.names.get(param)) is not None:
            return name
        if (match := _INDEXED.fullmatch(param)) is not None:
            return self._public_element(match["field"], int(match["index"]), match["rest"])
        head, _, rest = param.partition(".")
        match head:
            case "sampling":
                return rest or None
            case "template":
                return f"chat_template_kwargs.{rest}" if rest else "chat_template_kwargs"
            case "messages" | "prompt":
                return self.messages_param
            case "tool_choice" | "structure" | "effort" | "thinking":
                return self.names.get(head, head)
        return param

    def _public_element(self, name: str, index: int, rest: str) -> str:
        """Translate the path of a message, or of a tool."""
        if name == "tools":
            if index >= len(self.tool_sources):
                return "tools"
            for of_chat, here in self.tool_fields:
                rest = rest.replace(of_chat, here, 1)
            return self.tool_sources[index] + rest
        if not self.message_items:
            rest = _IN_CALL.sub(r"\1.function.\2", rest).replace(".call_id", ".id")
            return f"messages[{index}]{rest}"
        before = len(self.messages) - len(self.message_items)
        if index < before:
            return "instructions" if self.instructions and index == 0 else self.before_items
        if index >= len(self.messages):
            return self.messages_param
        # One message may come from several items.
        return f"{self.messages_param}[{self.message_items[index - before]}]"


def _of_prompt(prompt: PlainPrompt | None) -> int:
    """Characters of a prompt that is no conversation; those of tokens are a guess."""
    if prompt is None or prompt.token_ids is None:
        return 0 if prompt is None else len(prompt.text)
    return 4 * len(prompt.token_ids)


def _characters(message: ChatMessage) -> int:
    if not (message.reasoning or message.tool_calls):
        return len(message.content)
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning or "") + calls


def default_targets(config: PacingConfig, headers: Mapping[str, str]) -> Targets:
    """Return targets for requests that name none: those of headers, else the configuration.

    :raises InvalidRequest: naming the header.
    """
    targets = Targets(config.tpot_s, config.ttfat_s, config.ttft_s, paced=True)
    if (tpot_ms := _header_ms(headers, "slo-tpot-ms", 1, 60_000)) is not None:
        targets = replace(targets, tpot_s=tpot_ms / 1000)
    if (ttft_ms := _header_ms(headers, "slo-ttft-ms", 1, 3_600_000)) is not None:
        targets = replace(targets, ttft_s=ttft_ms / 1000)
    return targets


def from_responses(
    body: ResponsesBody, history: tuple[ChatMessage, ...], defaults: Targets
) -> Generation:
    """Convert a Responses body.

    :param history: the messages of the conversation up to ``previous_response_id``.
    :raises InvalidRequest: naming the field.
    """
    if body.input is None:
        raise InvalidRequest("Missing required parameter: 'input'.", param="input")
    items = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
    if not items:
        raise InvalidRequest("'input' has no message.", param="input")
    inputs = conversation.of_items(items, history)
    if not inputs.messages:  # thoughts without a text make none
        raise InvalidRequest("'input' has no message.", param="input")
    head = (ChatMessage(role="system", content=body.instructions),) if body.instructions else ()
    found = tools.of_responses(body.tools, body.tool_choice, body.parallel_tool_calls)
    text = body.text or TextConfig()
    return _generation(
        body,
        defaults,
        (*head, *history, *inputs.messages),
        found,
        structure.of_responses(text.format, body.structured_outputs),
        message_items=inputs.items,
        store=body.store is not False,
        messages_param="input",
        tool_fields=((".function", ""),),
        instructions=body.instructions,
        previous_response_id=body.previous_response_id,
        conversation_id=body.conversation_id,
        before_items="previous_response_id" if body.conversation is None else "conversation",
        background=body.background is True,
        input_items=input_items.encoded(items),
        truncates=body.truncation == "auto",
        summary=_summary(body.reasoning) is not None,
        echo=_echo(body, text),
    )


def from_chat(body: ChatBody, defaults: Targets) -> Generation:
    """Convert a body of chat completions.

    :raises InvalidRequest: naming the field.
    """
    return _generation(
        body,
        defaults,
        conversation.of_chat(body.messages),
        tools.of_chat(body.tools, body.tool_choice, body.parallel_tool_calls),
        structure.of_chat(body.response_format, body.structured_outputs),
        store=False,
        resumable=False,
        messages_param="messages",
        choices=body.n or 1,
    )


def _generation(
    body: ResponsesBody | ChatBody,
    defaults: Targets,
    messages: tuple[ChatMessage, ...],
    found: Tools,
    asked: structure.Found | None,
    **rest: Any,
) -> Generation:
    names = {"structure": "response_format" if isinstance(body, ChatBody) else "text.format"}
    thought = thinking_of(body, names)
    form = None
    if asked is not None:
        form, names["structure"] = asked
        if found.choice.mode == "required":
            raise InvalidRequest(
                f"'tool_choice' asks for a call, and '{names['structure']}' for an answer.",
                param="tool_choice",
            )
    return Generation(
        messages=messages,
        sampling=sampling_of(body, thought.budget, names),
        targets=targets_of(body.pacing, defaults),
        thinking=thought.thinking,
        effort=thought.effort,
        template=thought.template,
        tools=found.definitions,
        tools_bytes=found.size_bytes,
        tool_choice=found.choice,
        tool_names=found.names,
        tool_sources=found.sources,
        structure=form,
        forced_lengths=forced_lengths_of(body.forced_lengths, found, asked),
        metadata=body.metadata,
        user=body.safety_identifier or body.user,
        affinity_key=body.prompt_cache_key or None,
        names=names,
        **rest,
    )


def forced_lengths_of(
    body: ForcedLengthsBody | None, found: Tools, asked: structure.Found | None
) -> ForcedLengths | None:
    """The forced lengths of a body.

    :param asked: the form that the answer must have.
    :raises InvalidRequest: naming the field.
    """
    if body is None:
        return None
    reasoning, answer, call = body.reasoning_tokens, body.answer_tokens, body.call_tokens
    if call:
        why = None
        if not found.definitions:
            why = "there are no 'tools'"
        elif found.choice.mode == "none":
            why = "'tool_choice' is none"
        elif asked is not None:
            why = f"'{asked[1]}' asks for an answer of a given form"
        if why is not None:
            raise InvalidRequest(
                f"'forced_lengths.call_tokens' is {call}, but {why}.",
                param="forced_lengths.call_tokens",
            )
    elif not answer:
        raise InvalidRequest(
            "'forced_lengths.answer_tokens' must be at least 1 without a call.",
            param="forced_lengths.answer_tokens",
        )
    return ForcedLengths(reasoning_tokens=reasoning, answer_tokens=answer, call_tokens=call)


def _echo(body: ResponsesBody, text: TextConfig) -> dict[str, Any]:
    """What the response object repeats of the request, in the form of the API.

    What the client may have filled with anything is encoded already: orjson knows no large numbers.
    """
    form: dict[str, Any] = {"type": text.format.type}
    if text.format.type == "json_schema":
        form |= {
            "name": text.format.name,
            "schema": text.format.schema,
            "strict": text.format.strict,
            "description": text.format.description,
        }
    shown: dict[str, Any] = {"format": form}
    if text.verbosity is not None:
        shown["verbosity"] = text.verbosity
    named = {} if body.conversation is None else {"conversation": {"id": body.conversation_id}}
    return named | {
        "tools": _encoded([_echo_of_tool(tool) for tool in body.tools]) if body.tools else [],
        "tool_choice": "auto" if body.tool_choice is None else _encoded(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": _encoded(shown),
        "reasoning": {
            "effort": body.reasoning and body.reasoning.effort,
            "summary": _summary(body.reasoning),
        },
        "top_logprobs": body.top_logprobs or 0,
        "background": body.background is True,
        "truncation": body.truncation or "disabled",
        "max_tool_calls": body.max_tool_calls,
        "prompt_cache_key": body.prompt_cache_key,
        "safety_identifier": body.safety_identifier,
    }


def _summary(reasoning: Reasoning | None) -> str | None:
    """The summary that is asked for."""
    return None if reasoning is None else reasoning.summary or reasoning.generate_summary


def _echo_of_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool, with the fields that clients expect in every function."""
    if tool["type"] != "function":
        return tool
    return {"description": None, "parameters": None, "strict": None, **tool}


def _encoded(value: Any) -> orjson.Fragment:
    return orjson.Fragment(msgspec.json.encode(value))


def targets_of(pacing: Pacing | bool | None, defaults: Targets) -> Targets:
    """The targets that a body asks for with ``pacing``."""
    if isinstance(pacing, Pacing):
        return replace(
            defaults,
            tpot_s=defaults.tpot_s if pacing.tpot_s is None else pacing.tpot_s,
            ttfat_s=defaults.ttfat_s if pacing.ttfat_s is None else pacing.ttfat_s,
            lead_s=pacing.lead_s,
        )
    return replace(defaults, paced=pacing is not False)


def _header_ms(
    headers: Mapping[str, str], name: str, low_ms: float, high_ms: float
) -> float | None:
    found = [prefix + name for prefix in _SLO_PREFIXES if prefix + name in headers]
    if not found:
        return None
    name, text = found[0], headers[found[0]]
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not low_ms <= value <= high_ms:
        raise InvalidRequest(
            f"{name} must be from {low_ms:g} to {high_ms:g} milliseconds, not {text[:64]!r}.",
            param=name,
        )
    return value
