"""Responses over HTTP that arrive as one object at their end, without a stream.

`WholeResponses` costs the server and this process less than a stream does. It measures nothing but
when a response ended, so ``pascal load`` does not offer it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from bench.load.record import Event, ResponseObject, ResponseRecord
from bench.load.transport.interface import Clock, ServerError


class WholeResponses:
    """The Responses API without a stream, as a `bench.load.transport.interface.Transport`.

    Must be created within a running event loop.
    """

    def __init__(self, base_url: str, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._session = aiohttp.ClientSession(
            base_url,
            connector=aiohttp.TCPConnector(limit=0),  # one for each request in flight
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def open(self) -> None:
        """Do nothing: every request opens its own connection."""

    async def exchange(
        self, name: str, body: Mapping[str, Any], record: ResponseRecord, timeout_s: float
    ) -> None:
        """Send one request and wait for its end. The server cancels it if its connection closes."""
        record.sent_s = self._clock()
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.post("/v1/responses", json=body) as answer,
            ):
                text = await answer.read()
        except TimeoutError:
            record.abandon(f"timed out after {timeout_s:g} s", self._clock())
        except aiohttp.ClientError as error:
            raise ServerError(f"a response failed: {error}") from error
        except asyncio.CancelledError:
            record.interrupt(self._clock())
            raise
        else:
            if answer.status != 200:
                record.abandon(f"error {answer.status}: {text.decode()}", self._clock())
                return
            self._receive(msgspec.json.decode(text, type=ResponseObject), record)

    def _receive(self, response: ResponseObject, record: ResponseRecord) -> None:
        """Feed the record with the events of a stream that delivers each text at once."""
        received_s = self._clock()
        events = [
            Event("response.reasoning_text.delta", delta=response.text("reasoning")),
            Event("response.output_text.delta", delta=response.text("message")),
            Event(f"response.{response.status}", response=response),
        ]
        for number, event in enumerate(events):
            record.receive(msgspec.structs.replace(event, sequence_number=number), received_s)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
