"""The parsers of the readers, with bytes cut at every place."""

from __future__ import annotations

import struct

import pytest

from tests.soak.clients.frames import Parser, ServerSentEvents, WebSocketFrames, masked
from tests.soak.clients.stream import Refused, Violation

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 2**16:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def fed(parser: Parser, data: bytes, size: int) -> list[bytes]:
    """The messages that come out of pieces of this size."""
    messages = []
    for at in range(0, len(data), size):
        messages += parser.feed(data[at : at + size])
    return messages


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 10**6])
def test_messages_of_every_size_are_found_wherever_the_bytes_are_cut(size: int) -> None:
    payloads = [b"", b"a", b"b" * 125, b"c" * 126, b"d" * 300, b"e" * 70_000]
    data = UPGRADED + b"".join(map(frame, payloads))
    assert fed(WebSocketFrames(), data, size) == payloads


def test_a_ping_is_answered_and_is_no_message() -> None:
    parser = WebSocketFrames()
    assert parser.feed(UPGRADED + frame(b"hello", 0x89) + frame(b"x")) == [b"x"]
    (pong,) = parser.pongs
    assert pong[0] == 0x8A
    assert unmasked(pong) == b"hello"


def test_a_close_says_why() -> None:
    parser = WebSocketFrames()
    parser.feed(UPGRADED + frame(struct.pack("!H", 1008) + b"too slow", 0x88))
    assert parser.over == "close 1008 too slow"


def test_a_fragment_is_a_violation() -> None:
    with pytest.raises(Violation, match="0x1"):
        WebSocketFrames().feed(UPGRADED + frame(b"half", 0x01))


def test_a_refused_upgrade_has_its_status() -> None:
    with pytest.raises(Refused, match="401") as refused:
        WebSocketFrames().feed(b"HTTP/1.1 401 Unauthorized\r\n\r\n")
    assert refused.value.status == 401


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_events_are_found_wherever_chunks_and_bytes_are_cut(size: int) -> None:
    text = b'event: a\ndata: {"x":1}\n\n: keep-alive\n\nevent: b\ndata: {"y":"\\n"}\n\n'
    for cut in range(1, len(text)):
        parser = ServerSentEvents()
        data = STREAM + chunk(text[:cut]) + chunk(text[cut:]) + chunk(b"")
        assert fed(parser, data, size) == [b'{"x":1}', b'{"y":"\\n"}']
        assert parser.over == "end of the stream"


def test_an_error_answer_is_a_refusal_once_it_is_complete() -> None:
    body = b'{"error": {"code": "server_overloaded", "message": "Later."}}'
    head = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: %d\r\n\r\n" % len(body)
    parser = ServerSentEvents()
    assert parser.feed(head + body[:10]) == []
    with pytest.raises(Refused, match="server_overloaded") as refused:
        parser.feed(body[10:])
    assert refused.value.status == 429


@pytest.mark.parametrize("size", [0, 3, 125, 126, 2**16 - 1, 2**16])
def test_a_masked_frame_carries_its_payload(size: int) -> None:
    payload = bytes(number % 251 for number in range(size))
    assert unmasked(masked(payload)) == payload


def unmasked(sent: bytes) -> bytes:
    """The payload of one frame of a client."""
    size = sent[1] & 0x7F
    at = {126: 4, 127: 10}.get(size, 2)
    key, data = sent[at : at + 4], sent[at + 4 :]
    if at > 2:
        size = int.from_bytes(sent[2:at], "big")
    assert len(data) == size
    return bytes(byte ^ key[number % 4] for number, byte in enumerate(data))
