"""Time to change engines at the phase boundary, measured on two real workers and their links.

`measure` runs the same kind of request repeatedly: a context of a given length, and some tokens
decoded on the first worker. From the arrival of the last of them, it measures the time to the next
token in three ways:

    stay        the next token of the same worker: nothing is stopped, nothing is submitted
    move        hand-over, ticket, submission to the second worker, its first token
    recompute   the same without the ticket: the second worker computes the KV of all tokens

The ways take turns, so that other load on the machine affects all three equally. Contexts are
random tokens, which are in no prefix cache.

Imports no vLLM: the engines are in the child processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from websockets.asyncio.client import ClientConnection, unix_connect

from bench.policies.engine_process import ROOT, ServerProcess
from bench.reporting.errors import BenchmarkError
from workers.messages import (
    PROTOCOL,
    Accepted,
    Cancel,
    ChatMessage,
    Finish,
    ForcedLengths,
    HandOver,
    Heartbeat,
    Hello,
    MeetPeer,
    MigrationStats,
    Pace,
    PeerMet,
    Rejected,
    Sampling,
    Step,
    Submit,
    Ticket,
    ToGateway,
    ToWorker,
    Welcome,
    decode_to_gateway,
    encode,
)
from workers.settings import WorkerSettings

_MODEL: Final = ROOT / "models" / "tiny-reasoner"
_WORDS: Final = range(300, 1000)  # ordinary tokens of the embedded model's vocabulary
_BLOCK: Final = 32
_AT_ONCE: Final = 12  # contexts that fit into memory; KV that was not fetched is held for a time
_HELD_S: Final = 5.0
_BEFORE: Final = 4  # tokens decoded before the boundary
_AFTER: Final = 24  # room for tokens before a hand-over takes effect, and after it
_TEXT: Final = "Go on."
_START_S: Final = 300.0
_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}  # per value
_MODES: Final = ("move", "stay", "recompute")


class MigrationError(BenchmarkError):
    """The measurement failed; the message names the step."""


def measure(contexts: Sequence[int], repeats: int) -> dict[int, dict[str, float]]:
    """Measure on two workers with the embedded model; starting them takes most of a minute.

    :param contexts: tokens of prompt and output at the boundary.
    :param repeats: samples of each kind, after one that is discarded.
    :return: by context, medians in seconds. ``move_s``, ``stay_s`` and ``recompute_s`` are from the
        last token before the boundary to the first one after it. ``transfer_s`` is the part of the
        move from the claim until the engine sees the KV, which it checks once per step.
        ``memcpy_s`` is the time to copy that many bytes in one thread of this process. In addition
        ``kv_bytes``.
    :raises BenchmarkError: if a worker fails, or KV that should have moved did not.
    """
    settings = {
        "max_model_len": max(contexts) + _AFTER,
        "kv_blocks": _AT_ONCE * (max(contexts) // _BLOCK + 2),
    }
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        cores = sorted(os.sched_getaffinity(0))
        workers = [
            stack.enter_context(
                _Worker(Path(directory), number, cores[number % len(cores)], settings)
            )
            for number in range(2)
        ]
        samples = asyncio.run(_samples(workers, contexts, repeats))
    results = {}
    for context in contexts:
        kv_bytes = context * _bytes_per_token()
        results[context] = {
            **{name: statistics.median(samples[context, name]) for name in (*_MODES, "transfer")},
            "memcpy": _memcpy_s(kv_bytes, repeats),
        }
        results[context] = {f"{name}_s": value for name, value in results[context].items()}
        results[context]["kv_bytes"] = kv_bytes
    return results


# ---- workers ----------------------------------------------------------------------------------


class _Worker(ServerProcess):
    """A worker process."""

    def __init__(self, directory: Path, number: int, core: int, settings: dict[str, Any]) -> None:
        self.socket = directory / f"{number}.sock"  # there when it is ready
        values = WorkerSettings(
            instance_id=f"worker-{number}",
            listen=f"unix:{self.socket}",
            model=str(_MODEL),
            served_model_name="tiny",
            parent_fd=0,  # its standard input, which ends with this process
            cpu_cores=(core,),
            dtype=_dtype(),
            block_size=_BLOCK,
            kv_migration=True,
            kv_held_s=_HELD_S,
            **settings,
        )
        super().__init__(
            values.instance_id,
            ["-m", "workers.process", "--settings", msgspec.json.encode(values).decode()],
            # Contexts are longer than those of the model's training; nothing reads its text.
            environment={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"},
        )

    def ready(self) -> bool:
        """:raises ProcessFailed: if it has ended."""
        self.check()
        return self.socket.exists()


class _Link:
    """The gateway's end of a worker's link, for one caller at a time."""

    def __init__(self, connection: ClientConnection, welcome: Welcome) -> None:
        self.welcome = welcome
        self.migration: MigrationStats | None = None  # as last reported
        self._connection = connection

    async def send(self, message: ToWorker) -> None:
        await self._connection.send(encode(message))

    async def receive(self) -> ToGateway:
        message = decode_to_gateway(await self._connection.recv())
        if isinstance(message, Step | Heartbeat):
            self.migration = message.stats.migration
        if isinstance(message, Rejected):
            raise MigrationError(f"a request was refused: {message.message}")
        return message

    async def tokens(self, request_id: str, count: int) -> tuple[list[int], Finish | None]:
        """At least ``count`` tokens of a request, or all until its end; and how it ended."""
        token_ids: list[int] = []
        while True:
            message = await self.receive()
            for run in message.runs if isinstance(message, Step) else ():
                if run.request_id == request_id:
                    token_ids += run.token_ids
                    if len(token_ids) >= count or run.finish is not None:
                        return token_ids, run.finish

    async def ended(self, request_id: str) -> tuple[list[int], Finish]:
        """The tokens until a request's end, and how it ended."""
        token_ids: list[int] = []
        while True:
            tokens, finish = await self.tokens(request_id, 1)
            token_ids += tokens
            if finish is not None:
                return token_ids, finish


