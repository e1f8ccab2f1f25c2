"""Readers of chat completions that cost little: raw protocols that count chunks.

`Readers` is a closed loop: a fixed number of streams, and a new request for each that ends. Nothing
parses JSON.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

from bench.reporting.errors import BenchmarkError

_QUOTED: Final = 300  # bytes of an error's body
_POLL_S: Final = 0.05


class LoadFailed(BenchmarkError):
    """A server refused a request, or broke a stream; the message says how."""


class ResponseParser:
    """Counts the server-sent events of one HTTP response with chunked coding. Pure."""

    def __init__(self) -> None:
        """The next bytes are the beginning of the response."""
        self.ended = False  # all of the response has come
        self.status = 0  # HTTP's; 0 until the head has come
        self._rest = b""  # received and not yet taken apart
        self._chunked = False
        self._left = 0  # bytes of the current part of the body, with its line end
        self._line = b""  # of the body, not complete yet

    def feed(self, data: bytes) -> int:
        """Take received bytes; :return: number of events in them, the closing `[DONE]` apart.

        :raises LoadFailed: if the server refuses, or answers something other than a stream.
        """
        data = self._rest + data
        if not self.status:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return 0
            self._begin(head, data)
        return self._count(self._body(data))

    def _begin(self, head: bytes, body: bytes) -> None:
        first, *fields = head.lower().split(b"\r\n")
        self.status = int(first.split(b" ")[1])
        self._chunked = any(
            field.startswith(b"transfer-encoding:") and b"chunked" in field for field in fields
        )
        if self.status != 200 or not self._chunked:
            shown = body[:_QUOTED].decode(errors="replace")
            raise LoadFailed(f"status {self.status}, not a stream: {shown}")

    def _body(self, data: bytes) -> bytes:
        """Take the chunked coding off."""
        parts, at = [], 0
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                at += len(part)
                # The last two bytes of the part are its line end.
                parts.append(part[: max(0, self._left - 2)])
                self._left -= len(part)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            size = int(data[at:end].partition(b";")[0], 16)
            if not size:  # the end; no trailers are expected
                self.ended = data[end + 2 :] == b"\r\n"
                break
            at, self._left = end + 2, size + 2
        self._rest = data[at:]
        return b"".join(parts)

    def _count(self, text: bytes) -> int:
        *lines, self._line = (self._line + text).split(b"\n")
        return sum(
            line.startswith(b"data: ") and not line.startswith(b"data: [DONE]") for line in lines
        )


class Readers:
    """Streams that are read while the ``async with`` block runs."""

    def __init__(
        self,
        url: str,
        streams: int,
        body: Callable[[int], Mapping[str, Any]],
        api_key: str = "",
    ) -> None:
        """Nothing connects before the block.

        :param body: of the request with this number; `stream` is added.
        :param api_key: a bearer token; empty: none.
        """
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._body = body
        self._authorization = f"authorization: Bearer {api_key}\r\n" if api_key else ""
        self._requests = 0
        self._streams = [_Stream(self) for _ in range(streams)]
        self._tasks: set[asyncio.Task[None]] = set()
        self.chunks = 0  # received by all, so far
        self.failure: LoadFailed | None = None  # the first one

    async def __aenter__(self) -> Self:
        """Connect all of them; :raises LoadFailed: if the server does not listen."""
        try:
            for stream in self._streams:
                await self.connect(stream)
        except OSError as error:
            self._close()
            raise LoadFailed(f"no connection: {error}") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Break all streams off, and wait until their sockets are closed.

        A server that is asked to end waits for those that are open.
        """
        self._close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(stream.disconnected.wait() for stream in self._streams))

    async def all_begun(self, timeout_s: float) -> None:
        """Wait until every stream has had a chunk.

        :raises LoadFailed: if that takes longer than the timeout, or a stream fails.
        """
        give_up_s = time.monotonic() + timeout_s
        while not all(stream.begun for stream in self._streams):
            await self.run(_POLL_S)
            if time.monotonic() > give_up_s:
                begun = sum(stream.begun for stream in self._streams)
                raise LoadFailed(
                    f"{begun} of {len(self._streams)} streams began within {timeout_s:.0f} s"
                )

    async def run(self, seconds: float) -> None:
        """Let them read for a time; :raises LoadFailed: if a stream failed."""
        await asyncio.sleep(seconds)
        if self.failure is not None:
            raise self.failure

    # ---- for the streams

    async def connect(self, stream: _Stream) -> None:
        """Connect a stream, which then asks."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: stream, self._host, self._port)

    def reconnect(self, stream: _Stream) -> None:
        """Connect a stream again whose connection the server closed after an answer."""
        task = asyncio.create_task(self._connect_again(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def next_request(self) -> bytes:
        """The bytes of one more request."""
        body = json.dumps({**self._body(self._requests), "stream": True}).encode()
        self._requests += 1
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"{self._authorization}content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def failed(self, error: LoadFailed) -> None:
        """A stream failed."""
        self.failure = self.failure or error

    async def _connect_again(self, stream: _Stream) -> None:
        try:
            await self.connect(stream)
        except OSError as error:
            self.failed(LoadFailed(f"no connection: {error}"))

    def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for stream in self._streams:
            stream.close()


class _Stream(asyncio.Protocol):
    """One reader: asks, counts, asks again."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._closed = False
        self._transport: asyncio.Transport | None = None
        self._parser = ResponseParser()
        self.begun = False  # a chunk has come
        self.disconnected = asyncio.Event()
        self.disconnected.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._answers = 0  # on this connection
        self.disconnected.clear()
        if self._closed:
            self._transport.abort()
            return
        self._ask()

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        try:
            events = parser.feed(data)
        except (LoadFailed, ValueError, IndexError) as error:
            wrong = error if isinstance(error, LoadFailed) else LoadFailed(f"not HTTP: {error}")
            self._readers.failed(wrong)
            self.close()
            return
        if events:
            self._readers.chunks += events
            self.begun = True
        if parser.ended:
            self._answers += 1
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.disconnected.set()
        if self._closed:
            return
        if self._answers and not self._parser.status:  # closed between two answers
            self._readers.reconnect(self)
        else:
            reason = str(exc or "the server closed it")
            self._readers.failed(LoadFailed(f"a stream broke off: {reason}"))

    def close(self) -> None:
        """Break the stream off."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def _ask(self) -> None:
        assert self._transport is not None
        self._parser = ResponseParser()
        self._transport.write(self._readers.next_request())
