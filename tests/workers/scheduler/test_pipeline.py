"""Both schedulers of the plugin under every policy, driven with a model that is a function.

The asynchronous scheduler runs two steps deep, as on a GPU: it schedules a step before the outputs
of the previous one are known. Requests are preempted and aborted meanwhile. Every stream must still
be exact, and the counts by phase must equal a recount. Every upgrade of vLLM must pass these tests.
"""

from __future__ import annotations

import collections
import random
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest
import torch
from vllm.config import KVTransferConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from tests.workers.support.harness import MODEL
from tests.workers.support.policy_checks import check
from workers.engine.vllm_config import vllm_config
from workers.messages import Pace
from workers.policy.decide import decide
from workers.policy.phase import Markers, Phase, PhaseTracker
from workers.policy.settings import POLICIES, PolicySettings
from workers.policy.view import Decision, Memory, RequestView
from workers.scheduler.plugin import (
    CONFIG_KEY,
    REQUEST_KEY,
    PhaseAsyncScheduler,
    PhaseScheduler,
    phase_config,
    policy_settings,
)
from workers.settings import WorkerSettings

BLOCK = 32
BLOCKS = 80  # far fewer than the requests want at once
REQUESTS = 30
SLOTS = 16
OUTPUT = 150  # tokens of each request
STEP_S = 0.03
# So small that requests of 150 tokens reach all limits.
NUMBERS = {
    "quantum_tokens": 20,
    "demotion_tokens": 60,
    "low_water_s": 0.3,
    "high_water_s": 1.5,
    "min_run_tokens": 4,
}


@pytest.fixture(scope="module")
def config() -> VllmConfig:
    return vllm_config(
        WorkerSettings(
            instance_id="a",
            listen="unix:/x",
            model=str(MODEL),
            served_model_name="tiny",
            max_model_len=1024,
            max_num_seqs=SLOTS,
        )
    )


