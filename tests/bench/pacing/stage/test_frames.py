"""The bytes of frames, and what is found in them."""

from __future__ import annotations

import pytest

from bench.pacing.stage.frames import (
    ANSWER,
    ANSWER_TEXT,
    THINK,
    THOUGHT_TEXT,
    TRANSPORTS,
    Transport,
    client_message,
    mark,
    on_the_wire,
    payload_of,
    pong_for,
    ws_head,
)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("size", [1, 125, 126, 5000])
def test_a_frame_is_read_as_it_was_written(transport: Transport, size: int) -> None:
    payload = b"x" * size
    wire = on_the_wire(transport, payload)
    assert payload_of(transport, wire) == payload
    assert payload_of(transport, wire + wire) == payload
    assert payload_of(transport, wire[: size - 1]) is None


def test_what_is_no_frame_has_no_payload() -> None:
    assert payload_of("ws", b"\x89\x00\x00\x00") is None
    assert payload_of("sse", b"data: x\n\n") is None
    assert payload_of("chat", b"") is None


def test_no_header_of_a_frame_looks_like_a_mark() -> None:
    marks = (mark(THINK), mark(ANSWER))
    for size in range(1, 8192):
        wire = ws_head(size) + b'{"type":'
        assert not any(one in wire for one in marks)
    assert THOUGHT_TEXT.encode().count(mark(THINK)) == 1
    assert ANSWER_TEXT.encode().count(mark(ANSWER)) == 1
    assert mark(THINK) not in ANSWER_TEXT.encode()


def test_a_ping_gets_its_pong_and_a_length_does_not() -> None:
    ping = b"\x89\x02ab"
    data = on_the_wire("ws", b'{"x":1}') + ping
    assert pong_for(data, data.index(b"\x89")) == b"\x8a\x82\0\0\0\0ab"
    # 0x89 as the lower byte of a length
    data = on_the_wire("ws", b"x" * 0x189)
    assert pong_for(data, data.index(b"\x89")) is None


def test_a_clients_messages_have_a_mask_of_zeros() -> None:
    assert client_message(b"abc") == b"\x81\x83\0\0\0\0abc"
    assert client_message(b"x" * 300)[:8] == b"\x81\xfe\x01\x2c\0\0\0\0"
