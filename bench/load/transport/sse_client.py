"""Client of the APIs that stream server-sent events over HTTP.

`EventStreams` sends each request as a POST and feeds its record with the events of the answer,
stamped when they are read off the socket. Idle connections are reused. It checks only the stream
itself; `bench.load.record` and `bench.load.transport.chat_chunks` check the events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final, Protocol

import aiohttp
import msgspec

from bench.load.options import Api
from bench.load.record import Error, ResponseRecord, decode
from bench.load.transport.chat_chunks import ChatReader
from bench.load.transport.interface import Clock, ServerError
from bench.load.transport.sse_events import EventParser

_PATHS: Final[Mapping[Api, str]] = {
    "responses-sse": "/v1/responses",
    "chat-sse": "/v1/chat/completions",
}
_CANCEL_TIMEOUT_S: Final = 5.0
_CONNECT_TIMEOUT_S: Final = 30.0


class _Refusal(msgspec.Struct, frozen=True):
    """Body of an error response."""

    error: Error | None = None


class _Reader(Protocol):
    def receive(self, data: bytes, received_s: float) -> None:
        """Take the data of one event; :raises msgspec.DecodeError: if it is invalid."""


class _ResponsesReader:
    """Feeds a record with the events of the Responses API."""

    def __init__(self, record: ResponseRecord) -> None:
        self._record = record

    def receive(self, data: bytes, received_s: float) -> None:
        if data != b"[DONE]":  # some servers end this stream as a chat completion
            self._record.receive(decode(data), received_s)


class EventStreams:
    """Responses or chat completions over SSE, as a `bench.load.transport.interface.Transport`.

    Create it within a running event loop.
    """

    def __init__(
        self, base_url: str, api: Api, *, api_key: str | None, clock: Clock = time.monotonic
    ) -> None:
        self._url = base_url + _PATHS[api]
        self._base_url = base_url
        self._chat = api == "chat-sse"
        self._clock = clock
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(self._headers_sent)
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            connector=aiohttp.TCPConnector(limit=0),  # one for each request in flight
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
            trace_configs=[tracing],
        )

    async def open(self) -> None:
        """Request the list of models; :raises ServerError: if that fails."""
        url = f"{self._base_url}/v1/models"
        try:
            async with self._session.get(url) as response:
                if response.status != 200:
                    raise ServerError(f"{url}: refused with HTTP {response.status}")
        except (aiohttp.ClientError, OSError) as error:
            raise ServerError(f"{url}: {_reason(error)}") from error

    async def exchange(
        self, name: str, body: Mapping[str, Any], record: ResponseRecord, timeout_s: float
    ) -> None:
        """Send one request and wait for its end; see `bench.load.transport.interface.Transport`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._stream(body, record)
        except TimeoutError:
            record.abandon(f"timed out after {timeout_s:g} s", self._clock())
            await self._cancel(record)
        except asyncio.CancelledError:
            record.interrupt(self._clock())
            await self._cancel(record)
            raise

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _stream(self, body: Mapping[str, Any], record: ResponseRecord) -> None:
        try:
            async with self._session.post(
                self._url,
                data=msgspec.json.encode(body),
                headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
                trace_request_ctx=record,
            ) as response:
                if response.status != 200 or response.content_type != "text/event-stream":
                    await self._refused(response, record)
                    return
                await self._read(response, record)
        except (aiohttp.ClientError, OSError) as error:
            if record.sent_s is None:
                raise ServerError(f"{self._url}: {_reason(error)}") from error
            record.abandon(f"connection lost: {_reason(error)}", self._clock())

    async def _read(self, response: aiohttp.ClientResponse, record: ResponseRecord) -> None:
        parser = EventParser()
        reader: _Reader = ChatReader(record) if self._chat else _ResponsesReader(record)
        try:
            async for chunk in response.content.iter_any():
                received_s = self._clock()
                for _, data in parser.feed(chunk):
                    reader.receive(data, received_s)
        except msgspec.DecodeError as error:
            record.abandon(f"the server sent an invalid event: {error}", self._clock())
            return
        if not parser.clean and record.ended:
            record.fail("the stream ended within an event")
        record.abandon("the stream ended before the response did", self._clock())

    async def _refused(self, response: aiohttp.ClientResponse, record: ResponseRecord) -> None:
        reason: Error | str | None
        try:
            reason = msgspec.json.decode(await response.read(), type=_Refusal).error
        except msgspec.DecodeError:
            reason = None
        if response.status == 200:
            reason = f"expected an event stream, got {response.content_type}"
        record.abandon(f"error {response.status}: {reason or response.reason}", self._clock())

    async def _cancel(self, record: ResponseRecord) -> None:
        """Cancel it on the server. A chat completion ends when its connection is closed."""
        if self._chat or record.response_id is None:
            return
        url = f"{self._url}/{record.response_id}/cancel"
        limit = aiohttp.ClientTimeout(total=_CANCEL_TIMEOUT_S)
        try:
            async with self._session.post(url, timeout=limit):
                pass
        except (aiohttp.ClientError, OSError):
            return  # the server is gone or cannot cancel: there is nothing more to do

    async def _headers_sent(
        self,
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        sent: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        """Stamp the request when it is sent, after its connection was opened."""
        record = context.trace_request_ctx
        if isinstance(record, ResponseRecord):
            record.sent_s = self._clock()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
