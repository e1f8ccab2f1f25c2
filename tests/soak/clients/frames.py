"""What the gateway sends, from bytes to messages: WebSocket frames, and events in HTTP chunks.

No I/O, and cheap: a thousand readers on one core must not be slower than the gateway.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Protocol

from tests.soak.clients.stream import Refused, Violation

_CONTINUED, _TEXT, _CLOSE, _PING, _PONG = 0, 1, 8, 9, 10
_NORMAL = struct.pack("!H", 1000)  # close code
_LARGEST_HEAD = 65_536  # bytes


class Parser(Protocol):
    """Takes bytes as they arrive, and gives whole messages."""

    goodbye: bytes  # what a client sends before it closes
    over: str  # how the server has ended the stream, in words; empty until then
    pongs: list[bytes]  # frames that must be sent back

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes. Raises `Refused` for an error answer, `Violation` for broken bytes."""


class WebSocketFrames:
    """The server's side of a WebSocket, from the answer to the upgrade on (RFC 6455)."""

    def __init__(self) -> None:
        self.goodbye = masked(_NORMAL, _CLOSE)
        self.over = ""
        self.pongs: list[bytes] = []
        self._rest = b""
        self._open = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; :return: the messages that they complete."""
        if self._rest:
            data = self._rest + data
        at = 0
        if not self._open:
            at = _end_of_head(data)
            if not at:
                self._rest = data
                return []
            if _status(data) != 101:
                raise Refused("upgrade", f"was answered by {data[:100]!r}", _status(data))
            self._open = True
        messages: list[bytes] = []
        while len(data) - at >= 2:
            first, size = data[at], data[at + 1]
            begin = at + 2
            if size == 126:
                begin += 2
                size = int.from_bytes(data[at + 2 : begin], "big")
            elif size == 127:
                begin += 8
                size = int.from_bytes(data[at + 2 : begin], "big")
            if len(data) < begin + size:  # also if the size itself is not complete
                break
            at = begin + size
            payload = data[begin:at]
            if first == 0x80 | _TEXT:
                messages.append(payload)
            else:
                self._control(first, payload)
        self._rest = data[at:]
        return messages

    def _control(self, first: int, payload: bytes) -> None:
        if first == 0x80 | _PING:
            self.pongs.append(masked(payload, _PONG))
        elif first == 0x80 | _CLOSE:
            code = int.from_bytes(payload[:2], "big")
            self.over = f"close {code} {payload[2:].decode()}".strip()
        elif first != 0x80 | _PONG:
            raise Violation(f"a frame begins with {first:#x}")


class ServerSentEvents:
    """An HTTP answer in chunks that carries server-sent events; gives their data."""

    def __init__(self) -> None:
        self.goodbye = b""
        self.over = ""
        self.pongs: list[bytes] = []  # none
        self._rest = b""  # of the head, then of a chunk
        self._text = b""  # of an event that is not complete
        self._open = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; :return: the data of the events that they complete."""
        if self._rest:
            data = self._rest + data
        at = 0
        if not self._open:
            at = _end_of_head(data)
            if not at or not _is_event_stream(data, at):
                self._rest = data
                return []
            self._open = True
        text = self._text
        while not self.over:
            line = data.find(b"\r\n", at)
            if line < 0:
                break
            size = int(data[at:line], 16)
            begin = line + 2
            if len(data) < begin + size + 2:
                break
            at = begin + size + 2
            text += data[begin : begin + size]
            if not size:
                self.over = "end of the stream"
        self._rest = data[at:]
        *events, self._text = text.split(b"\n\n")
        return [one[at + 6 :] for one in events if (at := one.find(b"data: ")) >= 0]


def masked(payload: bytes, opcode: int = _TEXT) -> bytes:
    """One whole frame of a client."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 2**16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    mask = os.urandom(4)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def _end_of_head(data: bytes) -> int:
    """Where the head of an answer ends; 0 if it is not complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0 and len(data) > _LARGEST_HEAD:
        raise Violation("the head of an answer does not end")
    return end + 4 if end >= 0 else 0


def _status(data: bytes) -> int:
    try:
        return int(data[:20].split()[1])
    except (IndexError, ValueError):
        raise Violation(f"no HTTP answer: {data[:60]!r}") from None


def _is_event_stream(data: bytes, begin: int) -> bool:
    """Whether the head is that of a stream; False while an error is not complete.

    Raises `Refused` for an error that is.
    """
    head = data[:begin].lower()
    status = _status(data)
    if status == 200 and b"chunked" in head:
        return True
    length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    if len(data) < begin + length:
        return False
    try:
        error = json.loads(data[begin:])["error"]
    except (ValueError, KeyError):
        raise Violation(f"no stream and no error: {data[:100]!r}") from None
    raise Refused(error["code"], error["message"], status)
