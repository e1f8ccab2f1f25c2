"""A listener and requests for the tests of both engine adapters; no model is needed."""

from __future__ import annotations

import asyncio
from typing import Any

from workers.engine.interface import EngineFacts, EngineOutput, EngineRequest, EngineStep
from workers.messages import Endpoint, Pace, PhaseCounts, PhaseStats, Sampling
from workers.policy.phase import Phase

PEER = Endpoint(engine_id="f", host="127.0.0.1", port=9)
FACTS = EngineFacts("fake", 512, 32, 8)
PHASES = PhaseStats(
    reasoning=PhaseCounts(),
    answering=PhaseCounts(),
    kv_blocks_used=0,
    kv_blocks_total=8,
    preemptions_total=0,
    reloaded_tokens_total=0,
    recomputed_tokens_total=0,
    migration=None,
)


class Listener:
    """Records all events, and lets the test wait for them."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.rejected: list[tuple[str, str]] = []  # request, code
        self.outputs: list[EngineOutput] = []
        self.failures: list[str] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def request_accepted(self, request_id: str) -> None:
        self.accepted.append(request_id)
        self._change()

    def request_rejected(self, request_id: str, reason: str, code: str = "invalid_value") -> None:
        assert "secret" not in reason
        self.rejected.append((request_id, code))
        self._change()

    def step_finished(self, step: EngineStep) -> None:
        self.outputs += step.outputs
        self._change()

    def engine_failed(self, reason: str) -> None:
        self.failures.append(reason)
        self._change()

    def of(self, request_id: str) -> list[EngineOutput]:
        return [output for output in self.outputs if output.request_id == request_id]

    def finish(self, request_id: str) -> str | None:
        finishes = [output.finish for output in self.of(request_id) if output.finish]
        return finishes[0] if finishes else None

    async def wait(self, condition: Any) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(condition)

    def _change(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.ensure_future(notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def request(request_id: str) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=(1, 2),
        sampling=Sampling(),
        max_tokens=8,
        phase=Phase.REASONING,
        pace=Pace(tau_s=0.1),
    )
