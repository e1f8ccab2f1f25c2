"""A real engine in this process whose policy can be exchanged while it is idle.

One engine serves run after run: loading it takes longer than most runs, and vLLM keeps its KV
connector once per process. Import this module only in a process of its own: it sets the
environment before vLLM and torch read it.
"""

from __future__ import annotations

import os

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
os.environ |= {"VLLM_USE_V2_MODEL_RUNNER": "0", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from vllm.v1.engine.core_client import InprocClient
from vllm.v1.engine.llm_engine import LLMEngine

from workers.engine.vllm_config import vllm_config
from workers.policy.settings import PolicySettings
from workers.scheduler.plugin import PhaseAsyncScheduler, PhaseScheduler
from workers.settings import WorkerSettings


class LocalEngine:
    """vLLM's `LLMEngine` with the scheduler plugin."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Load the model; takes seconds."""
        self.config = vllm_config(settings)
        self.llm = LLMEngine.from_vllm_config(self.config, disable_log_stats=True)
        client = self.llm.engine_core
        assert isinstance(client, InprocClient)
        self.core = client.engine_core
        assert isinstance(self.core.scheduler, PhaseScheduler | PhaseAsyncScheduler)
        self.scheduler = self.core.scheduler

    def finish(self) -> None:
        """Step until nothing is left, not even KV of ended requests that is still being stored."""
        while self.scheduler.has_requests():
            self.llm.step()

    def forget(self) -> None:
        """Discard all KV that is cached or offloaded. No request may be left."""
        assert self.llm.reset_prefix_cache(reset_connector=True)

    def use_policy(self, policy: PolicySettings) -> None:
        """Schedule by this policy from now on. No request may be left."""
        assert not self.scheduler.has_unfinished_requests()
        self.scheduler.use_policy(policy)
