"""``python -m tests.soak.crowd.engines ADDRESS...``: workers whose engines follow a script.

Each address gets a worker, all of them in one process. A worker speaks the worker link and
generates one token of each request in a step. It costs about 2 us a token, so a client can share
its core with it. Real engines under the emulated profile need a core of their own at this load.

A request must name its lengths (``forced_lengths``). The text of a token depends on its place only.
Some tokens have no text, because the next one completes the character.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

from workers import loop, messages
from workers.messages import (
    Accepted,
    Cancel,
    Finish,
    HandOver,
    Heartbeat,
    Hello,
    PhaseCounts,
    Rejected,
    Step,
    StepStats,
    Submit,
    TokenRun,
    Welcome,
    answers_after,
)

MODEL = "scripted"
STEP_S = 0.025  # as an H100 with a model of 32B: four times the pace of a fast reader
READY = "ready"  # printed when all workers listen
_HEARTBEAT_S = 1.0
_BLOCK_TOKENS = 16
_BLOCKS = 2**20
# JSON must escape some of these; the empty one is a part of the character after it.
_PIECES = (
    "The", " reader", " reads", " at", " its", " own", " pace", ",\n", ' "and"', " so", " does",
    " the", " gateway", ".", "", " \N{GRINNING FACE}", " a\\b", " </script>", "\t", " caf\u00e9",
    " one", " two", " three", " \u6c34", " 4", " five", " six", " seven", " \N{SNOWMAN}", "!\n\n",
)  # fmt: skip


def text_of(place: int, reasoning: int, length: int) -> str:
    """The text of one token.

    :param reasoning: tokens up to and including the end of thinking, which has no text.
    :param length: tokens in all; the last one, the end of the text, has none either.
    """
    return "" if place + 1 in (reasoning, length) else _PIECES[place % len(_PIECES)]


@dataclass(slots=True)
class _Request:
    """A request that generates."""

    request_id: str
    prompt_tokens: int
    reasoning: int  # tokens, up to and including the end of thinking
    length: int  # tokens in all
    place: int  # of the next token

    def next(self) -> TokenRun:
        """Generate one token."""
        place = self.place
        self.place = place + 1
        last = self.place == self.length
        is_boundary = self.place == self.reasoning
        return TokenRun(
            request_id=self.request_id,
            position=place,
            token_ids=(place % 32_000,),
            texts=(text_of(place, self.reasoning, self.length),),
            turns=answers_after(0 if is_boundary else None),
            finish=Finish(reason="stop") if last else None,
        )


class ScriptedEngine:
    """One worker."""

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self._requests: dict[str, _Request] = {}
        self._sequence = -1  # of the latest step on this connection
        self._steps = 0

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one connection of the gateway."""
        hello = messages.decode_to_worker(await socket.recv(decode=False))
        assert isinstance(hello, Hello)
        self._requests.clear()
        self._sequence = -1
        await socket.send(messages.encode(self._welcome()))
        generating = asyncio.create_task(self._generate(socket))
        try:
            async for frame in socket:
                for answer in self._answers(messages.decode_to_worker(frame)):
                    await socket.send(messages.encode(answer))
        finally:
            generating.cancel()
            await asyncio.wait([generating])

    def _welcome(self) -> Welcome:
        return Welcome(
            policy="slack",
            protocol=messages.PROTOCOL,
            instance_id=self._instance_id,
            pid=os.getpid(),
            model=MODEL,
            max_model_len=100_000,
            block_size=_BLOCK_TOKENS,
            kv_blocks_total=_BLOCKS,
            engine="script",
        )

    def _answers(self, message: messages.ToWorker) -> Iterator[Accepted | Rejected | Step]:
        match message:
            case Submit():
                yield self._start(message)
            case Cancel(request_id=name):
                yield from self._end(name, "cancelled")
            case HandOver(request_id=name):
                yield from self._end(name, "handed_over")
            case _:
                pass  # a pace changes nothing here

    def _start(self, submit: Submit) -> Accepted | Rejected:
        lengths = submit.forced_lengths
        if lengths is None:
            return Rejected(
                request_id=submit.request_id,
                code="invalid_value",
                message="a scripted engine needs forced lengths",
            )
        prompt = 1 + sum(len(message.content) // 4 for message in submit.messages)
        known = len(submit.known_token_ids)
        thinks = submit.thinking is not False
        reasoning = lengths.reasoning_tokens if thinks else 0
        self._requests[submit.request_id] = _Request(
            submit.request_id, prompt, reasoning, reasoning + lengths.answer_tokens, known
        )
        return Accepted(
            request_id=submit.request_id,
            prompt_tokens=prompt,
            reasoning=thinks and known < reasoning,
        )

    def _end(self, name: str, reason: messages.FinishReason) -> Iterator[Step]:
        request = self._requests.pop(name, None)
        if request is not None:
            run = TokenRun(
                request_id=name,
                position=request.place,
                token_ids=(),
                texts=(),
                finish=Finish(reason=reason),
            )
            yield self._step((run,))

    async def _generate(self, socket: ServerConnection) -> None:
        """Make steps, and send a heartbeat every second."""
        clock = asyncio.get_running_loop().time
        due_s = beat_s = clock()
        with suppress(ConnectionClosed):
            while True:
                due_s = max(clock(), due_s + STEP_S)  # late steps are not made up for
                await asyncio.sleep(due_s - clock())
                if self._requests:
                    self._steps += 1
                    await socket.send(messages.encode(self._step(self._tokens())))
                if clock() >= beat_s:
                    beat_s = clock() + _HEARTBEAT_S
                    beat = Heartbeat(since_step_s=0.0, stats=self._stats())
                    await socket.send(messages.encode(beat))

    def _tokens(self) -> tuple[TokenRun, ...]:
        runs = tuple(request.next() for request in self._requests.values())
        for run in runs:
            if run.finish is not None:
                del self._requests[run.request_id]
        return runs

    def _step(self, runs: tuple[TokenRun, ...]) -> Step:
        self._sequence += 1
        return Step(sequence=self._sequence, runs=runs, stats=self._stats())

    def _stats(self) -> StepStats:
        counts = {True: [0, 0], False: [0, 0]}  # requests and blocks, by whether they reason
        for request in self._requests.values():
            count = counts[request.place < request.reasoning]
            count[0] += 1
            count[1] += -(-(request.prompt_tokens + request.place) // _BLOCK_TOKENS)
        reasoning, answering = (
            PhaseCounts(running=running, kv_blocks=blocks)
            for running, blocks in (counts[True], counts[False])
        )
        return StepStats(
            reasoning=reasoning,
            answering=answering,
            kv_blocks_used=reasoning.kv_blocks + answering.kv_blocks,
            kv_blocks_total=_BLOCKS,
            preemptions_total=0,
            steps_total=self._steps,
        )


async def serve(paths: list[str]) -> None:
    """Serve one worker at each path of a Unix socket, until SIGTERM."""
    ended = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, ended.set)
    async with AsyncExitStack() as stack:
        for number, path in enumerate(paths):
            engine = ScriptedEngine(f"worker-{number}")
            await stack.enter_async_context(
                unix_serve(engine.handle, path, compression=None, max_size=None)
            )
        print(READY, flush=True)
        await ended.wait()


if __name__ == "__main__":
    loop.run(serve(sys.argv[1:]))
