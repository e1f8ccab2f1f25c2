"""Callers that wait until an instance has accepted their new request."""

from __future__ import annotations

import asyncio

from gateway.response.session import Session
from gateway.schemas.errors import ApiError


class Acceptances:
    """One future for each request that no instance has accepted yet."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[None]] = {}  # by response

    def wait_for(self, session: Session) -> asyncio.Future[None]:
        """A future that is done when the request is accepted or over, or fails if it is refused."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting[session.response_id] = future
        return future

    def accept(self, session: Session) -> None:
        """Let the caller go on, if one still waits."""
        future = self.waiting.pop(session.response_id, None)
        if future is not None and not future.done():
            future.set_result(None)

    def refuse(self, session: Session, error: ApiError) -> bool:
        """Raise ``error`` in the caller; False if the request was accepted before."""
        future = self.waiting.pop(session.response_id, None)
        if future is not None and not future.done():
            future.set_exception(error)
        return future is not None