class Pipeline:
    """A scheduler, and a model whose tokens are known in advance."""

    def __init__(
        self,
        kind: type[PhaseScheduler | PhaseAsyncScheduler],
        config: VllmConfig,
        seed: int,
        policy: str = "fcfs",
        transfer: KVTransferConfig | None = None,
        **numbers: Any,
    ) -> None:
        self.now = 100.0
        self.holds = 0
        self.decisions: list[Decision] = []  # for the step that is being scheduled
        given = config.additional_config[CONFIG_KEY]
        table = {"markers": self.markers(given["markers"])} | NUMBERS | numbers | {"policy": policy}
        config.additional_config = {CONFIG_KEY: table}
        self.depth = 2 if issubclass(kind, PhaseAsyncScheduler) else 1
        config.scheduler_config.async_scheduling = self.depth > 1
        config.cache_config.num_gpu_blocks = BLOCKS
        config.kv_transfer_config = transfer
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        self.scheduler = kind(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(BLOCKS, [], [KVCacheGroupSpec(["layer"], spec)]),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
            hash_block_size=BLOCK,
            log_stats=True,
        )
        init_none_hash(sha256)
        self.rng = random.Random(seed)
        ((self.end,),) = given["markers"]["reasoning_ends"]
        self.prompt = {f"r{i}": 40 + i for i in range(REQUESTS)}
        self.boundary = {name: self.rng.randrange(OUTPUT + 20) for name in self.prompt}
        self.got: dict[str, list[int]] = collections.defaultdict(list)
        self.aborted: set[str] = set()
        self.in_flight: collections.deque[tuple[SchedulerOutput, ModelRunnerOutput]] = (
            collections.deque()
        )

    def markers(self, given: dict[str, Any]) -> dict[str, Any]:
        """The markers of the model, from those of its vocabulary."""
        return given

    def token(self, name: str, index: int) -> int:
        """The model: output token ``index`` of a request."""
        if index == self.boundary[name]:
            return self.end
        return 5 + zlib.crc32(f"{name} {index}".encode()) % 900

    def run(self, abort: bool, check: Callable[[], None]) -> None:
        waiting = list(self.prompt)
        while waiting or self.scheduler.has_requests() or self.in_flight:
            if waiting and self.rng.random() < 0.5:
                self.add(waiting.pop(0))
            self.now += STEP_S
            if self.scheduler.has_requests():
                self.schedule()
            if self.in_flight and (
                len(self.in_flight) >= self.depth or not self.scheduler.has_requests()
            ):
                self.change_paces()
                names, chance = self.abortable()
                if abort and names and self.rng.random() < chance:
                    victim = self.rng.choice(names)
                    self.aborted.add(victim)
                    self.scheduler.finish_requests(victim, RequestStatus.FINISHED_ABORTED)
                self.update()
                check()

    def abortable(self) -> tuple[list[str], float]:
        """The requests that may be aborted, and the probability that one is."""
        return [r.request_id for r in self.scheduler.running], 0.02

    def add(self, name: str) -> None:
        length = self.prompt[name]  # no two are the same
        told = {
            "request_id": f"own-{name}",
            "phase": "reasoning",
            "pace": {"tau_s": self.rng.choice([0.05, 0.1])},
            "user": f"user-{length % 4}" if length % 5 else None,
        }
        self.scheduler.add_request(
            Request(
                request_id=name,
                prompt_token_ids=[5 + (29 * length + i) % 900 for i in range(length)],
                sampling_params=SamplingParams(
                    max_tokens=OUTPUT,
                    ignore_eos=True,
                    detokenize=False,
                    extra_args={REQUEST_KEY: told} | self.extra_args(name),
                ),
                pooling_params=None,
                block_hasher=get_request_block_hasher(BLOCK, sha256),
            )
        )

    def extra_args(self, name: str) -> dict[str, Any]:
        """Additional arguments of a request."""
        return {}

    def change_paces(self) -> None:
        if self.rng.random() < 0.05:
            name = self.rng.choice(list(self.prompt))
            paused = self.rng.random() < 0.5
            self.scheduler.set_pace(f"own-{name}", Pace(tau_s=0.08, paused=paused))

    def decide(
        self, settings: PolicySettings, views: list[RequestView], memory: Memory, now: float
    ) -> Decision:
        """Call the policy; check that its view is true and its decision sound."""
        running = {r.request_id for r in self.scheduler.running}
        assert {r.request_id for r in views} == self.unfinished()
        assert {r.request_id for r in views if r.running} == running
        held = sum(r.blocks_held for r in views) + self.held_by_aborted()
        assert memory.free_blocks + held == BLOCKS - 1
        assert memory.free_slots == SLOTS - len(running) - self.loading()
        for r in views:
            assert r.phase is self.phase_of(r.request_id)
            assert r.ready or self.may_be_unready(r)
        decision = decide(settings, views, memory, now)
        check(settings, views, memory, now, decision)
        self.decisions.append(decision)
        return decision

    def unfinished(self) -> set[str]:
        return {name for name, r in self.scheduler.requests.items() if not r.is_finished()}

    def held_by_aborted(self) -> int:
        return 0  # what is aborted is free at once

    def loading(self) -> int:
        return 0

    def may_be_unready(self, request: RequestView) -> bool:
        return self.depth > 1  # only outputs in flight keep one from running

    def execute(self, output: SchedulerOutput) -> KVConnectorOutput | None:
        """Execute a step on the device."""
        return None

    def phase_of(self, name: str) -> Phase:
        return Phase.ANSWERING if self.end in self.got[name] else Phase.REASONING

    def schedule(self) -> None:
        self.decisions.clear()
        before = self.scheduler.phase_stats().preemptions_total
        output = self.scheduler.schedule()
        names = list(output.num_scheduled_tokens)
        # A request that comes back, perhaps within one step, has all its tokens for the connectors.
        cached = output.scheduled_cached_reqs
        assert cached.resumed_req_ids <= cached.all_token_ids.keys()
        for decision in self.decisions:
            assert not {*decision.hold} & {*names}
            self.holds += len(decision.hold)
            evicted = self.scheduler.phase_stats().preemptions_total - before
            # vLLM admits no request in a step in which it evicts one.
            if evicted == len(decision.preempt):
                assert self.admitted(decision) <= {*names}
        self.in_flight.append(
            (
                output,
                ModelRunnerOutput(
                    req_ids=names,
                    req_id_to_index={name: index for index, name in enumerate(names)},
                    sampled_token_ids=[list(self.sampled(name)) for name in names],
                    kv_connector_output=self.execute(output),
                ),
            )
        )

    def admitted(self, decision: Decision) -> set[str]:
        """The admitted requests that must run in this step."""
        return {*decision.admit}

    def sampled(self, name: str) -> Iterator[int]:
        request = self.scheduler.requests[name]
        if not request.is_prefill_chunk:
            yield self.token(name, request.num_computed_tokens - self.prompt[name])

    def update(self) -> None:
        for batch in self.scheduler.update_from_output(*self.in_flight.popleft()).values():
            for output in batch.outputs:
                self.got[output.request_id] += output.new_token_ids


# Ids that the model writes by chance, every fortieth token and more often.
CALLS, CALLED, THOUGHTS = range(5, 30), range(30, 90), range(90, 120)


