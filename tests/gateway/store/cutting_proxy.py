"""A proxy in front of PostgreSQL that breaks a connection at the commit of a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import urlsplit

Cut = Literal["before", "after"]  # the server gets the COMMIT


class CuttingProxy:
    """Forwards everything until `cuts` says otherwise."""

    def __init__(self, url: str) -> None:
        self.cuts: list[Cut] = []  # of the next commits
        self.done = 0
        self._target = urlsplit(url)
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CuttingProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"postgresql://{self._target.username}@127.0.0.1:{port}{self._target.path}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.port is not None
        target = await asyncio.open_connection("127.0.0.1", self._target.port)
        ways = [
            asyncio.create_task(self._forward(reader, target[1], (writer, target[1]))),
            asyncio.create_task(self._forward(target[0], writer, None)),
        ]
        self._tasks.update(ways)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, ...] | None,
    ) -> None:
        while data := await reader.read(65536):
            cut = self.cuts.pop(0) if both and self.cuts and b"COMMIT" in data else None
            if cut != "before":
                writer.write(data)
                await writer.drain()
            if cut is not None and both is not None:
                self.done += 1
                both[0].transport.abort()
                if cut == "before":
                    both[1].transport.abort()
                else:
                    both[1].close()
                return
        writer.close()
