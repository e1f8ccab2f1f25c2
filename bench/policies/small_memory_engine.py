"""A real engine in this process with little KV memory, which runs the same requests repeatedly.

Import this module only in a process of its own (`bench.policies.local_engine`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.policies.local_engine import LocalEngine  # first: it sets the environment

# isort: split

import msgspec
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.core.sched.output import SchedulerOutput

from workers.engine.vllm_config import load_tokenizer
from workers.scheduler.plugin import phase_config, policy_settings
from workers.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Load:
    """Greedy requests that run together."""

    requests: int
    output_tokens: int  # of each


@dataclass(frozen=True, slots=True)
class Run:
    """Outputs and totals of one run of the load."""

    outputs: list[list[int]]  # in the order of the prompts
    preemptions: int
    computed_tokens: int
    reloaded_tokens: int  # after preemptions, as the next
    recomputed_tokens: int

    def compared_with(self, reference: Run) -> dict[str, int]:
        """Tokens computed beyond those of another run, and outputs that differ from its own."""
        pairs = zip(self.outputs, reference.outputs, strict=True)
        return {
            "preemptions": self.preemptions,
            "extra": self.computed_tokens - reference.computed_tokens,
            "reloaded": self.reloaded_tokens,
            "recomputed": self.recomputed_tokens,
            "different": sum(a != b for a, b in pairs),
        }


class SmallMemoryEngine(LocalEngine):
    """The engine and its load."""

    def __init__(self, settings: WorkerSettings, load: Load) -> None:
        """Load the model; takes seconds."""
        super().__init__(settings)
        self._policy_settings = policy_settings(phase_config(self.config))
        self._load = load
        self._runs = 0
        self._computed_tokens = 0
        tokenizer: Any = load_tokenizer(self.config)
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
        """Use this policy and way to resume, with nothing cached or offloaded."""
        self.finish()
        self.forget()
        if self.scheduler._offload is not None:
            self.scheduler._offload.costs.resume = resume
        self.use_policy(msgspec.structs.replace(self._policy_settings, policy=policy))

    def run(self, at_once: int | None = None) -> Run:
        """Run the whole load, ``at_once`` requests at a time; None: all of them."""
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
        """Do nothing; tests override this to disturb a run."""

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
