"""References to items (``item_reference``): the items of earlier responses, in their places.

The id of an item contains the number of its response, or of the conversation to which a client
added it. So no index of items is needed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from gateway.schemas.errors import InvalidRequest, NotFound
from gateway.schemas.open_calls import quoted

Item: TypeAlias = dict[str, Any]
# The items of a response or a conversation of an owner; empty without such a one.
ItemsOf: TypeAlias = Callable[[str, str], Awaitable[list[Item]]]

REFERENCE = "item_reference"
MOST_RESPONSES = 1024  # that one request refers to
_ID = re.compile(r"[a-z]{1,8}_(?P<number>[0-9a-f]{32})(?:_(?:(?P<place>c\d{1,9})|i?\d{1,9}))?")


async def resolved(
    items: list[Any], owner: str, items_of: ItemsOf, most_bytes: int, name: str = "input"
) -> list[Any]:
    """The items, with what they refer to instead of each reference.

    :param most_bytes: of all items that are referred to, as JSON.
    :param name: of the field that has the items.
    :raises InvalidRequest: a reference is wrong, double, or leads to too much; names the field.
    :raises NotFound: this owner has no such item, or its response is no longer kept.
    """
    wholes: dict[str, dict[str, Item]] = {}  # responses and conversations
    found, seen, size_bytes = list(items), set(), 0
    for index, value in enumerate(items):
        if not _is_reference(value):
            continue
        where = f"{name}[{index}].id"
        item_id = value.get("id")
        if not isinstance(item_id, str):
            raise InvalidRequest("A reference has the 'id' of an item.", param=where)
        if item_id in seen:
            raise InvalidRequest(f"Two references have the id {quoted(item_id)}.", param=where)
        match = _ID.fullmatch(item_id)
        if match is None:
            raise _not_found(item_id, where)
        whole_id = f"{'conv' if match['place'] else 'resp'}_{match['number']}"
        if whole_id not in wholes:
            if len(wholes) == MOST_RESPONSES:
                raise InvalidRequest(
                    f"The items belong to more than {MOST_RESPONSES} responses.", param=where
                )
            known = await items_of(whole_id, owner)
            wholes[whole_id] = {item["id"]: item for item in known if "id" in item}
        item = wholes[whole_id].get(item_id)
        if item is None:
            raise _not_found(item_id, where)
        size_bytes += len(msgspec.json.encode(item))
        if size_bytes > most_bytes:
            raise InvalidRequest(
                f"The items that are referred to have more than {most_bytes} bytes.", param=where
            )
        seen.add(item_id)
        found[index] = item
    return found


def _is_reference(value: Any) -> bool:
    """Whether this is a reference; its type may be left out."""
    if not isinstance(value, dict):
        return False
    return value.get("type") == REFERENCE or value.keys() == {"id"}


def _not_found(item_id: str, where: str) -> NotFound:
    return NotFound(f"Item {quoted(item_id)} not found.", code="item_not_found", param=where)