@contextlib.asynccontextmanager
async def _linked(worker: _Worker) -> AsyncIterator[_Link]:
    deadline = time.monotonic() + _START_S
    while not await asyncio.to_thread(worker.ready):
        if time.monotonic() > deadline:
            raise MigrationError("a worker did not start")
        await asyncio.sleep(0.1)
    async with unix_connect(str(worker.socket), compression=None, max_size=None) as connection:
        await connection.send(encode(Hello(protocol=PROTOCOL, gateway="benchmark")))
        welcome = decode_to_gateway(await connection.recv())
        if not isinstance(welcome, Welcome) or welcome.endpoint is None:
            raise MigrationError("this worker cannot move KV; is NIXL installed?")
        yield _Link(connection, welcome)


# ---- samples ----------------------------------------------------------------------------------


async def _samples(
    workers: Sequence[_Worker], contexts: Sequence[int], repeats: int
) -> dict[tuple[int, str], list[float]]:
    samples: dict[tuple[int, str], list[float]] = defaultdict(list)
    async with _linked(workers[0]) as source, _linked(workers[1]) as target:
        assert source.welcome.endpoint is not None
        await target.send(MeetPeer(peer=source.welcome.endpoint))
        while not isinstance(met := await target.receive(), PeerMet):
            pass
        if met.error is not None:
            raise MigrationError(f"the workers could not connect: {met.error}")
        sampler = _Sampler(source, target)
        await sampler.prepare()
        for repeat in range(repeats + 1):
            for context in contexts:
                for mode in _MODES:
                    times = await sampler.sample(context, mode)
                    if repeat:  # the first sample includes one-time work
                        for name, seconds in times.items():
                            samples[context, name].append(seconds)
    return samples


class _Sampler:
    """Takes samples."""

    def __init__(self, source: _Link, target: _Link) -> None:
        self._source = source
        self._target = target
        self._count = 0
        self._rng = random.Random(1)
        self._prompt = 0  # its length in tokens

    async def prepare(self) -> None:
        """Learn the length of the prompt. Must be called first."""
        await self._submit(self._source, "prompt", [], _AFTER)
        while not isinstance(accepted := await self._source.receive(), Accepted):
            pass
        self._prompt = accepted.prompt_tokens
        await self._cancel(self._source, "prompt")

    async def sample(self, context: int, mode: str) -> dict[str, float]:
        """:return: seconds by name; the first name is the mode."""
        self._count += 1
        name = f"{mode}-{self._count}"
        known = self._rng.choices(_WORDS, k=context - self._prompt - _BEFORE)
        await self._submit(self._source, name, known, context)
        before, _ = await self._source.tokens(name, _BEFORE)
        boundary = time.perf_counter()
        if mode == "stay":
            await self._source.tokens(name, 1)
            durations = {mode: time.perf_counter() - boundary}
            await self._cancel(self._source, name)
            return durations
        await self._source.send(HandOver(request_id=name))
        late, finish = await self._source.ended(name)
        if finish.ticket is None:
            raise MigrationError(f"a request left without a ticket: {finish}")
        ticket = finish.ticket if mode == "move" else None
        earlier = self._target.migration
        await self._submit(self._target, name, known + before + late, context, ticket)
        await self._target.tokens(name, 1)
        durations = {mode: time.perf_counter() - boundary}
        if ticket is not None:
            durations["transfer"] = self._transfer_s(earlier)
        await self._cancel(self._target, name)
        return durations

    def _transfer_s(self, earlier: MigrationStats | None) -> float:
        now = self._target.migration
        reads = 0 if earlier is None else earlier.read_requests_total
        if now is None or now.read_requests_total != reads + 1:
            raise MigrationError("a ticket was not read")
        return now.read_s_total - (0.0 if earlier is None else earlier.read_s_total)

    async def _submit(
        self,
        link: _Link,
        name: str,
        known: list[int],
        context: int,
        ticket: Ticket | None = None,
    ) -> None:
        await link.send(
            Submit(
                request_id=name,
                messages=(ChatMessage(role="user", content=_TEXT),),
                sampling=Sampling(temperature=0.0),
                pace=Pace(tau_s=0.1),
                known_token_ids=tuple(known),
                forced_lengths=ForcedLengths(
                    reasoning_tokens=context - self._prompt + _AFTER - 1, answer_tokens=1
                ),
                ticket=ticket,
            )
        )

    async def _cancel(self, link: _Link, name: str) -> None:
        await link.send(Cancel(request_id=name))
        await link.ended(name)


# ---- what is compared with --------------------------------------------------------------------


def _config() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((_MODEL / "config.json").read_text(encoding="utf-8"))
    return values


def _dtype() -> str:
    return str(_config()["torch_dtype"])


def _bytes_per_token() -> int:
    config = _config()
    values = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    return int(values * _BYTES[_dtype()])


def _memcpy_s(size: int, repeats: int) -> float:
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)

    def copy() -> float:
        began = time.perf_counter()
        target[:] = source
        return time.perf_counter() - began

    return statistics.median(copy() for _ in range(repeats + 1))
