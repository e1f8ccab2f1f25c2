"""A pool of WebSockets, and the Responses API on it.

`ConnectionPool` lends connections and replaces lost ones. `WebSockets` sends requests on them. A
single connection is `bench.load.transport.websocket`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bench.load.record import ResponseRecord
from bench.load.transport.interface import Clock, ServerError
from bench.load.transport.websocket import Connection, Stream

_OPEN_TIMEOUT_S = 30.0


class _Slot:
    """A place for one connection, and the number of its users."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.users = 0
        self.connection: Connection | None = None
        self.lock = asyncio.Lock()  # held while the connection is opened


class ConnectionPool:
    """Lends the connection with the fewest users, or a new one while none is idle.

    ``limit`` bounds the number of open sockets; with None every stream in flight has its own.
    `close` must be called.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], limit: int | None) -> None:
        self._connect = connect
        self._limit = limit
        self._slots: list[_Slot] = []
        self._numbers = itertools.count()
        self._order: list[tuple[int, int, _Slot]] = []  # a heap by users; an old entry is ignored

    def __len__(self) -> int:
        return len(self._slots)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection to use within the context. A lost one is opened again.

        :raises ServerError: if it cannot be opened.
        """
        slot = self._pick()
        self._changed(slot, 1)
        try:
            async with slot.lock:
                if slot.connection is not None and slot.connection.closed:
                    lost, slot.connection = slot.connection, None
                    await lost.close()
                if slot.connection is None:
                    slot.connection = await self._connect()
                connection = slot.connection
            yield connection
        finally:
            self._changed(slot, -1)

    async def close(self) -> None:
        """Close all sockets with a closing handshake."""
        slots, self._slots = self._slots, []
        await asyncio.gather(*(slot.connection.close() for slot in slots if slot.connection))

    def _pick(self) -> _Slot:
        least = self._least()
        if least is None or (least.users > 0 and len(self._slots) != self._limit):
            least = _Slot(next(self._numbers))
            self._slots.append(least)
        return least

    def _least(self) -> _Slot | None:
        """The slot with the fewest users, from a heap, because thousands may share a pool."""
        while self._order:
            users, _, slot = self._order[0]
            if users == slot.users:
                return slot
            heapq.heappop(self._order)
        return None

    def _changed(self, slot: _Slot, by: int) -> None:
        slot.users += by
        heapq.heappush(self._order, (slot.users, slot.number, slot))


class WebSockets:
    """The Responses API over WebSocket, as a `bench.load.transport.interface.Transport`."""

    def __init__(
        self, url: str, *, api_key: str | None, limit: int | None, clock: Clock = time.monotonic
    ) -> None:
        """:param limit: maximum number of sockets; None: one for every request in flight."""
        self._url = url
        self._limit = limit
        self._clock = clock
        self._pool = ConnectionPool(
            lambda: Connection.open(url, api_key=api_key, clock=clock), limit
        )

    async def open(self) -> None:
        """Connect once, or open all shared sockets; :raises ServerError: if that fails.

        Shared sockets are opened early, because on a server under load a handshake may take longer
        than a request.
        """
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S), AsyncExitStack() as opened:
                for _ in range(self._limit or 1):
                    await opened.enter_async_context(self._pool.connection())
        except TimeoutError as error:
            raise ServerError(f"{self._url}: no answer within {_OPEN_TIMEOUT_S:g} s") from error

    async def exchange(
        self, name: str, body: Mapping[str, Any], record: ResponseRecord, timeout_s: float
    ) -> None:
        """Send one request and wait for its end; see `bench.load.transport.interface.Transport`."""
        stream: Stream | None = None
        try:
            async with asyncio.timeout(timeout_s), self._pool.connection() as connection:
                stream = await connection.create(name, body, record)
                await stream.wait()
        except TimeoutError:
            record.abandon(f"timed out after {timeout_s:g} s", self._clock())
            if stream is not None:
                await stream.cancel()
        except asyncio.CancelledError:
            record.interrupt(self._clock())
            if stream is not None:
                await stream.cancel()
            raise

    async def close(self) -> None:
        """Close all sockets with a closing handshake."""
        await self._pool.close()
