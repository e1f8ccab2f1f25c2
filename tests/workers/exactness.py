"""``python -m tests.workers.exactness``: greedy float32 output with and without KV pressure.

A process of its own because vLLM and torch read their environment at import. Prints one JSON
object: how often each policy preempted, and how many outputs differ from those of the unpressured
run; also those of a run whose KV blocks were mixed up on purpose.
"""

from __future__ import annotations

import json
import os

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}

from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.core_client import InprocClient
from vllm.v1.engine.llm_engine import LLMEngine

from tests.workers.harness import MODEL
from workers.load import load_tokenizer, vllm_config
from workers.policy import POLICIES, PolicySettings
from workers.scheduler import PhaseScheduler, phase_config, policy_settings
from workers.settings import WorkerSettings

REQUESTS = 14
OUTPUT = 110  # tokens
AT_ONCE = 3  # that fit without pressure
BROKEN_STEP = 40

SETTINGS = WorkerSettings(
    instance_id="a",
    listen="unix:/x",
    model=str(MODEL),
    served_model_name="tiny",
    policy="slack",
    quantum_tokens=12,
    demotion_tokens=40,
    low_water_s=0.2,
    high_water_s=0.6,
    dtype="float32",
    max_model_len=224,
    max_num_seqs=8,
    kv_blocks=20,
    block_size=32,
    # Else what was preempted would find its blocks again and recompute nothing.
    engine_args={"enable_prefix_caching": False},
)


class Bench:
    """One engine, whose policy is exchanged while it is idle."""

    def __init__(self) -> None:
        config = vllm_config(SETTINGS)
        self.policy_settings = policy_settings(phase_config(config))
        self.llm = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        client = self.llm.engine_core
        assert isinstance(client, InprocClient)
        self.core = client.engine_core
        assert isinstance(self.core.scheduler, PhaseScheduler)
        self.scheduler = self.core.scheduler
        tokenizer = load_tokenizer(config)
        self.prompts: list[list[int]] = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": f"What is {13 * i + 5} + {7 * i + 11}?"}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
            for i in range(REQUESTS)
        ]
        self.runs = 0

    def use(self, policy: str) -> None:
        numbers = {f: getattr(self.policy_settings, f) for f in self.policy_settings.__slots__}
        self.scheduler.use_policy(PolicySettings(**(numbers | {"policy": policy})))

    def run(self, at_once: int, broken: bool = False) -> tuple[list[list[int]], int]:
        """Outputs in the order of the prompts, and how many preemptions they took."""
        before = self.scheduler.phase_stats().preemptions_total
        self.runs += 1
        outputs: list[list[int]] = [[] for _ in self.prompts]
        waiting, live, steps = list(range(REQUESTS)), 0, 0
        while waiting or live:
            while waiting and live < at_once:
                self.add(waiting.pop(0))
                live += 1
            if broken and steps == BROKEN_STEP:
                self.mix_up_blocks()
            for output in self.llm.step():
                index = int(output.request_id.partition("-")[0])
                outputs[index] += output.outputs[0].token_ids
                live -= output.finished
            steps += 1
        return outputs, self.scheduler.phase_stats().preemptions_total - before

    def add(self, index: int) -> None:
        params = SamplingParams(
            temperature=0.0,
            max_tokens=OUTPUT,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        prompt = {"prompt_token_ids": self.prompts[index]}
        self.llm.add_request(f"{index}-{self.runs}", prompt, params)

    def mix_up_blocks(self) -> None:
        """Every request finds in its blocks what another wrote."""
        for cache in self.core.model_executor.driver_worker.worker.model_runner.kv_caches:
            blocks = next(d for d, size in enumerate(cache.shape) if size == SETTINGS.kv_blocks)
            cache.copy_(cache.roll(1, blocks))


def main() -> None:
    bench = Bench()
    bench.use("fcfs")
    reference, preemptions = bench.run(AT_ONCE)
    found = {"unpressured": {"preemptions": preemptions, "different": 0}}
    for policy in POLICIES:
        bench.use(policy)
        outputs, preemptions = bench.run(REQUESTS)
        found[policy] = {
            "preemptions": preemptions,
            "different": sum(a != b for a, b in zip(outputs, reference, strict=True)),
        }
    outputs, _ = bench.run(REQUESTS, broken=True)
    different = sum(a != b for a, b in zip(outputs, reference, strict=True))
    found["broken"] = {"preemptions": 0, "different": different}
    found["sizes"] = {"requests": len(reference), "tokens": sum(map(len, reference))}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
