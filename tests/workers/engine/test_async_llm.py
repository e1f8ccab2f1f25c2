"""The adapter of `AsyncLLM` with a vLLM that the test breaks: reports, and unharmed requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.outputs import RequestOutput

from tests.workers.engine.test_in_process import SECRET, made
from tests.workers.support.engines import PEER, PHASES, Listener, request
from workers.engine import async_llm, meeting
from workers.engine.async_llm import AsyncEngine, _StepListener
from workers.engine.interface import CLOSE_S, EngineGone
from workers.messages import Pace
from workers.scheduler.phase_stats import to_integers


class FakeVllm:
    """The client side of vLLM's processes."""

    def __init__(self) -> None:
        self.broken: dict[str, Exception] = {}  # errors that calls raise
        self.aborted: list[str] = []
        self.queues: dict[str, Any] = {}
        self.engine_core = SimpleNamespace(call_utility_async=self.call_utility)
        self.output_handler = asyncio.get_running_loop().create_future()
        self.shutdown: Any = lambda: None

    def _raise(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]

    async def add_request(self, request_id: str, *_: Any) -> Any:
        if request_id == "bad":
            self._raise("add_request")
        found: list[RequestOutput | Exception] = []

        def get_nowait() -> RequestOutput | None:
            output = found.pop(0) if found else None
            if isinstance(output, Exception):
                raise output
            return output

        self.queues[request_id] = found
        return SimpleNamespace(request_id=f"{request_id}-0", get_nowait=get_nowait)

    async def abort(self, request_id: str, internal: bool = False) -> None:
        self.aborted.append(request_id)
        if internal:
            self._raise("abort")

    async def call_utility(self, name: str, *_: Any) -> str | None:
        self._raise(name)
        return None


class Bench:
    def __init__(self) -> None:
        self.vllm = FakeVllm()
        self.listener = Listener()
        engine: Any = object.__new__(AsyncEngine)
        engine._defaults = {}
        engine._llm = self.vllm
        engine._structures = SimpleNamespace(close=lambda: None)
        engine._prepare()
        self.engine: AsyncEngine = engine
        self.on_step = _StepListener(engine._stepped)
        self.engine.start(self.listener)

    async def running(self, *names: str) -> None:
        for name in names:
            self.engine.submit(request(name))
        await self.listener.wait(lambda: set(names) <= set(self.listener.accepted))

    def step(self, **outputs: RequestOutput | Exception) -> None:
        for name, output in outputs.items():
            self.vllm.queues[name].append(output)
        stats: Any = SimpleNamespace(num_kv_fetch_reqs_by_stage=to_integers(PHASES))
        self.on_step.record(stats, None)

    async def goes_on(self) -> None:
        """Let one more token arrive for the first request."""
        count = len(self.listener.of("a"))
        self.step(a=made("a", 7))
        assert len(self.listener.of("a")) == count + 1
        assert self.listener.failures == []


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.engine.close()


async def test_a_request_that_cannot_be_added_is_rejected_alone(bench: Bench) -> None:
    await bench.running("a")
    bench.vllm.broken["add_request"] = SECRET
    bench.engine.submit(request("bad"))
    await bench.listener.wait(lambda: bench.listener.rejected)
    assert bench.listener.rejected == [("bad", "internal_error")]
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
    await bench.goes_on()


async def test_a_pace_that_cannot_be_set_changes_nothing(bench: Bench) -> None:
    await bench.running("a")
    bench.vllm.broken["set_pace"] = SECRET
    bench.engine.set_pace("a", Pace(tau_s=1.0))
    await bench.running("b")  # commands are carried out in order
    await bench.goes_on()
    assert bench.listener.finish("a") is None


async def test_an_output_that_makes_no_sense_ends_its_request_alone(bench: Bench) -> None:
    await bench.running("a", "b", "c")
    bench.step(b=made("b", 7, "nonsense"), c=RuntimeError("vLLM's"), a=made("a", 7))
    assert len(bench.listener.of("a")) == 1
    await bench.listener.wait(lambda: bench.listener.finish("b") and bench.listener.finish("c"))
    assert (bench.listener.finish("b"), bench.listener.finish("c")) == ("error", "error")
    await bench.goes_on()


async def test_a_step_whose_figures_make_no_sense_does_not_end_vllms_loop(bench: Bench) -> None:
    await bench.running("a")
    bench.on_step.record(SimpleNamespace(), None)
    await bench.goes_on()


async def test_a_meeting_is_the_callers_and_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "MEETING_S", 0.05)
    assert "not connected after" in (await bench.engine.meet_peer(PEER) or "")
    bench.vllm.broken["meet_peer"] = RuntimeError("the peer has died")
    with pytest.raises(RuntimeError, match="the peer has died"):
        await bench.engine.meet_peer(PEER)
    await bench.engine.close()
    with pytest.raises(EngineGone):
        await bench.engine.meet_peer(PEER)


async def test_a_dead_engine_is_told_of_once(bench: Bench) -> None:
    await bench.running("a")
    bench.vllm.output_handler.set_result(None)
    await bench.listener.wait(lambda: bench.listener.failures)
    assert bench.listener.failures == ["the engine died"]


async def test_closing_does_not_wait_for_processes_that_hang(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_llm, "CLOSE_S", 0.05)
    bench.vllm.shutdown = threading.Event().wait
    began = time.monotonic()
    await bench.engine.close()
    assert time.monotonic() - began < CLOSE_S
    bench.vllm.shutdown = lambda: None
