"""The id of the HTTP request, in the lines of a worker's log that are about a response.

Those lines name the response by ``request_id``, as its worker knows it. The gateway sends along the
id of the HTTP request, so that one search finds the lines of gateway and workers.
"""

from __future__ import annotations

from structlog.typing import EventDict

_MOST_KEPT = 4096  # responses; a worker logs about those that it runs, or ran lately

_ids: dict[str, str] = {}  # by ``request_id``, the oldest first


def note(request_id: str, x_request_id: str | None) -> None:
    """Log what is about this response with the id of the HTTP request from now on."""
    _ids.pop(request_id, None)
    if x_request_id is not None:
        _ids[request_id] = x_request_id
        if len(_ids) > _MOST_KEPT:
            del _ids[next(iter(_ids))]


def add_x_request_id(_: object, __: str, event: EventDict) -> EventDict:
    """Add ``x_request_id`` to an event that has the ``request_id`` of a known response."""
    found = _ids.get(event.get("request_id", ""))
    if found is not None:
        event.setdefault("x_request_id", found)
    return event
