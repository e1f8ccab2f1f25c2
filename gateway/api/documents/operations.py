"""The routes as clients see them: one entry for each.

A route that the application has and this table lacks is missing in the document; a test finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.api.admin import DemoBody, DrainBody, PlacementBody, PolicyBody
from gateway.api.auth import ForbiddenOrigin
from gateway.api.documents import chat, events, messages, objects, operators, plain
from gateway.api.responses.lists import DEFAULT, MOST
from gateway.schemas.bodies import ChatBody, ResponsesBody
from gateway.schemas.conversation_bodies import ConversationUpdate, NewConversation, NewItems
from gateway.schemas.errors import (
    ApiError,
    Cancelled,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    RequestTimeout,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedEncoding,
)
from gateway.schemas.messages_body import MessagesBody
from gateway.schemas.plain.bodies import CompletionsBody, TokensBody

_READING = (InvalidRequest, RequestTimeout, TooLarge, UnsupportedEncoding)
_GENERATING = (*_READING, NotFound, Overloaded, Cancelled, Unavailable)
_COUNTING = (*_READING, NotFound, Overloaded, Unavailable)
_STORED = (NotFound, Unavailable)
_ADMIN = (Forbidden, NotFound)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query, or a header."""

    name: str
    schema: dict[str, Any]
    summary: str
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Operation:
    """One route.

    :param tag: the group of the route.
    :param body: the type of the body, or the name of its schema; so are the next two.
    :param answer: of the JSON answer; None: there is none.
    :param events: of the events that it sends if it is asked for a stream.
    :param media: of an answer that is not JSON.
    :param errors: refusals, in addition to those of every route.
    :param is_open: needs no key.
    """

    tag: str
    summary: str
    body: Any = None
    body_is_optional: bool = False
    answer: Any = None
    status: int = 200
    also: Mapping[int, str] | None = None  # other statuses with the same answer
    events: Any = None
    media: str = ""
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[type[ApiError], ...] = ()
    is_open: bool = False

    @property
    def refusals(self) -> tuple[type[ApiError], ...]:
        """All refusals but those of every route."""
        return self.errors if self.is_open else (*self.errors, Unauthorized, ForbiddenOrigin)


def _text(**bounds: Any) -> dict[str, Any]:
    return {"type": "string", **bounds}


_MILLISECONDS: Final = {"type": "number", "minimum": 1}
SLO: Final = (
    Parameter(
        "x-slo-tpot-ms",
        {**_MILLISECONDS, "maximum": 60_000},
        "The reader's pace: milliseconds per token.",
        "header",
    ),
    Parameter(
        "x-slo-ttft-ms",
        {**_MILLISECONDS, "maximum": 3_600_000},
        "When the reader expects the answer to begin, in milliseconds.",
        "header",
    ),
)
_PAGE: Final = (
    Parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT},
        "How many items.",
    ),
    Parameter("order", {"enum": ["asc", "desc"], "default": "desc"}, "Order by time."),
    Parameter("after", _text(), "The id of an item; the list begins behind it."),
)
_RESUMING: Final = (
    Parameter("stream", _text(default="false"), "`true`: send the events."),
    Parameter(
        "starting_after", {"type": "integer", "default": -1}, "The last event that is known."
    ),
)

_CONVERSATION: Final = "/v1/conversations/{conversation_id}"
_INSTANCE: Final = "/admin/instances/{instance_id}"

