"""What is done with a response that meets a bug: it fails, and nothing else does.

Code that many requests share (links, timers, shutdown) calls what it does for one of them inside a
guard, see `gateway.routing.router.Router.guarded` and `gateway.service`.
"""

from __future__ import annotations

import time

import structlog

from gateway.response.session import Session
from gateway.schemas.errors import ApiError

log = structlog.get_logger()


def broken() -> ApiError:
    """The error that the client of such a response gets."""
    return ApiError("Internal error.", code="internal_error")


def fail_broken(session: Session) -> None:
    """End a response after a bug, even if ending it in the usual way raises, too."""
    now = time.monotonic()
    try:
        session.fail(broken(), now)
    except Exception:
        log.exception("response_abandoned", request_id=session.response_id)
    if not session.log.closed:  # it raised above, or in the middle of its end
        session.abandon(broken(), now)
