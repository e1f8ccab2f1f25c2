"""Lists of the API: which part of a list a client asks for, and the object that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.history.conversations import no_such_item
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.open_calls import quoted

MOST = 100
DEFAULT = 20


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    after: str | None  # the id of the element before
    ascending: bool


def page_of(query: Mapping[str, str]) -> Page:
    """What a query asks for. Raises `InvalidRequest` naming the parameter."""
    text = query.get("limit", str(DEFAULT))
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 1 <= int(text) <= MOST):
        raise InvalidRequest(f"limit must be from 1 to {MOST}, not {quoted(text)}.", param="limit")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest(f"order must be asc or desc, not {quoted(order)}.", param="order")
    return Page(int(text), query.get("after") or None, order == "asc")


def part_of(items: list[dict[str, Any]], page: Page) -> dict[str, Any]:
    """The list object with the part of these items, which are in ascending order.

    :raises NotFound: ``after`` is the id of none.
    """
    ordered = items if page.ascending else items[::-1]
    start = 0
    if page.after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == page.after]
        if not places:
            raise no_such_item(page.after, "after")
        start = places[0] + 1
    part = ordered[start : start + page.limit]
    return list_object(part, more=start + page.limit < len(ordered))


def list_object(items: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """The list object of these items.

    :param more: whether others follow.
    """
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": more,
    }
