"""The bytes of the benchmark: texts of tokens, and the frames on a socket. Pure.

Each token's text ends with two characters that no event has elsewhere. So a client counts tokens in
whatever it received with one pass over the bytes, without parsing it. One character would not do,
because it may also be the length in the header of a WebSocket frame.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Transport: TypeAlias = Literal["ws", "sse", "chat"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("ws", "sse", "chat")

# What the request of a stream says, and so what the scripted worker sends it.
THINK: Final = "think"  # reasoning tokens without end
ANSWER: Final = "answer"  # perhaps some reasoning tokens, then answering tokens

THOUGHT_MARK: Final = "^^"
ANSWER_MARK: Final = "~~"
THOUGHT_TEXT: Final = " th" + THOUGHT_MARK
ANSWER_TEXT: Final = " wo" + ANSWER_MARK


def mark(role: str) -> bytes:
    """What ends each token which a stream of this role counts."""
    return (THOUGHT_MARK if role == THINK else ANSWER_MARK).encode()


def marks_per_token(transport: Transport, role: str) -> int:
    """How often a token's text is in its frame: chat completions carry thoughts twice."""
    return 2 if transport == "chat" and role == THINK else 1


def ws_head(size_bytes: int) -> bytes:
    """The header of an unmasked text frame."""
    if size_bytes < 126:
        return bytes((0x81, size_bytes))
    if size_bytes < 1 << 16:
        return b"\x81\x7e" + size_bytes.to_bytes(2, "big")
    return b"\x81\x7f" + size_bytes.to_bytes(8, "big")


def on_the_wire(transport: Transport, payload: bytes) -> bytes:
    """A frame with this payload: a WebSocket message, or a chunk of an HTTP body."""
    if transport == "ws":
        return ws_head(len(payload)) + payload
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def payload_of(transport: Transport, received: bytes) -> bytes | None:
    """The payload of the first frame in ``received``; None unless all of that frame is there."""
    if transport == "ws":
        if len(received) < 2 or received[0] != 0x81:
            return None
        size, start = received[1], 2
        if size == 126:
            size, start = int.from_bytes(received[2:4], "big"), 4
    else:
        head, separator, _ = received.partition(b"\r\n")
        try:
            size, start = int(head, 16), len(head) + len(separator)
        except ValueError:
            return None
    payload = received[start : start + size]
    return payload if len(payload) == size and payload else None


def pong_for(received: bytes, at: int) -> bytes | None:
    """The answer to a ping whose first byte is at ``at``; None if that byte is something else.

    The byte 0x89 is not in ASCII text, so it begins a ping or is the length of a message.
    """
    if at >= 3 and received[at - 3 : at - 1] == b"\x81\x7e":
        return None
    if at >= 2 and received[at - 2 : at] == b"\x81\x7e":
        return None
    size = received[at + 1] if at + 1 < len(received) else 0
    return control(0x8A, received[at + 2 : at + 2 + size])


def control(opcode: int, payload: bytes) -> bytes:
    """A masked control frame or short message of a client; the mask is zero."""
    assert len(payload) < 126
    return bytes((opcode, 0x80 | len(payload))) + b"\0\0\0\0" + payload


def client_message(payload: bytes) -> bytes:
    """A masked text message of a client of up to 65535 bytes; the mask is zero."""
    if len(payload) < 126:
        return control(0x81, payload)
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + b"\0\0\0\0" + payload
