"""Bodies of the routes of conversations."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.schemas.bodies import parse_json_object
from gateway.schemas.errors import InvalidRequest, convert

MOST_ITEMS = 20  # that are added at a time
MOST_METADATA = 16  # pairs
LONGEST_KEY = 64  # characters
LONGEST_VALUE = 512

Items = Annotated[list[Any], Meta(max_length=MOST_ITEMS)]
Metadata = Annotated[
    dict[
        Annotated[str, Meta(extra_json_schema={"maxLength": LONGEST_KEY})],
        Annotated[str, Meta(extra_json_schema={"maxLength": LONGEST_VALUE})],
    ],
    Meta(max_length=MOST_METADATA),  # `_check` holds the other two
]


class NewConversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/conversations``."""

    items: Items = []
    metadata: Metadata = {}

    def __post_init__(self) -> None:
        _check(self.metadata)


class ConversationUpdate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/conversations/{id}``; without metadata there is none any longer."""

    metadata: Metadata = {}

    def __post_init__(self) -> None:
        _check(self.metadata)


class NewItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/conversations/{id}/items``."""

    items: Items
    include: list[str] = []  # nothing of an item is left out


def parse_new_conversation(data: bytes) -> NewConversation:
    """Check the body, which may be empty. Raises `InvalidRequest` naming the field."""
    return convert(parse_json_object(data) if data else {}, NewConversation)


def parse_update(data: bytes) -> ConversationUpdate:
    """Check the body. Raises `InvalidRequest` naming the field."""
    return convert(parse_json_object(data), ConversationUpdate)


def parse_new_items(data: bytes) -> NewItems:
    """Check the body. Raises `InvalidRequest` naming the field."""
    return convert(parse_json_object(data), NewItems)


def _check(metadata: dict[str, str]) -> None:
    for key, value in metadata.items():
        if len(key) > LONGEST_KEY:
            raise InvalidRequest(f"A key has at most {LONGEST_KEY} characters.", param="metadata")
        if len(value) > LONGEST_VALUE:
            raise InvalidRequest(
                f"A value has at most {LONGEST_VALUE} characters.", param=f"metadata.{key}"
            )