# By method and path.
OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/v1/responses"): Operation(
        "responses",
        "Start a response",
        body=ResponsesBody,
        answer=objects.Response,
        events=events.ResponseEvent,
        parameters=SLO,
        errors=_GENERATING,
    ),
    ("POST", "/v1/responses/input_tokens"): Operation(
        "responses",
        "Count the tokens of the prompt of a response",
        body=ResponsesBody,
        answer=objects.InputTokens,
        parameters=SLO,
        errors=_COUNTING,
    ),
    ("GET", "/v1/responses"): Operation(
        "responses",
        "Open a WebSocket; /asyncapi.json describes its messages",
        status=101,
        parameters=SLO,
        errors=(InvalidRequest,),
    ),
    ("GET", "/v1/responses/{response_id}"): Operation(
        "responses",
        "Look up a response, or resume its events",
        answer=objects.Response,
        events=events.ResponseEvent,
        parameters=_RESUMING,
        errors=(InvalidRequest, *_STORED),
    ),
    ("DELETE", "/v1/responses/{response_id}"): Operation(
        "responses",
        "Stop and delete a response",
        answer=objects.DeletedResponse,
        errors=_STORED,
    ),
    ("GET", "/v1/responses/{response_id}/input_items"): Operation(
        "responses",
        "List what was sent with a response",
        answer=objects.ItemList,
        parameters=_PAGE,
        errors=(InvalidRequest, *_STORED),
    ),
    ("POST", "/v1/responses/{response_id}/cancel"): Operation(
        "responses", "Stop a response", answer=objects.Response, errors=_STORED
    ),
    ("POST", "/v1/conversations"): Operation(
        "conversations",
        "Make a conversation",
        body=NewConversation,
        body_is_optional=True,
        answer=objects.Conversation,
        errors=(*_READING, *_STORED),
    ),
    ("GET", _CONVERSATION): Operation(
        "conversations", "Look up a conversation", answer=objects.Conversation, errors=_STORED
    ),
    ("POST", _CONVERSATION): Operation(
        "conversations",
        "Replace the metadata of a conversation",
        body=ConversationUpdate,
        answer=objects.Conversation,
        errors=(*_READING, *_STORED),
    ),
    ("DELETE", _CONVERSATION): Operation(
        "conversations",
        "Delete a conversation",
        answer=objects.DeletedConversation,
        errors=_STORED,
    ),
    ("GET", f"{_CONVERSATION}/items"): Operation(
        "conversations",
        "List the items of a conversation",
        answer=objects.ItemList,
        parameters=_PAGE,
        errors=(InvalidRequest, *_STORED),
    ),
    ("POST", f"{_CONVERSATION}/items"): Operation(
        "conversations",
        "Add items to a conversation",
        body=NewItems,
        answer=objects.ItemList,
        errors=(*_READING, *_STORED),
    ),
    ("GET", f"{_CONVERSATION}/items/{{item_id}}"): Operation(
        "conversations",
        "Look up an item of a conversation",
        answer=objects.ListedItem,
        errors=_STORED,
    ),
    ("DELETE", f"{_CONVERSATION}/items/{{item_id}}"): Operation(
        "conversations",
        "Delete an item of a conversation",
        answer=objects.Conversation,
        errors=(InvalidRequest, *_STORED),
    ),
    ("POST", "/v1/chat/completions"): Operation(
        "chat completions",
        "Start a chat completion",
        body=ChatBody,
        answer=chat.ChatCompletion,
        events="ChatEvent",
        parameters=SLO,
        errors=_GENERATING,
    ),
    ("POST", "/v1/completions"): Operation(
        "completions",
        "Go on with texts",
        body=CompletionsBody,
        answer=plain.Completion,
        events="CompletionEvent",
        parameters=SLO,
        errors=_GENERATING,
    ),
    ("POST", "/tokenize"): Operation(
        "tokens",
        "The tokens of a text or of a conversation",
        body="TokenizeBody",
        answer=plain.Tokens,
        parameters=SLO,
        errors=_COUNTING,
    ),
    ("POST", "/detokenize"): Operation(
        "tokens",
        "The text of tokens",
        body=TokensBody,
        answer=plain.TextOfTokens,
        errors=_COUNTING,
    ),
    ("POST", "/v1/messages"): Operation(
        "messages",
        "Start a message of Anthropic's API",
        body=MessagesBody,
        answer=messages.WrittenMessage,
        events=messages.MessagesEvent,
        parameters=SLO,
        errors=_GENERATING,
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        "messages",
        "Count the tokens of the prompt of a message",
        body="TokenCountBody",
        answer=messages.TokenCount,
        parameters=SLO,
        errors=_COUNTING,
    ),
    ("GET", "/v1/models"): Operation("models", "List the model", answer=operators.ModelList),
    ("GET", "/v1/models/{model}"): Operation(
        "models", "Describe the model", answer=operators.Model, errors=(NotFound,)
    ),
    ("GET", "/admin/instances"): Operation(
        "operators", "List the instances", answer=operators.InstanceList, errors=(Forbidden,)
    ),
    ("GET", _INSTANCE): Operation(
        "operators", "Describe an instance", answer=operators.InstanceState, errors=_ADMIN
    ),
    ("POST", f"{_INSTANCE}/drain"): Operation(
        "operators",
        "Move the requests of an instance away, and give it no new ones",
        body=DrainBody,
        body_is_optional=True,
        answer=operators.InstanceState,
        status=202,
        errors=(*_READING, *_ADMIN, Conflict),
    ),
    ("POST", f"{_INSTANCE}/undrain"): Operation(
        "operators", "Let an instance serve again", answer=operators.InstanceState, errors=_ADMIN
    ),
    ("GET", "/admin/ops"): Operation(
        "operators",
        "Open a WebSocket that tells what happens; /asyncapi.json describes its messages",
        status=101,
        errors=(Forbidden, InvalidRequest, Overloaded),
    ),
    ("GET", "/admin/policy"): Operation(
        "operators",
        "Say by what the instances schedule",
        answer=operators.Policies,
        errors=(Forbidden,),
    ),
    ("POST", "/admin/policy"): Operation(
        "operators",
        "Change the scheduling policy of all instances while they serve",
        body=PolicyBody,
        answer=operators.Policies,
        errors=(*_READING, Forbidden),
    ),
    ("GET", "/admin/demo"): Operation(
        "operators",
        "Say which load a demonstration has; `pascal demo` starts one",
        answer=operators.Demo,
        errors=_ADMIN,
    ),
    ("POST", "/admin/demo"): Operation(
        "operators",
        "Change the load of a demonstration, or kill a worker of this machine",
        body=DemoBody,
        answer=operators.Demo,
        errors=(*_READING, *_ADMIN, Conflict),
    ),
    ("GET", "/admin/placement"): Operation(
        "operators",
        "Say by which rule a request moves when it begins to answer",
        answer=operators.Placement,
        errors=(Forbidden,),
    ),
    ("POST", "/admin/placement"): Operation(
        "operators",
        "Change the rule at the phase boundary",
        body=PlacementBody,
        answer=operators.Placement,
        errors=(*_READING, Forbidden),
    ),
    ("GET", "/version"): Operation(
        "operators", "What runs here", answer=operators.Version, is_open=True
    ),
    ("GET", "/health"): Operation(
        "operators", "Answers while the gateway runs", answer=operators.Health, is_open=True
    ),
    ("GET", "/ready"): Operation(
        "operators",
        "Whether a new request would be served",
        answer=operators.Readiness,
        also={503: "A new request would not be served."},
        is_open=True,
    ),
    ("GET", "/metrics"): Operation(
        "operators",
        "Metrics for Prometheus; without a key, for this machine alone if keys were stored",
        media="text/plain",
        errors=(Unauthorized, Forbidden),
        is_open=True,
    ),
    ("GET", "/openapi.json"): Operation(
        "documents", "This document", media="application/json", is_open=True
    ),
    ("GET", "/asyncapi.json"): Operation(
        "documents", "The messages of the WebSocket", media="application/json", is_open=True
    ),
    ("GET", "/"): Operation("pages", "The chat page", media="text/html", is_open=True),
    ("GET", "/ops"): Operation("pages", "The operations page", media="text/html", is_open=True),
    ("GET", "/static/{path}"): Operation(
        "pages", "The files of the pages", media="*/*", errors=(NotFound,), is_open=True
    ),
}

# Routes that only answer that there is nothing: their names would be taken for ids.
NOT_SERVED: Final = frozenset({("POST", "/v1/responses/compact")})
