"""A worker without an engine: a real link on a real socket, driven by the test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, unix_serve

from workers import messages
from workers.messages import (
    Accepted,
    Cancel,
    Endpoint,
    Finish,
    Hello,
    MeetPeer,
    PeerMet,
    PhaseCounts,
    PolicySet,
    SetPolicy,
    Step,
    StepStats,
    Submit,
    Ticket,
    ToGateway,
    TokenRun,
    ToWorker,
    Welcome,
    answers_after,
)

IDLE = StepStats(
    reasoning=PhaseCounts(),
    answering=PhaseCounts(),
    kv_blocks_used=0,
    kv_blocks_total=100,
    preemptions_total=3,
    reloaded_tokens_total=40,
    recomputed_tokens_total=5,
    steps_total=0,
)

_STARTS = itertools.count()


class ScriptedWorker:
    """The test reads the gateway's messages (`next`) and sends any message (`say`).

    With ``movable`` its KV can be read by others; it answers `MeetPeer` by itself, with
    ``meeting_error`` if there is one, and does not show it to the test.
    """

    def __init__(
        self,
        instance_id: str,
        protocol: int,
        movable: bool = False,
        meeting_error: str | None = None,
        kv_blocks: int = 100,
    ) -> None:
        self.engine_id = f"engine of {instance_id}, {next(_STARTS)}"
        self.met: list[str] = []  # engines that the gateway had it meet
        self.policies: list[str] = []  # that the gateway asked for
        self.keeps_policy = False  # it refuses to change
        self._meeting_error = meeting_error
        self._welcome = Welcome(
            policy="slack",
            protocol=protocol,
            instance_id=instance_id,
            pid=1,
            model="m",
            max_model_len=100,
            block_size=16,
            kv_blocks_total=kv_blocks,
            engine="script",
            endpoint=Endpoint(engine_id=self.engine_id, host="h", port=1) if movable else None,
        )
        self._received: asyncio.Queue[ToWorker] = asyncio.Queue()
        self._socket: ServerConnection | None = None
        self._sequence = 0

    async def handle(self, socket: ServerConnection) -> None:
        """One connection of the gateway."""
        hello = messages.decode_to_worker(await socket.recv(decode=False))
        assert isinstance(hello, Hello)
        self._socket = socket
        self._sequence = 0
        await self.say(self._welcome)
        async for frame in socket:
            message = messages.decode_to_worker(frame)
            if isinstance(message, MeetPeer):
                self.met.append(message.peer.engine_id)
                met = PeerMet(engine_id=message.peer.engine_id, error=self._meeting_error)
                await self.say(met)
            elif isinstance(message, SetPolicy):
                self.policies.append(message.policy)
                error = "it stays" if self.keeps_policy else None
                await self.say(PolicySet(policy=message.policy, error=error))
            else:
                self._received.put_nowait(message)

    async def next(self) -> ToWorker:
        """The gateway's next message, which must come soon."""
        return await asyncio.wait_for(self.received(), 10)

    async def received(self) -> ToWorker:
        """The gateway's next message."""
        return await self._received.get()

    async def next_submit(self) -> Submit:
        """The gateway's next message, which must be a new request."""
        message = await self.next()
        assert isinstance(message, Submit)
        return message

    async def next_cancel(self) -> str:
        """The id in the gateway's next message, which must be a cancel."""
        message = await self.next()
        assert isinstance(message, Cancel)
        return message.request_id

    def unread(self) -> int:
        """The number of messages that the test has not read."""
        return self._received.qsize()

    def ticket(self, tokens: int = 20, valid_s: float = 30.0) -> Ticket:
        """A ticket for the KV of a request on this engine."""
        return Ticket(engine_id=self.engine_id, data="opaque", tokens=tokens, valid_s=valid_s)

    async def hand_over(self, request_id: str, position: int, ticket: Ticket | None) -> None:
        """Hand a request over."""
        finish = Finish(reason="handed_over", ticket=ticket)
        await self.tokens(request_id, position, finish=finish)

    async def accept(self, submit: Submit, *, reasoning: bool = False) -> None:
        """Accept a request."""
        await self.say(
            Accepted(request_id=submit.request_id, prompt_tokens=20, reasoning=reasoning)
        )

    async def tokens(
        self,
        request_id: str,
        position: int,
        *texts: str,
        finish: Finish | None = None,
        boundary: int | None = None,
        kv_tokens: int | None = None,
    ) -> None:
        """Send a step with tokens of one request. The id of a token is its place in the output."""
        run = TokenRun(
            request_id=request_id,
            position=position,
            token_ids=tuple(range(position, position + len(texts))),
            texts=texts,
            finish=finish,
            turns=answers_after(boundary),
            kv_tokens=kv_tokens,
        )
        await self.step(run)

    async def step(self, run: TokenRun) -> None:
        """Send a step of one request."""
        await self.say(Step(sequence=self._sequence, runs=(run,), stats=IDLE))
        self._sequence += 1

    async def say(self, message: ToGateway) -> None:
        """Send a message."""
        await self.say_raw(messages.encode(message))

    async def say_raw(self, data: Any) -> None:
        """Send bytes that need not be a message."""
        assert self._socket is not None
        await self._socket.send(data)

    async def hang_up(self) -> None:
        """Drop the connection without a closing handshake, like a process that is killed."""
        assert self._socket is not None
        self._socket.transport.abort()


@asynccontextmanager
async def scripted_worker(
    folder: Path,
    instance_id: str = "worker-0",
    protocol: int = messages.PROTOCOL,
    **options: Any,
) -> AsyncIterator[tuple[ScriptedWorker, str]]:
    """A listening worker and its address."""
    worker = ScriptedWorker(instance_id, protocol, **options)
    path = folder / f"{instance_id}-{next(_STARTS)}.sock"
    async with unix_serve(worker.handle, str(path), compression=None):
        yield worker, f"unix:{path}"
