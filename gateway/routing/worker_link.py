"""The gateway's end of the worker link: one WebSocket to one worker (see `workers.messages`).

Dials, shakes hands and turns frames into messages. It must not know what a message means: that is
the business of `gateway.routing.cluster`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import Event
from websockets.typing import BytesLike

from workers import messages
from workers.messages import Hello, Step, ToGateway, ToWorker, Welcome

_WELCOME_S = 10.0  # a worker listens only when it can serve, so it answers at once
_CLOSE_S = 1.0  # for the closing handshake; a worker that hangs does not answer
# A step frame holds a few tokens per running request; welcome and statistics are small. 16 MiB is
# far above either, and bounds how much a broken worker can make the gateway buffer.
MAX_FRAME_BYTES = 16 * 1024 * 1024
# A worker with more unsent bytes gets no further request. One request of any length fits.
_FULL_BYTES = messages.MAX_TO_WORKER_BYTES
# A worker with more unsent bytes does not read at all, and the link ends.
_MAX_UNSENT_BYTES = 4 * messages.MAX_TO_WORKER_BYTES


class LinkError(Exception):
    """The link cannot be used: refused, broken, or the other end does not keep to the protocol."""


class FrameTooLarge(Exception):
    """The message is larger than a worker accepts; to send it would end the link."""


class _Socket(ClientConnection):
    """Hands each message over when it arrives, without a task in between; only the first is read.

    `process_event` is where the library's own connections differ from each other. The tests of this
    module check it against the installed version.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.error: Exception | None = None  # why the link ended, if a message was the reason
        self._take: Callable[[bytes], None] | None = None
        self._early: list[bytes] = []  # messages that came before `take_all`
        self._greeted = False

    def take_all(self, take: Callable[[bytes], None]) -> None:
        """Hand over all messages after the first. If ``take`` raises, the connection ends."""
        self._take = take
        early, self._early = self._early, []
        for data in early:
            self._hand_over(data)

    def process_event(self, event: Event) -> None:
        """Take one event of the library."""
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif not self._greeted:
            self._greeted = event.fin
            super().process_event(event)
        elif not event.fin or event.opcode is Opcode.CONT:
            self._end(LinkError("a message came in fragments"))
        elif self._take is None:
            self._early.append(bytes(event.data))
        else:
            self._hand_over(event.data)

    def _hand_over(self, data: BytesLike) -> None:
        if self.error is not None or self._take is None:
            return
        try:
            self._take(data)  # type: ignore[arg-type]  # any bytes can be decoded
        except Exception as error:  # noqa: BLE001 (the reader of the link raises it)
            self._end(error)

    def _end(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            self.transport.abort()


class WorkerLink:
    """An open link after its handshake. Create it with `open_link`."""

    def __init__(self, socket: _Socket, welcome: Welcome) -> None:
        self.welcome = welcome
        self.last_heard_s = time.monotonic()
        self._socket = socket
        self.on_room: Callable[[], None] = lambda: None  # called when `full` ends
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._unsent_bytes = 0
        self._overflowed = asyncio.Event()
        self._sequence = 0

    @property
    def full(self) -> bool:
        """Whether further requests should go elsewhere, or wait, because too much is unsent."""
        return self._unsent_bytes > _FULL_BYTES

    def send(self, message: ToWorker) -> None:
        """Queue a message. Messages go out in the order of the calls.

        A link ends when its worker leaves too much unread.

        :raises FrameTooLarge: the message alone is too large. It is not sent.
        """
        frame = messages.encode(message)
        if len(frame) > messages.MAX_TO_WORKER_BYTES:
            raise FrameTooLarge
        if self._overflowed.is_set():
            return
        self._unsent_bytes += len(frame)
        if self._unsent_bytes > _MAX_UNSENT_BYTES:
            self._overflowed.set()
        else:
            self._outbox.put_nowait(frame)

    async def run(self, handle: Callable[[ToGateway], None]) -> None:
        """Exchange messages until the link ends.

        :raises LinkError: always, because a link only ends by an error while the gateway runs.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write())
                tasks.create_task(self._read(handle))
                tasks.create_task(self._bound())
        except ExceptionGroup as group:
            expected, bugs = group.split((LinkError, ConnectionClosed, msgspec.DecodeError))
            if bugs is not None or expected is None:
                raise
            raise LinkError(str(expected.exceptions[0])) from group

    async def close(self) -> None:
        """Close the connection."""
        await self._socket.close()

    async def _write(self) -> None:
        while True:
            frame = await self._outbox.get()
            await self._socket.send(frame)
            was_full = self.full
            self._unsent_bytes -= len(frame)
            if was_full and not self.full:
                self.on_room()

    async def _bound(self) -> None:
        await self._overflowed.wait()
        raise LinkError(f"the worker leaves {self._unsent_bytes >> 20} MiB of messages unread")

    async def _read(self, handle: Callable[[ToGateway], None]) -> None:
        def take(data: bytes) -> None:
            message = messages.decode_to_gateway(data)
            self.last_heard_s = time.monotonic()
            if isinstance(message, Step):
                if message.sequence != self._sequence:
                    raise LinkError(f"frame {message.sequence} came instead of {self._sequence}")
                self._sequence += 1
            handle(message)

        self._socket.take_all(take)
        try:
            await self._socket.recv(decode=False)  # ends with the connection
        except ConnectionClosed:
            if self._socket.error is not None:
                raise self._socket.error from None
            raise


async def open_link(address: str, token: str | None, gateway: str) -> WorkerLink:
    """Dial a worker and shake hands.

    :param address: ``unix:/path``, ``tcp://host:port``, ``ws://host:port``, or
        ``wss://host:port`` where a proxy ends TLS.
    :param gateway: the name of this gateway, which no other gateway has.
    :raises LinkError: if the worker is not there (yet), refuses, or speaks another protocol.
    """
    options = {
        "compression": None,
        "max_size": MAX_FRAME_BYTES,
        "ping_interval": None,
        "close_timeout": _CLOSE_S,
        "create_connection": _Socket,
    }
    try:
        if address.startswith("unix:"):
            socket = await unix_connect(address.removeprefix("unix:"), **options)  # type: ignore[arg-type]
        else:
            uri = address.replace("tcp://", "ws://", 1)
            # No proxy: that of the environment is for the outside world.
            socket = await connect(uri, proxy=None, **options)  # type: ignore[arg-type]
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise LinkError(f"cannot connect to {address}: {error}") from error
    try:
        async with asyncio.timeout(_WELCOME_S):
            hello = Hello(protocol=messages.PROTOCOL, gateway=gateway, token=token)
            await socket.send(messages.encode(hello))
            welcome = messages.decode_to_gateway(await socket.recv(decode=False))
    except (ConnectionClosed, msgspec.DecodeError, TimeoutError) as error:
        await socket.close()
        raise LinkError(f"no welcome from {address}: {error}") from error
    if not isinstance(welcome, Welcome) or welcome.protocol != messages.PROTOCOL:
        await socket.close()
        raise LinkError(f"{address} does not speak protocol {messages.PROTOCOL}")
    assert isinstance(socket, _Socket)
    return WorkerLink(socket, welcome)
