"""How a response ends after a bug in the gateway: it fails, and the other responses go on.

Code that many requests share (links, timers, shutdown) runs its work for one request inside a
guard. The guards are in `gateway.routing.router` and `gateway.service`.
"""

from __future__ import annotations

import time

import structlog

from gateway import tracing
from gateway.response.session import Session
from gateway.schemas.errors import ApiError

log = structlog.get_logger()


def broken() -> ApiError:
    """The error for the client of such a response."""
    return ApiError("Internal error.", code="internal_error")


def fail_broken(session: Session) -> None:
    """End a response after a bug, even if `Session.fail` raises too."""
    now = time.monotonic()
    try:
        session.fail(broken(), now)
    except Exception:
        with tracing.of_request(session.x_request_id):
            log.exception("response_abandoned", request_id=session.response_id)
    if not session.log.closed:  # `fail` raised, now or earlier
        session.abandon(broken(), now)
