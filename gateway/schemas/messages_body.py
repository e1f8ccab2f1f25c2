"""The body of Anthropic's Messages API: every accepted field, and its type.

Unknown fields of the body are refused, as in the other APIs; `IGNORED` ones have no effect here.
Unknown fields within messages, blocks and tools are ignored: clients send back what other servers
added, and mark blocks for a cache (``cache_control``), which here needs no marks.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.schemas.bodies import MOST_STOP_STRINGS, Effort, ForcedLengthsBody, Pacing
from gateway.schemas.errors import InvalidRequest, convert


class Block(msgspec.Struct, frozen=True):
    """One block of a content, of any type."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None  # of a call
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None  # of a result
    content: str | list[Any] | None = None


class Message(msgspec.Struct, frozen=True):
    """One message."""

    role: str
    content: str | list[Block]


class Choice(msgspec.Struct, frozen=True):
    """``tool_choice``."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(msgspec.Struct, frozen=True):
    """``thinking``: whether to think, and for how long.

    Without this field the model thinks as it does by default.
    """

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    display: Literal["summarized", "omitted", "updates"] | None = None


class OutputFormat(msgspec.Struct, frozen=True):
    """``output_config.format``."""

    schema: dict[str, Any]
    type: Literal["json_schema"] = "json_schema"


class OutputConfig(msgspec.Struct, frozen=True):
    """``output_config``."""

    effort: Effort | None = None
    format: OutputFormat | None = None


class Metadata(msgspec.Struct, frozen=True):
    """``metadata``."""

    user_id: str | None = None


class MessagesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/messages``."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    model: str | None = None
    system: str | list[Block] | None = None
    tools: list[Any] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31)]
    stream: bool = False
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=MOST_STOP_STRINGS)] | None = None
    metadata: Metadata | None = None
    pacing: Pacing | bool | None = None  # ours, as in the other APIs
    forced_lengths: ForcedLengthsBody | None = None


# Fields that change nothing about the answer of this server.
IGNORED = frozenset(
    {
        "betas",
        "cache_control",
        "context_management",
        "diagnostics",
        "inference_geo",
        "service_tier",
        "speed",
    }
)


class NoThreads(InvalidRequest):
    """A body with ``thread``: a conversation that the server would hold.

    The tool runners of Anthropic's packages ask for one. By ``details`` they know that they have to
    send the whole conversation instead, and do so.
    """

    def __init__(self) -> None:
        super().__init__(
            "'thread' is not supported here: send the whole conversation without it.",
            param="thread",
            code="unsupported_value",
        )

    def body(self) -> dict[str, Any]:
        """The ``error`` object, with the reason in the form of that API."""
        return {**super().body(), "details": {"error_code": "thread_unsupported_request"}}


def parse_messages(document: dict[str, Any]) -> MessagesBody:
    """Check a decoded JSON document.

    :raises InvalidRequest: naming the first wrong field.
    """
    if "thread" in document:
        raise NoThreads
    known, fields = MessagesBody.__struct_fields__, {}
    for name, value in document.items():
        if name in known:
            fields[name] = value
        elif name not in IGNORED:
            raise InvalidRequest(
                f"Unknown parameter: '{name[:64]}'.", param=name[:64], code="unknown_parameter"
            )
    return convert(fields, MessagesBody)
