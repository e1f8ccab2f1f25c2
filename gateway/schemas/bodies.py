"""Request bodies of the public APIs: every accepted field, and its check.

`ResponsesBody` and `ChatBody` declare the fields. An `InvalidRequest` names a field that is
unknown, of the wrong type or out of range. It also names a field that asks for something this
server cannot do (images, background): ignoring it would answer a different question. Fields
without an effect here are accepted and ignored.

A null field counts as absent, known or not: many clients send null for options that are not set.
JSON schemas are the exception, since there null is a value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from gateway.policy.affinity import LONGEST_KEY, usable
from gateway.schemas.errors import InvalidRequest, convert
from gateway.schemas.items import InputMessage
from gateway.schemas.json_schema import check_depth
from gateway.schemas.structure import ResponseFormat, StructuredOutputs, TextFormat
from workers.checked import closest

# A bound on generated tokens; common clients send -1 for no bound. `_refuse_unsupported` refuses 0.
TokenBound = Annotated[int, Meta(ge=-1, le=2**31, extra_json_schema={"not": {"const": 0}})]
TokenId = Annotated[int, Meta(ge=0, le=2**31)]
Seconds = Annotated[float, Meta(ge=0.001, le=60)]  # per token
Delay = Annotated[float, Meta(ge=0, le=3600)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Effort = Annotated[str, Meta(min_length=1, max_length=32)]
Identifier = Annotated[str, Meta(max_length=512)]
CacheKey = Annotated[str, Meta(max_length=LONGEST_KEY)]
MOST_CLIENT_METADATA = 64
MOST_STOP_STRINGS = 64  # editors send about 20
MOST_CHOICES = 16
MOST_TOP_LOGPROBS = 20
MOST_BIASES = 1024
_MOST_STOP_TOKENS = 128
_LONGEST_NAME = 64  # characters of an unknown parameter that are compared and quoted

# Values of ``include``; all but these two ask for results of tools that run at OpenAI.
LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
_INCLUDABLE = frozenset(
    {
        LOGPROBS,
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        ENCRYPTED,
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)

# Fields of vLLM, with the only value that is accepted, because it asks for nothing.
_NEUTRAL: dict[str, Any] = {
    "add_generation_prompt": True,
    "add_special_tokens": False,
    "continue_final_message": False,
    "echo": False,
    "include_reasoning": True,
    "include_stop_str_in_output": False,
    "length_penalty": 1,
    "priority": 0,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "use_beam_search": False,
}


def neutral_fields() -> dict[str, Any]:
    """Fields that are accepted with one value only, and these values."""
    return dict(_NEUTRAL)


# Fields of other servers and versions, and what to send instead.
_INSTEAD = {
    "function_call": "tool_choice",
    "functions": "tools",
    "guided_choice": "structured_outputs.choice",
    "guided_grammar": "structured_outputs.grammar",
    "guided_json": "structured_outputs.json",
    "guided_regex": "structured_outputs.regex",
    "num_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    "think": "enable_thinking",
    "thinking": "enable_thinking",
    "thinking_budget": "thinking_token_budget",
}

# Options that the renderer of the chat template sets itself.
_OF_RENDERER = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "messages",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer",
        "tools",
    }
)


class Pacing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pace that a reader asks for; None: the server's target."""

    tpot_s: Seconds | None = None
    ttfat_s: Delay | None = None
    lead_s: Annotated[float, Meta(ge=0, le=30)] = 0.0  # each token so long before its time


class ForcedLengthsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exact lengths, for load tests."""

    reasoning_tokens: Annotated[int, Meta(ge=0)]  # 0 if thinking is switched off
    answer_tokens: Annotated[int, Meta(ge=0)]  # 0 only before a call
    call_tokens: Annotated[int, Meta(ge=0)] = 0  # of a call behind the answer; 0: no call


class Reasoning(msgspec.Struct, frozen=True):
    """``reasoning``: how much to think; ``effort: "none"`` switches thinking off.

    ``enabled`` and ``exclude`` are of OpenRouter's API.
    """

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None  # its old name
    max_tokens: TokenBound | None = None
    enabled: bool | None = None  # another name for `enable_thinking`, which wins
    # True is refused: the thoughts are part of every response.
    exclude: Annotated[bool, Meta(extra_json_schema={"const": False})] | None = None


class TextConfig(msgspec.Struct, frozen=True):
    """``text`` of the Responses API."""

    format: TextFormat = TextFormat()
    verbosity: str | None = None


class ConversationName(msgspec.Struct, frozen=True):
    """``conversation``, as an object."""

    id: str


class StreamOptions(msgspec.Struct, frozen=True):
    """``stream_options``; of the chat completions only ``include_usage`` has an effect."""

    include_usage: bool = False


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields that both APIs share."""

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
    stop: str | Annotated[list[str], Meta(max_length=MOST_STOP_STRINGS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=_MOST_STOP_TOKENS)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    ignore_eos: bool = False
    logit_bias: (
        Annotated[
            dict[str, Annotated[float, Meta(ge=-100, le=100)]],
            Meta(
                max_length=MOST_BIASES,
                extra_json_schema={"propertyNames": {"pattern": "^[0-9]{1,10}$"}},
            ),
        ]
        | None
    ) = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    pacing: Pacing | bool | None = None
    forced_lengths: ForcedLengthsBody | None = None
    reasoning: Reasoning | None = None
    enable_thinking: bool | None = None
    thinking_token_budget: TokenBound | None = None
    chat_template_kwargs: (
        Annotated[
            dict[str, Any],
            Meta(extra_json_schema={"propertyNames": {"not": {"enum": sorted(_OF_RENDERER)}}}),
        ]
        | None
    ) = None
    structured_outputs: StructuredOutputs | None = None
    tools: list[Any] | None = None  # see `gateway.schemas.tools`
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: Identifier | None = None
    client_metadata: Annotated[dict[str, Any], Meta(max_length=MOST_CLIENT_METADATA)] | None = None
    service_tier: str | None = None
    prompt_cache_key: CacheKey | None = None
    prompt_cache_retention: str | None = None
    stream_options: StreamOptions | None = None


class ResponsesBody(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/responses`` and of ``response.create``."""

    input: str | list[Any] | None = None  # see `gateway.schemas.items`
    instructions: str | None = None
    max_output_tokens: TokenBound | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationName | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[Annotated[str, Meta(extra_json_schema={"enum": sorted(_INCLUDABLE)})]] | None = (
        None
    )
    text: TextConfig | None = None
    background: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=0, le=2**31)] | None = None

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation that it belongs to."""
        named = self.conversation
        return named.id if isinstance(named, ConversationName) else named


class ChatBody(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    max_tokens: TokenBound | None = None
    max_completion_tokens: TokenBound | None = None
    reasoning_effort: Effort | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    logprobs: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[str], Meta(extra_json_schema={"const": ["text"]})] | None = None
    verbosity: str | None = None


Body = TypeVar("Body", ResponsesBody, ChatBody)

# Fields that hold a JSON schema, wherever they are.
_SCHEMAS = frozenset({"json", "parameters", "schema"})


def parse_json_object(text: str | bytes, kept: frozenset[str] = _SCHEMAS) -> dict[str, Any]:
    """Decode a JSON object and drop its null fields, at any depth but within some fields.

    :param kept: names of these fields: those whose value is not of the API, such as a JSON schema.
    :raises InvalidRequest: it is something else.
    """
    try:
        document = msgspec.json.decode(text)
    except RecursionError as error:
        raise InvalidRequest("The JSON has too many levels.", param=None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Not JSON: {error}.", param=None, code="invalid_json") from error
    if not isinstance(document, dict):
        raise InvalidRequest("The body must be a JSON object.", param=None)
    _drop_nulls(document, kept)
    return document


def _drop_nulls(document: dict[str, Any], kept: frozenset[str]) -> None:
    """Remove every null field, in place. Null elements of lists stay."""
    waiting: list[Any] = [document]  # no recursion: a body may be nested deeper than Python's stack
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for name in [name for name, field in value.items() if field is None]:
                del value[name]
            inner = [field for name, field in value.items() if name not in kept]
        else:
            inner = value
        waiting.extend(field for field in inner if isinstance(field, dict | list))


def parse_body(document: dict[str, Any], kind: type[Body]) -> Body:
    """Check a decoded JSON document. Raises `InvalidRequest` naming the first wrong field."""
    body = convert(known_fields(document, kind.__struct_fields__), kind)
    _refuse_unsupported(body)
    return body


def known_fields(document: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The known fields of a document; those of vLLM that ask for nothing are left out.

    :raises InvalidRequest: naming one that is unknown, or asks for something unsupported.
    """
    fields = dict(document)
    for name in document:
        if name in known:
            continue
        if name not in _NEUTRAL:
            raise _unknown(name, known)
        if fields.pop(name) != _NEUTRAL[name]:
            only = str(_NEUTRAL[name]).lower()
            raise unsupported(name, f"'{name}' is always {only}; another value is")
    return fields


def check_cache_key(key: str | None) -> None:
    """Raise `InvalidRequest` if ``prompt_cache_key`` cannot be the name of a session."""
    if key and not usable(key):
        raise InvalidRequest(
            "'prompt_cache_key' has characters that cannot be printed.", param="prompt_cache_key"
        )


def _unknown(name: str, known: tuple[str, ...]) -> InvalidRequest:
    shown = name[:_LONGEST_NAME]  # comparing a name of a megabyte would take seconds
    near = closest(shown, known)
    if (other := _INSTEAD.get(name)) is not None:
        hint = f" Send '{other}' instead."
    else:
        hint = f" Did you mean '{near}'?" if near else ""
    return InvalidRequest(
        f"Unknown parameter: '{shown}'.{hint}", param=shown, code="unknown_parameter"
    )


def unsupported(param: str, what: str) -> InvalidRequest:
    """The refusal of a field that asks for something that this server cannot do."""
    return InvalidRequest(
        f"{what} not supported by this server.", param=param, code="unsupported_value"
    )


def _refuse_unsupported(body: ResponsesBody | ChatBody) -> None:
    for param, bound in _token_bounds(body):
        if bound == 0:
            raise InvalidRequest(
                f"'{param}': must be at least 1, or -1 for no bound, not 0.", param=param
            )
    check_cache_key(body.prompt_cache_key)
    if body.reasoning is not None and body.reasoning.exclude:
        raise unsupported("reasoning.exclude", "Leaving out the thoughts is")
    check_depth(body.chat_template_kwargs, "The object of options", "chat_template_kwargs")
    for name in body.chat_template_kwargs or ():
        if name in _OF_RENDERER:
            raise InvalidRequest(
                f"'{name}' is set by the server; it is no option of the template.",
                param=f"chat_template_kwargs.{name}",
            )
    if isinstance(body, ResponsesBody):
        if body.conversation is not None and body.previous_response_id is not None:
            raise InvalidRequest(
                "Send 'conversation' or 'previous_response_id', not both.", param="conversation"
            )
        if body.background and body.store is False:
            raise InvalidRequest(
                "A response in the background is stored; 'store' cannot be false.", param="store"
            )
        for index, name in enumerate(body.include or ()):
            if name not in _INCLUDABLE:
                raise InvalidRequest(
                    f"There is nothing to include by the name {name[:_LONGEST_NAME]!r}.",
                    param=f"include[{index}]",
                )
        if body.top_logprobs and LOGPROBS not in (body.include or ()):
            raise InvalidRequest(
                f"'top_logprobs' needs '{LOGPROBS}' in 'include'.", param="top_logprobs"
            )
        return
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    if body.modalities not in (None, ["text"]):
        raise unsupported("modalities", "Output other than text is")


def _token_bounds(body: ResponsesBody | ChatBody) -> list[tuple[str, int | None]]:
    reasoning = body.reasoning or Reasoning()
    bounds = [
        ("reasoning.max_tokens", reasoning.max_tokens),
        ("thinking_token_budget", body.thinking_token_budget),
    ]
    if isinstance(body, ChatBody):
        bounds += [
            ("max_tokens", body.max_tokens),
            ("max_completion_tokens", body.max_completion_tokens),
        ]
    else:
        bounds += [("max_output_tokens", body.max_output_tokens)]
    return bounds
