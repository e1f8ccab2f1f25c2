"""A worker process, and a gateway's end of its link that records all messages."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed

from workers.messages import (
    PROTOCOL,
    Accepted,
    Cancel,
    ChatMessage,
    Endpoint,
    Finish,
    ForcedLengths,
    HandOver,
    Heartbeat,
    Hello,
    MeetPeer,
    OtherLoads,
    Pace,
    PeerMet,
    PolicySet,
    Rejected,
    Sampling,
    Step,
    StepStats,
    Submit,
    TokenLogprob,
    TokenRun,
    Welcome,
    decode_to_gateway,
    encode,
)
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "tiny-reasoner"
TOKEN = "secret"
START_TIMEOUT_S = 480.0
MAX_NUM_SEQS = 16  # batch slots of the engine
PACE = Pace(tau_s=0.1)
GREEDY = Sampling(temperature=0.0)


class WorkerProcess:
    """``python -m workers.process``, launched as the gateway launches it."""

    def __init__(
        self, directory: Path, *, environment: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        """:param environment: variables in addition to those of the tests."""
        self.path = directory / "worker.sock"
        read_fd, self._pipe_fd = os.pipe()
        values: dict[str, Any] = {
            "instance_id": "worker-0",
            "listen": f"unix:{self.path}",
            "model": str(MODEL),
            "served_model_name": "tiny",
            "token": TOKEN,
            "parent_fd": read_fd,
            "dtype": "float32",
            "max_model_len": 1024,
            "max_num_seqs": MAX_NUM_SEQS,
            "kv_blocks": 49,  # one of them is vLLM's null block
            "block_size": 32,
            "heartbeat_s": 0.1,  # the tests wait for what they say
        }
        self.settings = WorkerSettings(**(values | settings))
        self.log = directory / "worker.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "workers.process"),
                    *("--settings", msgspec.json.encode(self.settings).decode()),
                ],
                cwd=ROOT,
                pass_fds=(read_fd,),
                env=os.environ | (environment or {}),
                stderr=log,
                stdout=log,
            )
        os.close(read_fd)

    async def started(self) -> None:
        """Wait until the worker listens."""

        async def listening() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.path.exists()

        await until(listening, START_TIMEOUT_S)

    def lines(self) -> list[dict[str, Any]]:
        """Its log lines as JSON, without the output of libraries."""
        text = self.log.read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    async def ended(self) -> bool:
        """Whether it has ended; then its exit status is known."""
        return self.process.poll() is not None

    def close_parent_pipe(self) -> None:
        """Close the pipe, as if the launcher had died."""
        if self._pipe_fd >= 0:
            os.close(self._pipe_fd)
            self._pipe_fd = -1

    def terminate(self) -> int:
        """Ask it to end; :return: its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """End it, and wait until it has ended."""
        self.close_parent_pipe()
        self.process.wait(60)


async def until(
    condition: Callable[[], Awaitable[bool]], timeout_s: float, every_s: float = 0.05
) -> None:
    """Poll until a condition holds, such as the end of another process."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(every_s)


async def silent_server() -> asyncio.Server:
    """A server that accepts connections and never answers, like a process that hangs."""

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    return await asyncio.start_server(hear, "127.0.0.1", 0)


class Output:
    """The output of a request so far."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.texts: list[str] = []
        self.boundary: int | None = None
        self.finish: Finish | None = None
        self.kv_tokens: int | None = None
        self.logprobs: list[TokenLogprob] = []

    def add(self, run: TokenRun, first: int) -> None:
        assert self.finish is None, "a run after the finish"
        assert run.position == first + len(self.token_ids)
        assert len(run.token_ids) == len(run.texts) or run.pieces is not None
        for turn in run.turns:
            if turn.phase == "answering" and self.boundary is None:
                self.boundary = len(self.token_ids) + turn.at - 1
        if run.kv_tokens is not None:
            assert not self.token_ids, "what became of the ticket comes with the first tokens"
            assert run.token_ids
            self.kv_tokens = run.kv_tokens
        self.token_ids += run.token_ids
        self.logprobs += run.logprobs
        if run.pieces is None:
            self.texts += run.texts
        else:
            texts = [""] * len(run.token_ids)
            for piece in run.pieces:
                texts[piece.at] += piece.text
            self.texts += texts
        self.finish = run.finish

    @property
    def reasoning(self) -> str:
        return "" if self.boundary is None else "".join(self.texts[: self.boundary + 1])

    @property
    def answer(self) -> str:
        return "".join(self.texts[0 if self.boundary is None else self.boundary + 1 :])


