"""A worker without an engine: the real link on a real socket, and a script for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, unix_serve

from workers import messages
from workers.messages import (
    Accepted,
    Finish,
    Hello,
    PhaseCounts,
    Step,
    StepStats,
    Submit,
    ToGateway,
    TokenRun,
    ToWorker,
    Welcome,
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
    step_s=0.0,
)


class ScriptedWorker:
    """The test reads what the gateway sends (`next`) and says what it likes (`say`)."""

    def __init__(self, instance_id: str, protocol: int) -> None:
        self._welcome = Welcome(
            protocol=protocol,
            instance_id=instance_id,
            pid=1,
            model="m",
            max_model_len=100,
            block_size=16,
            kv_blocks_total=100,
            max_num_seqs=8,
            reasoning=True,
            engine="script",
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
            self._received.put_nowait(messages.decode_to_worker(frame))

    async def next(self) -> ToWorker:
        """The gateway's next message."""
        return await asyncio.wait_for(self._received.get(), 10)

    async def next_submit(self) -> Submit:
        """The gateway's next message, which must be a new request."""
        message = await self.next()
        assert isinstance(message, Submit)
        return message

    async def accept(self, submit: Submit, *, reasoning: bool = False) -> None:
        """Take a request in."""
        await self.say(
            Accepted(
                request_id=submit.request_id,
                prompt_tokens=20,
                reasoning=reasoning,
                max_tokens=50,
            )
        )

    async def tokens(
        self, request_id: str, position: int, *texts: str, finish: Finish | None = None
    ) -> None:
        """One step with tokens of one request."""
        run = TokenRun(
            request_id=request_id,
            position=position,
            token_ids=tuple(range(len(texts))),
            texts=texts,
            finish=finish,
        )
        await self.say(Step(sequence=self._sequence, runs=(run,), stats=IDLE))
        self._sequence += 1

    async def say(self, message: ToGateway) -> None:
        """Anything."""
        await self.say_raw(messages.encode(message))

    async def say_raw(self, data: Any) -> None:
        """Even what is no message."""
        assert self._socket is not None
        await self._socket.send(data)

    async def hang_up(self) -> None:
        """Drop the connection without a goodbye, as a process that is killed does."""
        assert self._socket is not None
        self._socket.transport.abort()


@asynccontextmanager
async def scripted_worker(
    folder: Path, instance_id: str = "worker-0", protocol: int = messages.PROTOCOL
) -> AsyncIterator[tuple[ScriptedWorker, str]]:
    """A listening worker and its address."""
    worker = ScriptedWorker(instance_id, protocol)
    path = folder / f"{instance_id}.sock"
    async with unix_serve(worker.handle, str(path), compression=None):
        yield worker, f"unix:{path}"
