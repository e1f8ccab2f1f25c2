"""Request bodies of the public APIs, checked, and the one internal form both become.

`ResponsesBody` and `ChatBody` declare every field that is accepted. A field that is unknown, of the
wrong type or out of range is an `InvalidRequest` that names it; so is one that asks for something
this server cannot do (tools, several choices, images), because to ignore it would answer another
question than the one that was asked. Fields that change nothing here are accepted and ignored.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from gateway.config import PacingConfig
from gateway.errors import InvalidRequest
from workers.messages import ChatMessage, ForcedLengths, Sampling

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=60)]
Delay = Annotated[float, Meta(ge=0, le=3600)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class Pacing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reader's wishes; None: the server's target."""

    tpot_s: Seconds | None = None
    ttfat_s: Delay | None = None


class ForcedLengthsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exact lengths, for load tests."""

    reasoning_tokens: Annotated[int, Meta(ge=0)]  # 0 where thinking is switched off
    answer_tokens: Annotated[int, Meta(ge=1)]


class Reasoning(msgspec.Struct, frozen=True):
    """``reasoning`` of the Responses API; ``effort: "none"`` switches thinking off."""

    effort: str | None = None
    summary: str | None = None
    max_tokens: Count | None = None


class ChatTemplateKwargs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the chat template can be told; ``enable_thinking`` false asks to answer at once."""

    enable_thinking: bool | None = None


class Part(msgspec.Struct, frozen=True):
    """One part of a message's content."""

    type: str
    text: str | None = None


class Turn(msgspec.Struct, frozen=True):
    """One message of either API, or an earlier output item given back as input."""

    role: str | None = None
    content: str | list[Part] | None = None
    type: str = "message"


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both APIs share."""

    model: str | None = None
    stream: bool = False
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    ignore_eos: bool = False
    pacing: Pacing | bool | None = None
    forced_lengths: ForcedLengthsBody | None = None
    chat_template_kwargs: ChatTemplateKwargs | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    # Accepted where they ask for nothing; see `_refuse_unsupported`.
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    top_logprobs: int | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    stream_options: dict[str, Any] | None = None


class ResponsesBody(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/responses`` and of ``response.create``."""

    input: str | list[Turn] | None = None
    instructions: str | None = None
    max_output_tokens: Count | None = None
    previous_response_id: str | None = None
    reasoning: Reasoning | None = None
    truncation: str | None = None
    include: list[str] | None = None
    text: dict[str, Any] | None = None
    background: bool | None = None
    max_tool_calls: int | None = None


