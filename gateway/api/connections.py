"""Connections of the HTTP server: time-outs and errors for which aiohttp has no setting.

A connection is closed if its request is not complete in time, or if its client accepts no data.
Malformed HTTP gets an error in OpenAI's form. Double and trailing slashes in a path are ignored.

`Connection` extends aiohttp's `web.RequestHandler`, and `HttpRunner` its `web.AppRunner`, at
methods outside of the documented interface. The tests of this module check them against the
installed version.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from gateway import tracing
from gateway.api import refusals
from gateway.api.headers import request_ids
from gateway.api.outlet import Outbox, Outlet
from gateway.descriptors import DescriptorWatch
from gateway.schemas.errors import ApiError, HeadersTooLarge, InvalidHttp

log = structlog.get_logger()

OnRefusal = Callable[[ApiError, str, str | None], None]

HEADER_BYTES = 32 * 1024  # of the request line, and of one header field
_DISCARD_S = 1.0  # how long to read the rest of a malformed request, so that its error arrives
_SLASHES = re.compile("/{2,}")


class HttpRunner(web.AppRunner):
    """Runs an application on connections with time-outs.

    :param header_timeout_s: time for the request line and the headers, from the beginning of the
        connection or the first byte of a later request. An idle connection does not time out.
    :param send_timeout_s: time for the client to accept data. For no longer does a stalled client
        occupy a connection, its buffers and the handler that writes to it.
    :param on_refusal: called with the error, method and path of each request without a handler.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        header_timeout_s: float,
        send_timeout_s: float,
        on_refusal: OnRefusal,
        watch: DescriptorWatch,
        **kwargs: Any,
    ) -> None:
        super().__init__(app, **kwargs)
        self.outbox = Outbox()
        self._timeouts = _Timeouts(header_timeout_s, send_timeout_s)
        self._on_refusal = on_refusal
        self._watch = watch

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return _Server(plain, self._timeouts, self.outbox, self._on_refusal, self._watch)


@dataclass(frozen=True, slots=True)
class _Timeouts:
    header_s: float
    send_s: float


class _Server(web.Server):
    """Makes the connections; in all else it equals the server that it is made from."""

    def __init__(
        self,
        plain: web.Server,
        timeouts: _Timeouts,
        outbox: Outbox,
        on_refusal: OnRefusal,
        watch: DescriptorWatch,
    ) -> None:
        super().__init__(
            _with_errors(plain.request_handler, on_refusal),
            request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
            **plain._kwargs,
        )
        self._make_plain_request = plain.request_factory
        self.request_factory = self._make_clean_request
        self.timeouts = timeouts
        self.outbox = outbox
        self.on_refusal = on_refusal
        self.watch = watch

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def _make_clean_request(self, message: Any, *rest: Any) -> web.BaseRequest:
        url = message.url
        path = _SLASHES.sub("/", url.raw_path).rstrip("/") or "/"
        if path != url.raw_path:
            # Not a redirect: clients would repeat a POST as a GET, without its body.
            url = url.with_path(path, encoded=True, keep_query=True)
            message = message._replace(url=url)
        return self._make_plain_request(message, *rest)


