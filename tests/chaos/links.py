"""Connections that can be cut, slowed down and stopped: proxies on real sockets.

Each worker has two. One stands in for its link. The other stands in for the channel on which other
workers ask for its KV: the endpoint in its welcome and its tickets are changed to the proxy's port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from gateway.routing.worker_link import WorkerLink, open_link
from workers.kv import tickets
from workers.messages import Endpoint, Step, Ticket, ToGateway, TokenRun

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

SLOW_S = 0.3  # delay of each chunk of data


class Proxy:
    """Forwards bytes; can be slowed, stopped or cut.

    :param dial: opens the other side.
    """

    def __init__(self, dial: Callable[[], Awaitable[Streams]]) -> None:
        self.delay_s = 0.0
        self.refusing = False  # new connections are closed at once
        self.cutting_next = False  # the next one is reset at its first answer
        self.opened = 0  # connections so far
        self._dial = dial
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def at_rest(self) -> bool:
        """Whether it only forwards bytes."""
        disturbed = self.delay_s or self.refusing or self.cutting_next
        return self._flowing.is_set() and not disturbed

    async def listen_unix(self, path: str) -> None:
        """Accept connections on a path."""
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def listen_tcp(self, host: str) -> int:
        """Accept connections on a free port; :return: the port."""
        self._server = await asyncio.start_server(self._serve, host, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Reset all open connections."""
        for writer in self._writers:
            writer.transport.abort()

    def stop(self) -> None:
        """Forward nothing: bytes wait, connections stay open."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Forward bytes again."""
        self._flowing.set()

    def close(self) -> None:
        """Accept no more connections, and reset the open ones."""
        if self._server is not None:
            self._server.close()
        self.go_on()
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            there, back = await self._dial()
        except OSError:
            writer.transport.abort()  # the worker does not listen yet
            return
        ends = {writer, back}
        self.opened += 1
        self._writers |= ends
        pipes = [
            asyncio.create_task(self._pipe(reader, back)),
            asyncio.create_task(self._pipe(there, writer, answers=True)),
        ]
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if answers and self.cutting_next:
                    self.cutting_next = False
                    return
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()


class Links:
    """The proxies of all workers."""

    def __init__(self) -> None:
        self.of: dict[str, Proxy] = {}  # of the link, by instance
        self.kv: dict[str, Proxy] = {}  # of the KV channel of its latest process, by instance
        self._ports: dict[tuple[str, int], int] = {}  # of the proxy, by a KV channel's address

    async def open_link(self, address: str, token: str | None, gateway: str) -> WorkerLink:
        """Replaces `gateway.routing.worker_link.open_link`."""
        path = address.removeprefix("unix:")
        name = Path(path).stem
        if name not in self.of:
            self.of[name] = proxy = Proxy(lambda: asyncio.open_unix_connection(path))
            await proxy.listen_unix(f"{path}.proxy")
        link = await open_link(f"unix:{path}.proxy", token, gateway)
        if (endpoint := link.welcome.endpoint) is not None:
            await self._stand_between(name, endpoint)
            link.welcome = msgspec.structs.replace(link.welcome, endpoint=self._moved(endpoint))
            run = link.run
            link.run = lambda handle: run(  # type: ignore[method-assign]
                lambda message: handle(self._readdressed(message))
            )
        return link

    def close(self) -> None:
        """Close all."""
        for proxy in (*self.of.values(), *self.kv.values()):
            proxy.close()

    async def _stand_between(self, name: str, endpoint: Endpoint) -> None:
        where = (endpoint.host, endpoint.port)
        if where in self._ports:
            return
        if name in self.kv:
            self.kv[name].close()  # it belonged to a process that has ended
        self.kv[name] = proxy = Proxy(lambda: asyncio.open_connection(*where))
        self._ports[where] = await proxy.listen_tcp(endpoint.host)

    def _moved(self, endpoint: Endpoint) -> Endpoint:
        port = self._ports[endpoint.host, endpoint.port]
        return msgspec.structs.replace(endpoint, port=port)

    def _readdressed(self, message: ToGateway) -> ToGateway:
        if not isinstance(message, Step):
            return message
        runs = tuple(self._of_run(run) for run in message.runs)
        return msgspec.structs.replace(message, runs=runs)

    def _of_run(self, run: TokenRun) -> TokenRun:
        finish = run.finish
        if finish is None or finish.ticket is None:
            return run
        finish = msgspec.structs.replace(finish, ticket=self._of_ticket(finish.ticket))
        return msgspec.structs.replace(run, finish=finish)

    def _of_ticket(self, ticket: Ticket) -> Ticket:
        data = tickets.decode(ticket.data)
        data = msgspec.structs.replace(data, port=self._ports[data.host, data.port])
        return msgspec.structs.replace(ticket, data=tickets.encode(data))
