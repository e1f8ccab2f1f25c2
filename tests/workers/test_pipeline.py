"""Both schedulers of the plugin, driven step by step with a model that is a function.

The asynchronous one runs two steps deep, as on a GPU: a step is scheduled before the outputs of
the one before it are known. Whatever is preempted or aborted meanwhile, every stream must come out
exact and the figures by phase must be those of a recount. The gate for every change of vLLM's
version.
"""

from __future__ import annotations

import collections
import random
import zlib
from collections.abc import Callable, Iterator

import pytest
import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from tests.workers.harness import MODEL
from workers.load import vllm_config
from workers.phase import Phase
from workers.scheduler import PhaseAsyncScheduler, PhaseScheduler, think_markers
from workers.settings import WorkerSettings

BLOCK = 32
BLOCKS = 80  # far fewer than the requests want at once
REQUESTS = 30
OUTPUT = 150  # tokens of each request


@pytest.fixture(scope="module")
def config() -> VllmConfig:
    return vllm_config(
        WorkerSettings(
            instance_id="a",
            listen="unix:/x",
            model=str(MODEL),
            served_model_name="tiny",
            max_model_len=1024,
            max_num_seqs=16,
        )
    )


class Pipeline:
    """A scheduler, and a model whose every token is known in advance."""

    def __init__(
        self, kind: type[PhaseScheduler | PhaseAsyncScheduler], config: VllmConfig, seed: int
    ) -> None:
        self.depth = 2 if issubclass(kind, PhaseAsyncScheduler) else 1
        config.scheduler_config.async_scheduling = self.depth > 1
        config.cache_config.num_gpu_blocks = BLOCKS
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
        self.chance = random.Random(seed)
        markers = think_markers(config)
        assert markers is not None
        self.end = markers.end
        self.prompt = {f"r{i}": 40 + i for i in range(REQUESTS)}
        self.boundary = {name: self.chance.randrange(OUTPUT + 20) for name in self.prompt}
        self.got: dict[str, list[int]] = collections.defaultdict(list)
        self.aborted: set[str] = set()
        self.in_flight: collections.deque[tuple[SchedulerOutput, ModelRunnerOutput]] = (
            collections.deque()
        )

    def token(self, name: str, index: int) -> int:
        """The model: output token ``index`` of a request."""
        if index == self.boundary[name]:
            return self.end
        return 5 + zlib.crc32(f"{name} {index}".encode()) % 900

    def run(self, abort: bool, check: Callable[[], None]) -> None:
        waiting = list(self.prompt)
        while waiting or self.scheduler.has_requests() or self.in_flight:
            if waiting and self.chance.random() < 0.5:
                self.add(waiting.pop(0))
            if self.scheduler.has_requests():
                self.schedule()
            if self.in_flight and (
                len(self.in_flight) >= self.depth or not self.scheduler.has_requests()
            ):
                if abort and self.scheduler.running and self.chance.random() < 0.02:
                    victim = self.chance.choice(self.scheduler.running).request_id
                    self.aborted.add(victim)
                    self.scheduler.finish_requests(victim, RequestStatus.FINISHED_ABORTED)
                self.update()
                check()

    def add(self, name: str) -> None:
        length = self.prompt[name]  # no two are the same
        self.scheduler.add_request(
            Request(
                request_id=name,
                prompt_token_ids=[5 + (29 * length + i) % 900 for i in range(length)],
                sampling_params=SamplingParams(
                    max_tokens=OUTPUT, ignore_eos=True, detokenize=False
                ),
                pooling_params=None,
                block_hasher=get_request_block_hasher(BLOCK, sha256),
            )
        )

    def schedule(self) -> None:
        output = self.scheduler.schedule()
        names = list(output.num_scheduled_tokens)
        self.in_flight.append(
            (
                output,
                ModelRunnerOutput(
                    req_ids=names,
                    req_id_to_index={name: index for index, name in enumerate(names)},
                    sampled_token_ids=[list(self.sampled(name)) for name in names],
                ),
            )
        )

    def sampled(self, name: str) -> Iterator[int]:
        request = self.scheduler.requests[name]
        if not request.is_prefill_chunk:
            yield self.token(name, request.num_computed_tokens - self.prompt[name])

    def update(self) -> None:
        for batch in self.scheduler.update_from_output(*self.in_flight.popleft()).values():
            for output in batch.outputs:
                self.got[output.request_id] += output.new_token_ids


@pytest.mark.parametrize("kind", [PhaseScheduler, PhaseAsyncScheduler])
@pytest.mark.parametrize("abort", [False, True])
def test_streams_are_exact_and_figures_are_those_of_a_recount(
    config: VllmConfig, kind: type[PhaseScheduler | PhaseAsyncScheduler], abort: bool
) -> None:
    pipeline = Pipeline(kind, config, seed=7)
    scheduler = pipeline.scheduler

    def phase_of(name: str) -> Phase:
        seen = pipeline.got[name]
        return Phase.ANSWERING if pipeline.end in seen else Phase.REASONING

    def check() -> None:
        stats = scheduler.phase_stats()
        running = collections.Counter(phase_of(r.request_id) for r in scheduler.running)
        everything = collections.Counter(map(phase_of, scheduler.requests))
        for phase, counts in (
            (Phase.REASONING, stats.reasoning),
            (Phase.ANSWERING, stats.answering),
        ):
            assert counts.running == running[phase]
            assert counts.waiting == everything[phase] - running[phase]
        # Prompts differ from their first token on: no block is shared.
        assert stats.reasoning.kv_blocks + stats.answering.kv_blocks == stats.kv_blocks_used

    pipeline.run(abort, check)
    for name in pipeline.prompt:
        expected = [pipeline.token(name, index) for index in range(OUTPUT)]
        got = pipeline.got[name]
        assert got == (expected[: len(got)] if name in pipeline.aborted else expected)
    stats = scheduler.phase_stats()
    assert stats.preemptions_total > 0
    assert (stats.kv_blocks_used, stats.kv_blocks_total) == (0, BLOCKS - 1)
    assert scheduler._phase_states == {}
    assert bool(pipeline.aborted) == abort