class Connection(web.RequestHandler):
    """One connection of a client."""

    __slots__ = ("_broken", "_header_timer", "_sent_all", "_server", "outlet")

    def __init__(self, server: _Server, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._server = server
        self._header_timer: asyncio.TimerHandle | None = None
        self._broken = False  # the client sent something other than HTTP
        self._sent_all = asyncio.Event()  # the client will send nothing more
        self.outlet = Outlet(server.outbox, server.timeouts.send_s)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect the request of a client that has connected."""
        super().connection_made(transport)
        self.outlet.open(cast(asyncio.Transport, transport))
        self._expect_header()
        connection = transport.get_extra_info("socket")
        if connection is not None:
            self._server.watch.accepted(connection.fileno())
            _bound_sending(connection.fileno(), self._server.timeouts.send_s)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timer of a connection that has ended."""
        self._stop_timer()
        self._sent_all.set()
        if isinstance(exc, TimeoutError):  # the system has ended it: see `_bound_sending`
            self.outlet.note_stall()
        self.outlet.lose()
        super().connection_lost(exc)
        self._data_received_cb = None  # it refers to this connection

    def pause_writing(self) -> None:
        """Send nothing more for now: the client is slower than its streams."""
        super().pause_writing()
        self.outlet.pause()

    def resume_writing(self) -> None:
        """Send again."""
        super().resume_writing()
        self.outlet.resume()

    def eof_received(self) -> None:
        """Note that the client sends nothing more."""
        self._sent_all.set()
        super().eof_received()

    def data_received(self, data: bytes) -> None:
        """Take bytes of requests, of a body, or of a WebSocket."""
        idle, requests = self._waiter is not None, self._request_count
        super().data_received(data)
        if self._request_count != requests:
            self._stop_timer()
        elif data and idle and self._header_timer is None:
            self._expect_header()  # the beginning of another request on this connection

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer malformed HTTP or an unexpected exception, and end the connection.

        :raises ConnectionError: part of a response was sent already.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("Part of a response was sent already.")
        name = request_ids.request_id_of(request.headers)
        with tracing.of_request(name):
            if status >= web.HTTPInternalServerError.status_code:
                log.error("request_failed", exc_info=exc)
                error = ApiError("Internal error.", code="internal_error")
            else:
                self._broken = True
                self._close = True  # ignore all that follows
                error = _of_parser(exc, message or "")
                self._server.on_refusal(error, request.method, None)
        response = refusals.error_response(error)
        response.headers[request_ids.HEADER] = name
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the rest of a response."""
        finished = await super().finish_response(request, resp, start_time)
        if self._broken and self.transport is not None and not self.transport.is_closing():
            # Closing with unread bytes would reset the connection and lose the error.
            self.transport.write_eof()
            try:
                await asyncio.wait_for(self._sent_all.wait(), _DISCARD_S)
            except TimeoutError:
                pass  # it is still sending
        return finished

    def _expect_header(self) -> None:
        self._header_timer = self._loop.call_later(
            self._server.timeouts.header_s, self._close_incomplete
        )

    def _close_incomplete(self) -> None:
        self._header_timer = None
        log.debug("incomplete_request_closed")
        self.force_close()

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def outlet_of(request: web.BaseRequest) -> Outlet:
    """The sending side of the connection of a request."""
    assert isinstance(request.protocol, Connection)
    return request.protocol.outlet


def _bound_sending(descriptor: int, timeout_s: float) -> None:
    """Have the system end a TCP connection on which nothing can be sent for ``timeout_s``.

    A deadline for each write would not be enough: closing a connection waits until its buffer is
    sent, without a limit.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):  # not Linux
        return
    connection = socket.socket(fileno=descriptor)  # no duplicate: no descriptor may be left
    try:
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            milliseconds = round(timeout_s * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    finally:
        connection.detach()  # the transport closes it


def _with_errors(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], on_refusal: OnRefusal
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Answer what aiohttp refuses before the middlewares see it: an unknown ``Expect``."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            refusal = refusals.of_http(error, request)
            name = request_ids.request_id_of(request.headers)
            with tracing.of_request(name):
                on_refusal(refusal, request.method, request.rel_url.raw_path)
            response = refusals.error_response(refusal)
            response.headers[request_ids.HEADER] = name
            return response

    return handle


def _of_parser(error: BaseException | None, message: str) -> ApiError:
    """Return the error for input that aiohttp's parser refuses, without quoting the input."""
    if isinstance(error, LineTooLong):
        return HeadersTooLarge(HEADER_BYTES)
    what = (message or "it cannot be parsed").splitlines()[0].partition(":")[0]
    return InvalidHttp(what)