class ChatBody(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Turn], Meta(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    reasoning_effort: str | None = None
    n: int | None = None
    logprobs: bool | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    verbosity: str | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """What the reader expects, in seconds; ``paced`` says whether tokens are held to it."""

    tpot_s: float
    ttfat_s: float
    ttft_s: float
    paced: bool


@dataclass(frozen=True, slots=True)
class Generation:
    """A checked request, whichever API it came by."""

    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    targets: Targets
    thinking: bool | None
    forced_lengths: ForcedLengths | None
    stream: bool
    store: bool
    messages_param: str  # what the API calls the messages
    max_tokens_param: str  # what it calls the bound on generated tokens
    instructions: str | None = None
    previous_response_id: str | None = None
    metadata: Mapping[str, str] | None = None
    user: str | None = None

    def unpaced(self) -> Generation:
        """The same request for a client that reads nothing before the end."""
        return replace(self, targets=replace(self.targets, paced=False))

    def public_param(self, param: str | None) -> str | None:
        """The name that a field of `workers.messages.Submit` has in this request's API."""
        if param is None:
            return None
        head, _, rest = param.partition(".")
        if head == "sampling":
            return self.max_tokens_param if rest == "max_tokens" else rest
        return self.messages_param if head == "messages" else param


Body = TypeVar("Body", ResponsesBody, ChatBody)


def default_targets(config: PacingConfig, headers: Mapping[str, str]) -> Targets:
    """Targets for requests that name none: the ``x-slo-*`` headers, else the configuration."""
    targets = Targets(config.tpot_s, config.ttfat_s, config.ttft_s, paced=True)
    if (tpot_ms := _header_ms(headers, "x-slo-tpot-ms")) is not None:
        targets = replace(targets, tpot_s=tpot_ms / 1000)
    if (ttft_ms := _header_ms(headers, "x-slo-ttft-ms")) is not None:
        targets = replace(targets, ttft_s=ttft_ms / 1000)
    return targets


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """Decode a JSON object. Raises `InvalidRequest` for anything else."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Not JSON: {error}.", param=None, code="invalid_json") from error
    if not isinstance(document, dict):
        raise InvalidRequest("The body must be a JSON object.", param=None)
    return document


def parse_body(document: dict[str, Any], kind: type[Body]) -> Body:
    """Check a decoded JSON document. Raises `InvalidRequest` naming the first wrong field."""
    known = kind.__struct_fields__
    for name in document:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise InvalidRequest(
                f"Unknown parameter: '{name}'.{hint}", param=name, code="unknown_parameter"
            )
    try:
        body = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest.of_validation(error) from error
    _refuse_unsupported(body)
    return body


def from_responses(
    body: ResponsesBody, history: tuple[ChatMessage, ...], defaults: Targets
) -> Generation:
    """The internal form. ``history`` are the turns that ``previous_response_id`` stands for."""
    if body.input is None:
        raise InvalidRequest("Missing required parameter: 'input'.", param="input")
    turns = (
        (ChatMessage(role="user", content=body.input),)
        if isinstance(body.input, str)
        else _messages(body.input, "input")
    )
    if not turns:
        raise InvalidRequest("'input' has no message.", param="input")
    head = (ChatMessage(role="system", content=body.instructions),) if body.instructions else ()
    reasoning = body.reasoning or Reasoning()
    return _generation(
        body,
        defaults,
        messages=head + history + turns,
        max_tokens=body.max_output_tokens,
        effort=reasoning.effort,
        thinking_budget=reasoning.max_tokens,
        store=body.store is not False,
        messages_param="input",
        max_tokens_param="max_output_tokens",
        instructions=body.instructions,
        previous_response_id=body.previous_response_id,
    )


def from_chat(body: ChatBody, defaults: Targets) -> Generation:
    """The internal form of a chat completion."""
    return _generation(
        body,
        defaults,
        messages=_messages(body.messages, "messages"),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        effort=body.reasoning_effort,
        thinking_budget=None,
        store=False,
        messages_param="messages",
        max_tokens_param="max_completion_tokens",
    )


def _generation(
    body: ResponsesBody | ChatBody,
    defaults: Targets,
    *,
    messages: tuple[ChatMessage, ...],
    max_tokens: int | None,
    effort: str | None,
    thinking_budget: int | None,
    **rest: Any,
) -> Generation:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if "" in stop:
        raise InvalidRequest("A stop string must not be empty.", param="stop")
    thinking = (body.chat_template_kwargs or ChatTemplateKwargs()).enable_thinking
    if thinking is None and effort == "none":
        thinking = False
    forced = body.forced_lengths
    return Generation(
        messages=messages,
        sampling=Sampling(
            max_tokens=max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            repetition_penalty=body.repetition_penalty,
            seed=body.seed,
            stop=stop,
            ignore_eos=body.ignore_eos,
            thinking_budget=thinking_budget,
        ),
        targets=_targets(body, defaults),
        thinking=thinking,
        forced_lengths=None
        if forced is None
        else ForcedLengths(
            reasoning_tokens=forced.reasoning_tokens, answer_tokens=forced.answer_tokens
        ),
        stream=body.stream,
        metadata=body.metadata,
        user=body.safety_identifier or body.user,
        **rest,
    )


def _targets(body: ResponsesBody | ChatBody, defaults: Targets) -> Targets:
    pacing = body.pacing
    if isinstance(pacing, Pacing):
        return replace(
            defaults,
            tpot_s=defaults.tpot_s if pacing.tpot_s is None else pacing.tpot_s,
            ttfat_s=defaults.ttfat_s if pacing.ttfat_s is None else pacing.ttfat_s,
        )
    return replace(defaults, paced=pacing is not False)


_SPOKEN_ROLES = frozenset({"system", "developer", "user", "assistant"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


def _messages(turns: list[Turn], param: str) -> tuple[ChatMessage, ...]:
    messages = []
    for index, turn in enumerate(turns):
        where = f"{param}[{index}]"
        if turn.type == "reasoning":
            continue  # earlier thoughts given back; chat templates drop them from the history
        if turn.type != "message":
            raise InvalidRequest(
                f"Items of type '{turn.type}' are not supported.", param=f"{where}.type"
            )
        if turn.role not in _SPOKEN_ROLES:
            raise InvalidRequest(
                f"role must be one of {', '.join(sorted(_SPOKEN_ROLES))}, not {turn.role!r}.",
                param=f"{where}.role",
            )
        role = "system" if turn.role == "developer" else turn.role
        messages.append(ChatMessage(role=role, content=_text_of(turn, where)))
    return tuple(messages)


def _text_of(turn: Turn, where: str) -> str:
    if turn.content is None:
        raise InvalidRequest("The message has no content.", param=f"{where}.content")
    if isinstance(turn.content, str):
        return turn.content
    texts = []
    for index, part in enumerate(turn.content):
        if part.type not in _TEXT_PARTS:
            raise InvalidRequest(
                f"Content of type '{part.type}' is not supported; this model reads text.",
                param=f"{where}.content[{index}].type",
            )
        if part.text is None:
            raise InvalidRequest("text is missing.", param=f"{where}.content[{index}].text")
        texts.append(part.text)
    return "".join(texts)


def _refuse_unsupported(body: ResponsesBody | ChatBody) -> None:
    def refuse(param: str, what: str) -> None:
        raise InvalidRequest(
            f"{what} not supported by this server.", param=param, code="unsupported_value"
        )

    if body.tools:
        refuse("tools", "Tools are")
    if body.tool_choice not in (None, "auto", "none"):
        refuse("tool_choice", "Tools are")
    if body.top_logprobs:
        refuse("top_logprobs", "Log probabilities are")
    if isinstance(body, ResponsesBody):
        if body.background:
            refuse("background", "Background mode is")
        if ((body.text or {}).get("format") or {"type": "text"}).get("type") != "text":
            refuse("text.format", "Structured output is")
        if body.truncation not in (None, "disabled"):
            refuse("truncation", "Truncation of the input is")
    else:
        if body.n not in (None, 1):
            refuse("n", "More than one choice is")
        if body.logprobs:
            refuse("logprobs", "Log probabilities are")
        if body.logit_bias:
            refuse("logit_bias", "Logit bias is")
        if (body.response_format or {"type": "text"}).get("type") != "text":
            refuse("response_format", "Structured output is")
        if body.modalities not in (None, ["text"]):
            refuse("modalities", "Output other than text is")


def _header_ms(headers: Mapping[str, str], name: str) -> float | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3_600_000:
        raise InvalidRequest(
            f"{name} must be a positive number of milliseconds, not {text!r}.", param=name
        )
    return value
