"""A TCP proxy between browser and server that does what bad networks do."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from urllib.parse import urlsplit

_CHUNK = 65536


class Proxy:
    """``async with Proxy(server.url) as proxy``: the server is then also at ``proxy.url``."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self.url = ""
        self.jitter_s = 0.0  # each chunk to the browser is late by up to this
        self.round_trip_s = 0.0  # of all bytes, and of the handshake of a connection
        self._links: set[_Link] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def swallow(self) -> None:
        """Existing connections stay open and carry nothing any more; new ones work."""
        for link in self._links:
            link.dead = True

    def cut(self) -> None:
        """Reset existing connections."""
        for link in list(self._links):
            link.abort()

    async def stall(self, seconds: float) -> None:
        """Carry nothing for a while, and lose nothing."""
        links = list(self._links)
        for link in links:
            link.open.clear()
        await asyncio.sleep(seconds)
        for link in links:
            link.open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):  # nobody waits for this task
            await asyncio.sleep(self.round_trip_s)
            other_reader, other_writer = await asyncio.open_connection(*self._target)
            link = _Link(self, writer, other_writer)
            self._links.add(link)
            try:
                await asyncio.gather(
                    link.carry(reader, other_writer, late=False),
                    link.carry(other_reader, writer, late=True),
                )
            finally:
                self._links.discard(link)
                link.abort()


class _Link:
    def __init__(self, proxy: Proxy, *writers: asyncio.StreamWriter) -> None:
        self.dead = False
        self.open = asyncio.Event()
        self.open.set()
        self._proxy = proxy
        self._writers = writers

    def abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, late: bool
    ) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(self._arrive(on_the_way, writer, late=late))
        clock = asyncio.get_running_loop().time
        try:
            with suppress(ConnectionError):
                while data := await reader.read(_CHUNK):
                    on_the_way.put_nowait((clock() + self._proxy.round_trip_s / 2, data))
            on_the_way.put_nowait((0.0, b""))
            await arriving
        finally:
            arriving.cancel()

    async def _arrive(
        self,
        on_the_way: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        *,
        late: bool,
    ) -> None:
        clock = asyncio.get_running_loop().time
        with suppress(ConnectionError):
            while (item := await on_the_way.get())[1]:
                due_s, data = item
                await asyncio.sleep(max(0.0, due_s - clock()))
                if self.dead:
                    continue
                if late and self._proxy.jitter_s:
                    await asyncio.sleep(random.uniform(0, self._proxy.jitter_s))
                await self.open.wait()
                writer.write(data)
                await writer.drain()
            if not self.dead:
                writer.close()
