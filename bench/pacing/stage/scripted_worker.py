"""A process that stands for the workers: the real worker link, without engines.

It listens on Unix sockets, one for each instance, accepts every request, and sends tokens when it
is told to. A frame is a step of some requests of one instance: one token for each of them. The
first word of a request's last message is its role, see `bench.pacing.stage.frames`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from typing import Final

from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

from bench.pacing.stage.frames import ANSWER_TEXT, THINK, THOUGHT_TEXT
from bench.pacing.stage.talk import obey
from bench.policies.engine_process import Send
from bench.reporting.errors import BenchmarkError
from workers import loop
from workers.messages import (
    PROTOCOL,
    Accepted,
    Cancel,
    Finish,
    Heartbeat,
    PhaseCounts,
    Step,
    StepStats,
    Submit,
    TokenRun,
    Welcome,
    answers_after,
    decode_to_worker,
    encode,
)

MODEL: Final = "scripted"
_KV_BLOCKS = 1_000_000
_MAX_MODEL_LEN = 131_072  # tokens
_HEARTBEAT_S = 1.0
_END_OF_THINKING = 10_000  # a token id


class Request:
    """A request and how far it is."""

    __slots__ = ("answered", "due_s", "ended", "lead", "position", "request_id", "role", "thoughts")

    def __init__(self, request_id: str, role: str) -> None:
        self.request_id = request_id
        self.role = role
        self.position = 0
        self.answered = -1  # answering tokens so far; -1 before the boundary
        self.thoughts = 0  # reasoning tokens to come before the boundary
        self.lead = 0  # tokens to send at its next step in addition to that of the step
        self.due_s = 0.0  # its first step is not before
        self.ended = False

    def run(self, thoughts_per_step: int, tokens: int) -> TokenRun:
        """What its next step produces.

        :param tokens: of the whole answer; 0: it does not end.
        """
        boundary, finish = None, None
        texts: tuple[str, ...]
        if self.role == THINK:
            texts = (THOUGHT_TEXT,)
        elif self.answered < 0 and self.thoughts > 0:
            texts = (THOUGHT_TEXT,) * min(thoughts_per_step, self.thoughts)
            self.thoughts -= len(texts)
        else:
            count = 1 + self.lead
            self.lead = 0
            if tokens:
                count = min(count, tokens - max(0, self.answered))
            texts = (ANSWER_TEXT,) * count
            if self.answered < 0:
                boundary, texts, self.answered = 0, ("", *texts), 0
            self.answered += count
            if tokens and self.answered >= tokens:
                finish, self.ended = Finish(reason="stop"), True
        position = self.position
        self.position += len(texts)
        return TokenRun(
            request_id=self.request_id,
            position=position,
            # Ids of five digits: an interpreter shares the objects of small numbers.
            token_ids=tuple(
                _END_OF_THINKING + (position + index) * 7919 % 90_000 for index in range(len(texts))
            ),
            texts=texts,
            turns=answers_after(boundary),
            finish=finish,
        )


class Instance:
    """One instance: its link to the gateway, and its requests."""

    def __init__(self, number: int) -> None:
        self.requests: dict[str, Request] = {}
        self._name = f"worker-{number}"
        self._connection: ServerConnection | None = None
        self._sequence = 0

    async def handle(self, connection: ServerConnection) -> None:
        """One connection of a gateway."""
        await connection.recv()
        welcome = Welcome(
            policy="slack",
            protocol=PROTOCOL,
            instance_id=self._name,
            pid=1,
            model=MODEL,
            max_model_len=_MAX_MODEL_LEN,
            block_size=16,
            kv_blocks_total=_KV_BLOCKS,
            engine="scripted",
        )
        await connection.send(encode(welcome))
        self._connection, self._sequence = connection, 0
        self.requests.clear()
        beating = asyncio.create_task(self._beat(connection))
        try:
            async for frame in connection:
                match message := decode_to_worker(frame):
                    case Submit():
                        await self._accept(message)
                    case Cancel():
                        await self._cancelled(message.request_id)
        except ConnectionClosed:
            pass  # the gateway ended
        finally:
            beating.cancel()

    async def step(self, runs: Sequence[TokenRun]) -> None:
        """Send a step."""
        if self._connection is None:
            raise BenchmarkError("no gateway is connected")
        step = Step(sequence=self._sequence, runs=tuple(runs), stats=self._stats())
        self._sequence += 1
        try:
            await self._connection.send(encode(step))
        except ConnectionClosed as error:
            raise BenchmarkError(f"the gateway ended the link: {error}") from error

    async def _accept(self, submit: Submit) -> None:
        assert self._connection is not None
        role = submit.messages[-1].content.split()[0]
        self.requests[submit.request_id] = Request(submit.request_id, role)
        accepted = Accepted(request_id=submit.request_id, prompt_tokens=20, reasoning=True)
        await self._connection.send(encode(accepted))

    async def _cancelled(self, request_id: str) -> None:
        request = self.requests.pop(request_id, None)
        if request is not None and not request.ended:
            request.ended = True
            finish = Finish(reason="cancelled")
            ending = TokenRun(
                request_id=request_id,
                position=request.position,
                token_ids=(),
                texts=(),
                finish=finish,
            )
            await self.step([ending])

    async def _beat(self, connection: ServerConnection) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            await connection.send(encode(Heartbeat(since_step_s=0.0, stats=self._stats())))

    def _stats(self) -> StepStats:
        return StepStats(
            reasoning=PhaseCounts(),
            answering=PhaseCounts(running=len(self.requests)),
            kv_blocks_used=len(self.requests),
            kv_blocks_total=_KV_BLOCKS,
            preemptions_total=0,
            steps_total=self._sequence,
        )


class Workers:
    """All instances of the process, and what the measurement has them do."""

    def __init__(self) -> None:
        self._instances: list[Instance] = []
        self._servers: list[Server] = []

    async def listen(self, paths: Sequence[str]) -> None:
        """Listen on Unix sockets, instead of those before."""
        for server in self._servers:
            server.close(close_connections=True)
        self._instances = [Instance(number) for number in range(len(paths))]
        self._servers = [
            await unix_serve(instance.handle, path, compression=None, ping_interval=None)
            for instance, path in zip(self._instances, paths, strict=True)
        ]

    async def forget(self) -> None:
        """Generate nothing more for the requests so far."""
        for instance in self._instances:
            instance.requests.clear()

    async def drive(
        self,
        *,
        roles: Sequence[str],
        batch: int,
        period_s: float,
        seconds: float,
        lead: int = 0,
        spread_s: float = 0.0,
        thoughts: int = 0,
        thoughts_per_step: int = 1,
        tokens: int = 0,
    ) -> dict[str, float]:
        """Send steps: to each request of these roles one token in a period.

        :param batch: requests of one frame.
        :param lead: answering tokens that a request gets at once at its first step, so that its
            reader never waits for the worker.
        :param seconds: how long; or, for answers that end, how long at most.
        :param spread_s: the requests begin in this time, evenly and in random order.
        :param thoughts: reasoning tokens before an answer that has not begun.
        :param tokens: of an answer, which ends after them; 0: it does not end.
        :return: how late the latest frame was, and how many tokens there were.
        """
        groups = [
            (instance, group)
            for instance in self._instances
            for group in _parts(_of_roles(instance, roles), batch)
        ]
        requests = [request for _, group in groups for request in group]
        if not requests:
            raise BenchmarkError(f"no request has one of the roles {', '.join(roles)}")
        random.Random(0).shuffle(requests)
        began_s = time.monotonic() + 0.02
        for number, request in enumerate(requests):
            request.lead = lead
            request.due_s = began_s + spread_s * number / len(requests)
            if request.answered < 0:
                request.thoughts = thoughts
        late_s, sent = 0.0, 0
        for number, (due_s, instance, group) in enumerate(_schedule(groups, began_s, period_s)):
            if (time.monotonic() if tokens else due_s) - began_s >= seconds:
                break
            if number % len(groups) == 0 and all(one.ended for one in requests):
                break
            wait_s = due_s - time.monotonic()
            late_s = max(late_s, -wait_s)
            await asyncio.sleep(max(0.0, wait_s))
            runs = [
                request.run(thoughts_per_step, tokens)
                for request in group
                if not request.ended and request.due_s <= due_s
            ]
            if runs:
                await instance.step(runs)
                sent += sum(len(run.texts) for run in runs)
        return {"late_s": late_s, "tokens": sent}


def _of_roles(instance: Instance, roles: Sequence[str]) -> list[Request]:
    return [one for one in instance.requests.values() if one.role in roles and not one.ended]


def _parts(requests: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
    for start in range(0, len(requests), size):
        yield requests[start : start + size]


def _schedule(
    groups: Sequence[tuple[Instance, Sequence[Request]]], began_s: float, period_s: float
) -> Iterator[tuple[float, Instance, Sequence[Request]]]:
    """When each group makes its steps: the groups of a period one after another, evenly."""
    number = 0
    while True:
        instance, group = groups[number % len(groups)]
        yield began_s + period_s * number / len(groups), instance, group
        number += 1


def serve(messages: Iterator[bytes], send: Send) -> None:
    """Entry point of `bench.policies.engine_process`."""
    workers = Workers()
    names = ("listen", "drive", "forget")
    loop.run(obey(messages, send, {name: getattr(workers, name) for name in names}))
