"""The gateway's own form of a request, the same for both APIs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.config import PacingConfig
from gateway.schemas.bodies import (
    ChatBody,
    ChatTemplateKwargs,
    InputMessage,
    Pacing,
    Reasoning,
    ResponsesBody,
)
from gateway.schemas.errors import InvalidRequest
from workers.messages import ChatMessage, ForcedLengths, Sampling


@dataclass(frozen=True, slots=True)
class Targets:
    """What the reader expects, in seconds.

    With ``paced`` false, tokens are delivered at once instead of at this pace.
    """

    tpot_s: float
    ttfat_s: float
    ttft_s: float
    paced: bool


@dataclass(frozen=True, slots=True)
class Generation:
    """A checked request of either API."""

    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    targets: Targets
    thinking: bool | None
    forced_lengths: ForcedLengths | None
    store: bool
    messages_param: str  # the API's name for the messages
    max_tokens_param: str  # the API's name for the bound on generated tokens
    instructions: str | None = None
    previous_response_id: str | None = None
    near: str | None = None  # the instance of the previous response, which may have its KV
    metadata: Mapping[str, str] | None = None
    user: str | None = None
    read_along: bool = True  # False: the client gets the response as a whole, at its end
    resumable: bool = True  # False: it cannot be read after its end
    outlives_client: bool = True  # False: cancelled some time after its last reader left

    @property
    def keeps_events(self) -> bool:
        """Whether a client may ask for its events: it is streamed, and can be resumed."""
        return self.read_along and self.resumable

    def unpaced(self) -> Generation:
        """The same request for a client that gets the response as a whole."""
        return replace(self, targets=replace(self.targets, paced=False), read_along=False)

    def public_param(self, param: str | None) -> str | None:
        """Translate the name of a field of `workers.messages.Submit` to this request's API."""
        if param is None:
            return None
        head, _, rest = param.partition(".")
        if head == "sampling":
            return self.max_tokens_param if rest == "max_tokens" else rest
        return self.messages_param if head == "messages" else param


def default_targets(config: PacingConfig, headers: Mapping[str, str]) -> Targets:
    """Return targets for requests that name none: ``x-slo-*`` headers, else the configuration."""
    targets = Targets(config.tpot_s, config.ttfat_s, config.ttft_s, paced=True)
    if (tpot_ms := _header_ms(headers, "x-slo-tpot-ms", 1, 60_000)) is not None:
        targets = replace(targets, tpot_s=tpot_ms / 1000)
    if (ttft_ms := _header_ms(headers, "x-slo-ttft-ms", 1, 3_600_000)) is not None:
        targets = replace(targets, ttft_s=ttft_ms / 1000)
    return targets


def from_responses(
    body: ResponsesBody, history: tuple[ChatMessage, ...], defaults: Targets
) -> Generation:
    """Convert a Responses body.

    :param history: the messages of the conversation up to ``previous_response_id``.
    """
    if body.input is None:
        raise InvalidRequest("Missing required parameter: 'input'.", param="input")
    inputs = (
        (ChatMessage(role="user", content=body.input),)
        if isinstance(body.input, str)
        else _messages(body.input, "input")
    )
    if not inputs:
        raise InvalidRequest("'input' has no message.", param="input")
    head = (ChatMessage(role="system", content=body.instructions),) if body.instructions else ()
    reasoning = body.reasoning or Reasoning()
    return _generation(
        body,
        defaults,
        messages=head + history + inputs,
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
    """Convert a body of chat completions."""
    return _generation(
        body,
        defaults,
        messages=_messages(body.messages, "messages"),
        max_tokens=body.max_tokens
        if body.max_completion_tokens is None
        else body.max_completion_tokens,
        effort=body.reasoning_effort,
        thinking_budget=None,
        store=False,
        resumable=False,
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
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    thinking = (body.chat_template_kwargs or ChatTemplateKwargs()).enable_thinking
    if thinking is None and effort == "none":
        thinking = False
    forced = body.forced_lengths
    return Generation(
        messages=messages,
        sampling=Sampling(
            max_tokens=_bound(max_tokens),
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            repetition_penalty=body.repetition_penalty,
            seed=body.seed,
            # Forms whose field for stop strings was left empty send an empty string.
            stop=tuple(text for text in stop if text),
            ignore_eos=body.ignore_eos,
            thinking_budget=_bound(thinking_budget),
        ),
        targets=_targets(body, defaults),
        thinking=thinking,
        forced_lengths=None
        if forced is None
        else ForcedLengths(
            reasoning_tokens=forced.reasoning_tokens, answer_tokens=forced.answer_tokens
        ),
        metadata=body.metadata,
        user=body.safety_identifier or body.user,
        **rest,
    )


def _bound(tokens: int | None) -> int | None:
    """Return a bound on tokens in the worker's form: None if the client sent none, or -1."""
    return None if tokens == -1 else tokens


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


def _messages(inputs: list[InputMessage], param: str) -> tuple[ChatMessage, ...]:
    messages = []
    for index, message in enumerate(inputs):
        where = f"{param}[{index}]"
        if message.type == "reasoning":
            continue  # earlier reasoning; chat templates drop it from the history
        if message.type != "message":
            raise InvalidRequest(
                f"Items of type '{message.type}' are not supported.", param=f"{where}.type"
            )
        if message.role not in _SPOKEN_ROLES:
            raise InvalidRequest(
                f"role must be one of {', '.join(sorted(_SPOKEN_ROLES))}, not {message.role!r}.",
                param=f"{where}.role",
            )
        role = "system" if message.role == "developer" else message.role
        messages.append(ChatMessage(role=role, content=_text_of(message, where)))
    return tuple(messages)


def _text_of(message: InputMessage, where: str) -> str:
    if message.content is None:
        if message.role == "assistant":
            return ""  # a message of reasoning or tool calls alone
        raise InvalidRequest("The message has no content.", param=f"{where}.content")
    if isinstance(message.content, str):
        return message.content
    texts = []
    for index, part in enumerate(message.content):
        if part.type not in _TEXT_PARTS:
            raise InvalidRequest(
                f"Content of type '{part.type}' is not supported; this model reads text.",
                param=f"{where}.content[{index}].type",
            )
        if part.text is None:
            raise InvalidRequest("The part has no text.", param=f"{where}.content[{index}].text")
        texts.append(part.text)
    return "".join(texts)


def _header_ms(
    headers: Mapping[str, str], name: str, low_ms: float, high_ms: float
) -> float | None:
    text = headers.get(name)
    if text is None:
        return None
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
