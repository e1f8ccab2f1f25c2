"""The id of the HTTP request for which something is done, in all lines of the log.

Lines take it from the context of their task, which tasks inherit. What timers and workers set off
happens outside of it; there, each response brings its id along.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import structlog


def of_request(x_request_id: str | None) -> AbstractContextManager[None]:
    """Log everything within this context, and in tasks that begin in it, with this id.

    It stands in lines as ``x_request_id``, since ``request_id`` is the id of a response. None: log
    with the id of the context around.
    """
    if x_request_id is None:
        return nullcontext()
    return structlog.contextvars.bound_contextvars(x_request_id=x_request_id)


def current_request() -> str | None:
    """The id of the HTTP request that this is done for, if any."""
    found: str | None = structlog.contextvars.get_contextvars().get("x_request_id")
    return found