class Gateway:
    """One connection to a worker. Checks the order of everything that arrives."""

    def __init__(self, path: Path, token: str | None = TOKEN, name: str = "test") -> None:
        self.name = name
        self._path = path
        self._token = token
        self._changed = asyncio.Condition()
        self._known: dict[str, int] = {}  # length of the known output of each submit
        self._closed = False  # no more can come
        self._connection: ClientConnection
        self._reader: asyncio.Task[None]
        self.welcome: Welcome
        self.accepted: dict[str, Accepted] = {}
        self.rejected: dict[str, Rejected] = {}
        self.outputs: dict[str, Output] = {}
        self.frames: list[Step] = []
        self.heartbeats: list[Heartbeat] = []
        self.others: list[OtherLoads] = []
        self.met: dict[str, PeerMet] = {}
        self.policies: dict[str, PolicySet] = {}

    async def __aenter__(self) -> Gateway:
        self._connection = await unix_connect(
            str(self._path), compression=None, max_size=None, ping_timeout=None
        )
        await self.send(Hello(protocol=PROTOCOL, gateway=self.name, token=self._token))
        welcome = decode_to_gateway(await self._connection.recv())
        assert isinstance(welcome, Welcome)
        self.welcome = welcome
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.close()
        await self._reader

    @property
    def close_code(self) -> int | None:
        """With which the worker closed the connection."""
        return self._connection.close_code

    async def closed(self) -> None:
        """Return once the connection has ended."""
        await self._connection.wait_closed()

    def drop(self) -> None:
        """End the connection without a close frame, as if the process had died."""
        self._connection.transport.abort()

    async def send(self, message: Any) -> None:
        await self._connection.send(encode(message))

    async def submit(
        self,
        request_id: str,
        text: str = "What is 12 + 30?",
        sampling: Sampling = GREEDY,
        **fields: Any,
    ) -> None:
        message = Submit(
            request_id=request_id,
            messages=(ChatMessage(role="user", content=text),),
            sampling=sampling,
            pace=PACE,
            **fields,
        )
        self._known.setdefault(request_id, len(message.known_token_ids))
        await self.send(message)

    async def force(self, request_id: str, reasoning: int, answer: int) -> None:
        lengths = ForcedLengths(reasoning_tokens=reasoning, answer_tokens=answer)
        await self.submit(request_id, f"Request {request_id}.", forced_lengths=lengths)

    async def cancel(self, request_id: str) -> None:
        await self.send(Cancel(request_id=request_id))

    async def hand_over(self, request_id: str) -> Output:
        """Ask for a hand-over, and wait until the request has ended in any way."""
        await self.send(HandOver(request_id=request_id))
        return await self.finished(request_id)

    async def meet(self, peer: Gateway) -> str | None:
        """:return: why the other engine could not be met, or None."""
        assert peer.welcome.endpoint is not None
        return await self.meet_endpoint(peer.welcome.endpoint)

    async def meet_endpoint(self, endpoint: Endpoint) -> str | None:
        self.met.pop(endpoint.engine_id, None)
        await self.send(MeetPeer(peer=endpoint))
        await self.wait(lambda: endpoint.engine_id in self.met)
        return self.met[endpoint.engine_id].error

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until messages of the worker make the condition true."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition() or self._closed)
        assert condition(), "the worker closed the connection"

    async def wait_closed(self) -> None:
        """Wait until the worker has closed the connection, or died."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed)

    async def finished(self, request_id: str) -> Output:
        def ended() -> bool:
            assert request_id not in self.rejected, self.rejected[request_id]
            output = self.outputs.get(request_id)
            return output is not None and output.finish is not None

        await self.wait(ended)
        return self.outputs[request_id]

    async def started(self, request_id: str, tokens: int = 1) -> None:
        await self.wait(
            lambda: request_id in self.outputs and len(self.outputs[request_id].token_ids) >= tokens
        )

    async def idle_stats(self) -> StepStats:
        """The statistics in the next heartbeat."""
        count = len(self.heartbeats)
        await self.wait(lambda: len(self.heartbeats) > count)
        return self.heartbeats[-1].stats

    async def _read(self) -> None:
        try:
            async for data in self._connection:
                message = decode_to_gateway(data)
                async with self._changed:
                    self._take(message)
                    self._changed.notify_all()
        except ConnectionClosed:
            pass  # without a close frame
        finally:
            self._closed = True
            async with self._changed:
                self._changed.notify_all()

    def _take(self, message: Any) -> None:
        match message:
            case Accepted():
                assert message.request_id not in self.accepted
                self.accepted[message.request_id] = message
            case Rejected():
                self.rejected[message.request_id] = message
            case Step():
                assert message.sequence == len(self.frames)
                self.frames.append(message)
                for run in message.runs:
                    assert run.request_id in self.accepted
                    output = self.outputs.setdefault(run.request_id, Output())
                    output.add(run, self._known[run.request_id])
            case PeerMet():
                self.met[message.engine_id] = message
            case PolicySet():
                self.policies[message.policy] = message
            case Heartbeat():
                self.heartbeats.append(message)
            case OtherLoads():
                self.others.append(message)
            case _:
                raise AssertionError(f"unexpected {message}")
