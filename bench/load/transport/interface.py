"""How a request travels: the interface that the load generator drives, whichever API it speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bench.load.record import ResponseRecord

# A stamp must not depend on the event loop's cached time.
Clock = Callable[[], float]


class ServerError(Exception):
    """The server cannot be used; the message names the address and the reason."""


class Transport(Protocol):
    """Connections to one server. `close` must be called."""

    async def open(self) -> None:
        """Find out before the load whether the server is there and lets us in.

        :raises ServerError: if not.
        """

    async def exchange(
        self, name: str, body: Mapping[str, Any], record: ResponseRecord, timeout_s: float
    ) -> None:
        """Send one request and return when its record has ended, in whatever way.

        A request that is given up, after ``timeout_s`` or because this call is cancelled, is
        stopped on the server too: what nobody reads still costs its engine time.

        :param name: not used before on this transport.
        :raises ServerError: if it could not be sent; the record has not ended then.
        """

    async def close(self) -> None:
        """Close everything."""
