"""Claims of tickets over the side channel between engines: the client and the server.

The channel is the ZMQ socket of vLLM's NIXL handshakes, on any free port. This module adds one kind
of message: a claim, answered with the seconds for which the memory stays as it is (see
`workers.kv.tickets`). Must not know requests or blocks.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from threading import Event
from typing import Any

import msgspec
import structlog
import zmq
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata import GET_META_MSG

from workers.kv.tickets import TicketBook

_log = structlog.get_logger()

_CLAIM = b"claim"
_POLL_MS = 500  # how often the answering end looks whether it must stop
# An engine that does not answer within this time counts as dead, and gets no claim for a while:
# claims wait for each other.
_ANSWER_S = 1.0
_PAUSE_S = 5.0
_MOST_FRAME = 2**20  # bytes; a longer frame ends its sender's connection
_MOST_REASON = 200  # characters in the log


_seconds: msgspec.msgpack.Decoder[float | None] = msgspec.msgpack.Decoder(float | None)


class ClaimDesk:
    """Answers the claims of other engines."""

    def __init__(self, host: str, book: TicketBook) -> None:
        """Bind to a free port of this address; :raises zmq.ZMQError: if there is none."""
        self._book = book
        self._socket: zmq.Socket[bytes] = _socket(zmq.ROUTER, host)
        self._socket.setsockopt(zmq.RCVTIMEO, _POLL_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MOST_FRAME)
        self.port: int = self._socket.bind_to_random_port(_url(host))

    def serve(self, handshakes: Mapping[tuple[int, int], bytes], stop: Event) -> None:
        """Answer until ``stop`` is set; in a thread of its own.

        :param handshakes: what vLLM tells a reader, by rank.
        """
        while not stop.is_set():
            try:
                parts = self._socket.recv_multipart()
            except zmq.Again:
                continue
            except zmq.ContextTerminated:
                break
            try:
                identity, _, message = parts
                answer = self._answer(handshakes, *msgspec.msgpack.decode(message))
                self._socket.send_multipart([identity, b"", *answer])
            except Exception as error:  # noqa: BLE001 (from anybody: the others are still answered)
                reason = f"{type(error).__name__}: {error}"
                _log.warning("side_channel_message_refused", reason=reason[:_MOST_REASON])
        self._socket.close()

    def _answer(
        self, handshakes: Mapping[tuple[int, int], bytes], kind: bytes, first: Any, second: Any
    ) -> list[bytes]:
        now = time.perf_counter()
        if kind == GET_META_MSG:
            # vLLM's reader wants to hear this clock, too; nobody here makes use of it.
            return [handshakes[(first, second)], msgspec.msgpack.encode(now)]
        if kind != _CLAIM or not isinstance(first, str) or not isinstance(second, str):
            raise ValueError("neither a handshake nor a claim")
        return [msgspec.msgpack.encode(self._book.claim(first, second, now))]


class ClaimClient:
    """The end that asks. One thread at a time may use it."""

    def __init__(self) -> None:
        """Connects when it is asked to."""
        self._sockets: dict[tuple[str, int], zmq.Socket[bytes]] = {}
        self._paused_until: dict[tuple[str, int], float] = {}

    def greet(self, host: str, port: int) -> None:
        """Find out whether anybody answers there; :raises OSError: if not."""
        self.claim(host, port, "", "")

    def claim(self, host: str, port: int, ticket: str, reader: str) -> float | None:
        """Ask for the right to read.

        :return: until when, by `time.monotonic`, the memory stays; None: it must not be read.
        :raises OSError: if nobody answers, or in other words than these.
        """
        address = (host, port)
        asked = time.monotonic()
        if asked < self._paused_until.get(address, 0.0):
            raise OSError("the other engine did not answer lately")
        try:
            # A process that is gone refuses this at once, where ZMQ would go on trying.
            socket.create_connection(address, _ANSWER_S).close()
            if address not in self._sockets:
                self._sockets[address] = _socket(zmq.REQ, host)
                for limit in (zmq.RCVTIMEO, zmq.SNDTIMEO):
                    self._sockets[address].setsockopt(limit, round(_ANSWER_S * 1000))
                self._sockets[address].connect(f"{_url(host)}:{port}")
            self._sockets[address].send(msgspec.msgpack.encode((_CLAIM, ticket, reader)))
            left_s = _seconds.decode(self._sockets[address].recv())
        except (OSError, zmq.ZMQError, msgspec.MsgspecError, RecursionError) as error:
            self._paused_until[address] = time.monotonic() + _PAUSE_S
            if address in self._sockets:
                self._sockets.pop(address).close()
            raise OSError(f"the other engine does not answer: {error}") from error
        return None if left_s is None else asked + left_s


def _socket(kind: int, host: str) -> zmq.Socket[bytes]:
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.IPV6, ":" in host)
    return made


def _url(host: str) -> str:
    return f"tcp://[{host}]" if ":" in host else f"tcp://{host}"
