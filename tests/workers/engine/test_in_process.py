"""The engine's thread with a vLLM that the test breaks: reports, and unharmed requests."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.outputs import CompletionOutput, RequestOutput

from tests.workers.support.engines import FACTS, PEER, PHASES, Listener, request
from workers.engine import in_process, meeting
from workers.engine.in_process import InProcessEngine
from workers.engine.interface import CLOSE_S, EngineGone
from workers.engine.outputs import failure_of
from workers.messages import Pace

SECRET = RuntimeError("the secret prompt")


def made(request_id: str, token: int, finish: str | None = None) -> RequestOutput:
    completion = CompletionOutput(
        index=0,
        text="",
        token_ids=[token],
        cumulative_logprob=None,
        logprobs=None,
        finish_reason=finish,
    )
    return RequestOutput(
        request_id=request_id,
        prompt=None,
        prompt_token_ids=[1],
        prompt_logprobs=None,
        outputs=[completion],
        finished=finish is not None,
    )


class FakeVllm:
    """A fake of vLLM and its scheduler. When the test says so, each request gets a token."""

    def __init__(self) -> None:
        self.requests: dict[str, Any] = {}  # the scheduler's
        self.connector = None
        self.engine_core = SimpleNamespace(shutdown=lambda: None)
        self.aborted: list[str] = []
        self.broken: dict[str, Exception] = {}  # errors that calls raise
        self.strange: set[str] = set()  # requests whose outputs make no sense
        self.steps: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.hangs, self.hanging, self.free = (threading.Event() for _ in range(3))

    def _raise(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]

    def add_request(self, request_id: str, *_: Any) -> str:
        if request_id == "bad":
            self._raise("add")
        self.requests[f"{request_id}-0"] = SimpleNamespace(num_preemptions=0)
        return f"{request_id}-0"

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        self.aborted += request_ids
        if internal:
            self._raise("abort")

    def set_pace(self, *_: Any) -> None:
        self._raise("set_pace")

    def hand_over(self, *_: Any) -> None:
        self._raise("hand_over")

    def phase_stats(self) -> Any:
        return PHASES

    def has_requests(self) -> bool:
        return False

    def step(self) -> list[RequestOutput]:
        if self.hangs.is_set():
            self.hanging.set()
            self.free.wait()
        try:
            self.steps.get(timeout=0.01)
        except queue.Empty:
            return []
        self._raise("step")
        ids = [name.removesuffix("-0") for name in self.requests]
        return [made(i, 7, "nonsense" if i in self.strange else None) for i in ids]


class Bench:
    def __init__(self) -> None:
        self.vllm = FakeVllm()
        self.listener = Listener()
        engine: Any = object.__new__(InProcessEngine)
        engine._defaults = {}
        engine._llm = engine._scheduler = self.vllm
        engine._device = None
        engine._structures = SimpleNamespace(close=lambda: None)
        engine._facts = FACTS
        engine._core = None
        engine._steps, engine._busy_since = 0, None
        engine._prepare_thread()
        self.engine: InProcessEngine = engine
        self.engine.start(self.listener)

    async def running(self, *names: str) -> None:
        for name in names:
            self.engine.submit(request(name))
        await self.listener.wait(lambda: set(names) <= set(self.listener.accepted))

    async def goes_on(self, request_id: str = "a") -> None:
        """Let one more token arrive for the request."""
        count = len(self.listener.of(request_id))
        self.vllm.steps.put(None)
        await self.listener.wait(lambda: len(self.listener.of(request_id)) > count)
        assert self.listener.failures == []


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.engine.close()


async def test_a_request_that_cannot_be_added_is_rejected_alone(bench: Bench) -> None:
    await bench.running("a")
    bench.vllm.broken["add"] = SECRET
    bench.engine.submit(request("bad"))
    await bench.listener.wait(lambda: bench.listener.rejected)
    assert bench.listener.rejected == [("bad", "internal_error")]
    assert bench.vllm.aborted == ["bad"]
    await bench.goes_on()


@pytest.mark.parametrize("command", ["abort", "hand_over"])
async def test_a_command_that_raises_ends_its_request_alone(bench: Bench, command: str) -> None:
    await bench.running("a", "b")
    bench.vllm.broken[command] = SECRET
    if command == "abort":
        bench.engine.cancel("b")
    else:
        bench.engine.hand_over("b")
    await bench.listener.wait(lambda: bench.listener.finish("b"))
    (output,) = bench.listener.of("b")
    assert output.finish == "error"
    assert output.message == "the engine could not carry this out: RuntimeError"
    await bench.goes_on()
    assert len(bench.listener.of("b")) == 1  # later outputs of vLLM for it are dropped


async def test_a_pace_that_cannot_be_set_changes_nothing(bench: Bench) -> None:
    await bench.running("a")
    bench.vllm.broken["set_pace"] = SECRET
    bench.engine.set_pace("a", Pace(tau_s=1.0))
    await bench.goes_on()
    assert bench.listener.finish("a") is None


async def test_an_output_that_makes_no_sense_ends_its_request_alone(bench: Bench) -> None:
    await bench.running("a", "b")
    bench.vllm.strange.add("b")
    await bench.goes_on()
    await bench.listener.wait(lambda: bench.listener.finish("b"))
    assert bench.listener.finish("b") == "error"
    assert bench.vllm.aborted[0] == "b"
    await bench.goes_on()


async def test_a_meeting_that_raises_is_the_callers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meet(*_: Any) -> str | None:
        raise RuntimeError("the peer has died")

    monkeypatch.setattr(in_process, "meet_peer", meet)
    await bench.running("a")
    with pytest.raises(RuntimeError, match="the peer has died"):
        await bench.engine.meet_peer(PEER)
    await bench.goes_on()


async def test_a_meeting_ends_after_its_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "meet_peer", lambda *_: None)
    monkeypatch.setattr(meeting, "MEETING_S", 0.05)
    assert "not connected after" in (await bench.engine.meet_peer(PEER) or "")


async def test_a_step_that_raises_is_the_engines_and_ends_every_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_process, "meet_peer", lambda *_: None)
    await bench.running("a")
    meeting = asyncio.create_task(bench.engine.meet_peer(PEER))
    bench.vllm.broken["step"] = RuntimeError("a kernel")
    bench.vllm.steps.put(None)
    async with asyncio.timeout(10):
        with pytest.raises(EngineGone):
            await meeting
        await bench.listener.wait(lambda: bench.listener.failures)
        with pytest.raises(EngineGone):
            await bench.engine.meet_peer(PEER)
    assert bench.listener.failures == ["RuntimeError: a kernel"]


async def test_closing_does_not_wait_for_a_step_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_process, "CLOSE_S", 0.05)
    bench = Bench()
    await bench.running("a")
    bench.vllm.hangs.set()
    assert await asyncio.to_thread(bench.vllm.hanging.wait, 10)
    meeting = asyncio.create_task(bench.engine.meet_peer(PEER))
    await asyncio.sleep(0)
    began = time.monotonic()
    try:
        async with asyncio.timeout(10):
            await bench.engine.close()
            with pytest.raises(EngineGone):
                await meeting
        assert time.monotonic() - began < CLOSE_S
    finally:
        bench.vllm.free.set()


def test_what_a_request_is_told_quotes_nothing() -> None:
    assert "secret" not in failure_of(SECRET)
