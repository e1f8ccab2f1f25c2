"""A real engine in this process with little KV memory, whose policy is exchanged while it is idle.

Starting an engine takes longer than the runs that are compared on it. Import only in a process of
its own: the environment is set here, before vLLM and torch read it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import msgspec
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine.core_client import InprocClient
from vllm.v1.engine.llm_engine import LLMEngine

from workers.engine.vllm_config import load_tokenizer, vllm_config
from workers.scheduler.plugin import PhaseScheduler, phase_config, policy_settings
from workers.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Load:
    """Greedy requests."""

    requests: int
    output_tokens: int  # of each


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the load came to."""

    outputs: list[list[int]]  # in the order of the prompts
    preemptions: int
    computed_tokens: int
    reloaded_tokens: int  # after preemptions, as are the next
    recomputed_tokens: int


class SmallMemoryEngine:
    """The engine, and the load that it runs."""

    def __init__(self, settings: WorkerSettings, load: Load) -> None:
        """Load the model."""
        config = vllm_config(settings)
        self._policy_settings = policy_settings(phase_config(config))
        self.llm = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        client = self.llm.engine_core
        assert isinstance(client, InprocClient)
        self.core = client.engine_core
        assert isinstance(self.core.scheduler, PhaseScheduler)
        self.scheduler = self.core.scheduler
        self._load = load
        self._runs = 0
        self._computed_tokens = 0
        tokenizer: Any = load_tokenizer(config)
        self._prompts: list[list[int]] = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": f"What is {13 * i + 5} + {7 * i + 11}?"}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
            for i in range(load.requests)
        ]
        schedule = self.scheduler.schedule

        def counted(*args: Any, **kwargs: Any) -> SchedulerOutput:
            output = schedule(*args, **kwargs)
            self._computed_tokens += output.total_num_scheduled_tokens
            return output

        self.scheduler.schedule = counted  # type: ignore[method-assign]  # this one only

    def use(self, policy: str, resume: str) -> None:
        """Go on with this policy and way to resume, and with nothing cached or offloaded."""
        scheduler = self.scheduler
        assert not scheduler.has_unfinished_requests()
        while scheduler.has_requests():
            self.llm.step()  # KV of finished requests that is still being stored
        assert self.llm.reset_prefix_cache(reset_connector=True)
        if scheduler._offload is not None:
            scheduler._offload.costs.resume = resume
        scheduler.use_policy(msgspec.structs.replace(self._policy_settings, policy=policy))

    def run(self, at_once: int | None = None) -> Run:
        """The whole load, so many requests at a time; None: all of them."""
        before, computed_before = self.scheduler.phase_stats(), self._computed_tokens
        self._runs += 1
        outputs: list[list[int]] = [[] for _ in self._prompts]
        waiting, live, step = list(range(len(outputs))), 0, 0
        while waiting or live:
            while waiting and live < (at_once or len(outputs)):
                self._add(waiting.pop(0))
                live += 1
            self.before_step(step)
            for output in self.llm.step():
                outputs[int(output.request_id.partition("-")[0])] += output.outputs[0].token_ids
                live -= output.finished
            step += 1
        after = self.scheduler.phase_stats()
        return Run(
            outputs=outputs,
            preemptions=after.preemptions_total - before.preemptions_total,
            computed_tokens=self._computed_tokens - computed_before,
            reloaded_tokens=after.reloaded_tokens_total - before.reloaded_tokens_total,
            recomputed_tokens=after.recomputed_tokens_total - before.recomputed_tokens_total,
        )

    def before_step(self, step: int) -> None:
        """For whoever meddles with a run."""

    def _add(self, index: int) -> None:
        params = SamplingParams(
            temperature=0.0,
            max_tokens=self._load.output_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        prompt = {"prompt_token_ids": self._prompts[index]}
        self.llm.add_request(f"{index}-{self._runs}", prompt, params)
