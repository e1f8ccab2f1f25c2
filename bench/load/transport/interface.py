"""The interface between the load generator and the transports of the different APIs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bench.load.record import ResponseRecord

# Not the event loop's time, which is cached.
Clock = Callable[[], float]


class ServerError(Exception):
    """The server cannot be used. The message names the address and the reason."""


class Transport(Protocol):
    """Connections to one server. `close` must be called."""

    async def open(self) -> None:
        """Check before the load that the server can be reached and accepts the API key.

        :raises ServerError: if not.
        """

    async def exchange(
        self, name: str, body: Mapping[str, Any], record: ResponseRecord, timeout_s: float
    ) -> None:
        """Send one request and return when its record has ended.

        A request that is given up, after ``timeout_s`` or because this call is cancelled, is also
        cancelled on the server. Otherwise its engine would go on generating.

        :param name: unique on this transport.
        :raises ServerError: if it could not be sent; then the record has not ended.
        """

    async def close(self) -> None:
        """Close everything."""