class AgentPipeline(Pipeline):
    """A model that calls tools and thinks again, now and then."""

    def markers(self, given: dict[str, Any]) -> dict[str, Any]:
        (end,) = given["reasoning_ends"]
        made = Markers(
            reasoning_starts=tuple((i,) for i in THOUGHTS),
            reasoning_ends=(tuple(end), *((i, i + 1) for i in range(120, 160))),
            call_starts=tuple((i,) for i in CALLS),
            call_ends=tuple((i,) for i in CALLED),
            reopens=True,
            implicit=True,
        )
        self.tracked = made
        plain: dict[str, Any] = msgspec.to_builtins(made)
        return plain

    def phase_of(self, name: str) -> Phase:
        tracker = PhaseTracker(self.tracked, Phase.REASONING)
        tracker.feed(self.got[name])
        self.seen.add(tracker.phase)
        return tracker.phase

    seen: ClassVar[set[Phase]] = set()


def run_and_check(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, abort: bool) -> None:
    """Run to the end; check that every stream is exact and every count equals a recount."""
    scheduler = pipeline.scheduler
    clock = SimpleNamespace(monotonic=lambda: pipeline.now)
    monkeypatch.setattr("workers.scheduler.plugin.time", clock)

    monkeypatch.setattr("workers.scheduler.dispatch.decide", pipeline.decide)

    def recount() -> None:
        stats = scheduler.phase_stats()
        running = collections.Counter(pipeline.phase_of(r.request_id) for r in scheduler.running)
        everything = collections.Counter(map(pipeline.phase_of, pipeline.unfinished()))
        for phase, counts in (
            (Phase.REASONING, stats.reasoning),
            (Phase.ANSWERING, stats.answering),
            (Phase.CALLING, stats.calling),
        ):
            assert counts.running == running[phase]
            assert counts.waiting == everything[phase] - running[phase]
        # Prompts differ from their first token on: no block is shared.
        held = stats.reasoning.kv_blocks + stats.answering.kv_blocks + stats.calling.kv_blocks
        held += pipeline.held_by_aborted()
        deferred = sum(len(blocks) for _, blocks in scheduler.deferred_frees)
        assert held + deferred == stats.kv_blocks_used

    pipeline.run(abort, recount)
    for name in pipeline.prompt:
        expected = [pipeline.token(name, index) for index in range(OUTPUT)]
        got = pipeline.got[name]
        assert got == (expected[: len(got)] if name in pipeline.aborted else expected)
    stats = scheduler.phase_stats()
    assert stats.preemptions_total > 0
    assert (stats.kv_blocks_used, stats.kv_blocks_total) == (0, BLOCKS - 1)
    assert scheduler._phase_states == {}
    assert bool(pipeline.aborted) == abort


def test_numbers_of_a_policy_reach_the_scheduler(config: VllmConfig) -> None:
    settings = WorkerSettings(
        instance_id="a",
        listen="unix:/x",
        model=str(MODEL),
        served_model_name="tiny",
        policy="pascal",
        quantum_tokens=7,
        demotion_tokens=8,
        low_water_s=0.5,
        high_water_s=9.0,
    )
    assert policy_settings(phase_config(vllm_config(settings))) == PolicySettings(
        policy="pascal", quantum_tokens=7, demotion_tokens=8, low_water_s=0.5, high_water_s=9.0
    )
    with pytest.raises(ValueError, match="quantum_tokens: 0 is out of range"):
        vllm_config(msgspec.structs.replace(settings, quantum_tokens=0))


@pytest.mark.parametrize("kind", [PhaseScheduler, PhaseAsyncScheduler])
@pytest.mark.parametrize("policy", POLICIES)
def test_streams_are_exact_and_figures_are_those_of_a_recount(
    config: VllmConfig,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[PhaseScheduler | PhaseAsyncScheduler],
    policy: str,
) -> None:
    run_and_check(Pipeline(kind, config, 7, policy), monkeypatch, abort=False)


@pytest.mark.parametrize("kind", [PhaseScheduler, PhaseAsyncScheduler])
@pytest.mark.parametrize("policy", ["fcfs", "pascal", "slack"])
def test_phases_in_any_order_are_counted_and_seen_by_the_policy(
    config: VllmConfig,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[PhaseScheduler | PhaseAsyncScheduler],
    policy: str,
) -> None:
    numbers = {} if policy == "fcfs" else {"after_call_tokens": 0}
    before = config.additional_config
    pipeline = AgentPipeline(kind, config, 3, policy, **numbers)
    config.additional_config = before  # others use it
    run_and_check(pipeline, monkeypatch, abort=False)
    assert pipeline.seen == {*Phase}


@pytest.mark.parametrize("policy", POLICIES)
def test_no_abort_two_steps_deep_spoils_a_stream_or_leaks_a_block(
    config: VllmConfig, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    for seed in range(20):
        run_and_check(Pipeline(PhaseAsyncScheduler, config, seed, policy), monkeypatch, abort=True)
