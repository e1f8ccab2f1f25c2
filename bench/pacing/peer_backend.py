"""A back end for proxies: chat completions over SSE, as raw as Python can send them.

It stands for an engine of a given step time: once in each step, every stream gets one chunk. The
chunks have the form of vLLM's and are encoded when it starts, so nearly all of its time is the
kernel's. ``python -m bench.pacing.peer_backend --port N`` runs it until it is ended.

A stream whose connection does not drain gets no chunk until it does.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
from typing import Any, Final, cast

import uvloop

MODEL: Final = "emulated"

_WORDS: Final = (
    "This text is a script, not the answer of a model: the device is emulated, and only its time "
    "is real."
).split()
_LENGTHS: Final = (400, 1200)  # chunks of an answer, uniform, so that answers end one by one
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_LAST_CHUNK: Final = b"0\r\n\r\n"
_MODELS: Final = {
    "object": "list",
    "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "bench"}],
}


def framed(payload: bytes) -> bytes:
    """A part of a body in HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """One server-sent event in the form of vLLM's chunks, framed."""
    chunk = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    return framed(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


_FIRST: Final = event({"role": "assistant", "content": ""})
_TOKENS: Final = tuple(event({"content": f"{word} "}) for word in _WORDS)
_END: Final = event({}, "stop") + framed(b"data: [DONE]\n\n") + _LAST_CHUNK


class Backend:
    """The streams, and the steps that feed them."""

    def __init__(self, step_s: float, seed: int = 0) -> None:
        """Nothing runs before `listen`."""
        self._step_s = step_s
        self._rng = random.Random(seed)
        self._streams: set[_Connection] = set()

    async def listen(self, port: int) -> asyncio.Server:
        """Serve on 127.0.0.1 from now on; port 0 is any free one."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port)
        self._due_s = loop.time()
        self._step(loop)
        return server

    def begin(self, stream: _Connection) -> int:
        """Feed a stream from the next step on; :return: the chunks of its answer."""
        self._streams.add(stream)
        return self._rng.randint(*_LENGTHS)

    def end(self, stream: _Connection) -> None:
        """Feed it no more."""
        self._streams.discard(stream)

    def _step(self, loop: asyncio.AbstractEventLoop) -> None:
        for stream in tuple(self._streams):
            stream.feed()
        # A step that comes late moves those after it, as an engine's does.
        self._due_s = max(self._due_s + self._step_s, loop.time())
        loop.call_at(self._due_s, self._step, loop)


class _Connection(asyncio.Protocol):
    """One connection: one request after another."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._received = b""
        self._drains = True
        self._left = 0  # chunks of the answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.end(self)

    def pause_writing(self) -> None:
        self._drains = False

    def resume_writing(self) -> None:
        self._drains = True

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        line, *fields = head.split(b"\r\n")
        headers = dict(field.lower().split(b":", 1) for field in fields)
        length = int(headers.get(b"content-length", b"0"))
        if len(rest) < length:
            return
        self._received = rest[length:]
        self._answer(line.split(b" ")[:2], rest[:length])

    def _answer(self, asked: list[bytes], body: bytes) -> None:
        match asked:
            case [b"POST", b"/v1/chat/completions"]:
                if json.loads(body).get("stream"):
                    self._transport.write(_HEAD + _FIRST)
                    self._left = self._backend.begin(self)
                    self._words = itertools.cycle(_TOKENS)
                else:
                    self._reply(400, {"error": {"message": "this back end streams only"}})
            case [b"GET", b"/v1/models"]:
                self._reply(200, _MODELS)
            case [b"GET", _]:  # the health checks of all kinds of proxies
                self._reply(200, {})
            case _:
                self._reply(404, {"error": {"message": "there is nothing here"}})

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n"
        self._transport.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)

    def feed(self) -> None:
        """Send the chunk of this step."""
        if not self._drains:
            return
        self._transport.write(next(self._words))
        self._left -= 1
        if not self._left:
            self._backend.end(self)
            self._transport.write(_END)


async def _serve(port: int, step_s: float) -> None:
    server = await Backend(step_s).listen(port)
    await server.serve_forever()


def main() -> None:
    """``python -m bench.pacing.peer_backend``."""
    parser = argparse.ArgumentParser(prog="python -m bench.pacing.peer_backend")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--step-s", type=float, default=0.025, metavar="SECONDS")
    args = parser.parse_args()
    uvloop.run(_serve(args.port, args.step_s))


if __name__ == "__main__":
    main()
