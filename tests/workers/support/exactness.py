"""``python -m tests.workers.support.exactness``: greedy output with and without KV pressure.

It needs a process of its own because vLLM and torch read their environment at import. It prints one
JSON object with an entry for each policy and each way to resume. An entry counts preemptions,
recomputed and reloaded tokens, and outputs that differ from the run without pressure. In another
run the policy changes all the time. Two more runs spoil KV on purpose, on the device and in host
memory.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from bench.policies import kv_offload
from bench.policies.small_memory_engine import Load, SmallMemoryEngine
from workers.kv.offload import HostMemoryWorker
from workers.policy.settings import POLICIES, POLICY_NAMES

LOAD = Load(requests=14, output_tokens=110)
AT_ONCE = 3  # that fit without pressure
BROKEN_EVERY = 40  # steps

SETTINGS = msgspec.structs.replace(
    kv_offload.SETTINGS,
    quantum_tokens=12,
    demotion_tokens=40,
    max_model_len=224,
    kv_blocks=20,
    # Otherwise preempted requests would find their blocks again and lose nothing.
    engine_args={"enable_prefix_caching": False},
)


class Engine(SmallMemoryEngine):
    """An engine whose KV can be spoiled."""

    mixing = ""  # "device" or "host"
    switching = False
    switches = 0

    def before_step(self, step: int) -> None:
        """Change the policy at every other step, or spoil KV at some.

        KV is spoiled by a shift of the blocks on the device, or by clearing host memory.
        """
        if self.switching and step % 2:
            policy = POLICY_NAMES[self.switches % len(POLICY_NAMES)]
            self.scheduler.use_policy(msgspec.structs.replace(self._policy_settings, policy=policy))
            self.switches += 1
        if not step or step % BROKEN_EVERY:
            return
        worker = self.core.model_executor.driver_worker.worker
        if self.mixing == "device":
            for cache in worker.model_runner.kv_caches:
                blocks = next(d for d, size in enumerate(cache.shape) if size == SETTINGS.kv_blocks)
                cache.copy_(cache.roll(1, blocks))
        if self.mixing == "host":
            for memory in self.host_memory().memory:
                memory[:] = 0

    def host_memory(self) -> HostMemoryWorker:
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        worker = get_kv_transfer_group().connector_worker.worker
        assert isinstance(worker, HostMemoryWorker)
        return worker


def main() -> None:
    engine = Engine(SETTINGS, LOAD)
    engine.use("fcfs", "recompute")
    reference = engine.run(AT_ONCE)
    found: dict[str, Any] = {"unpressured": reference.compared_with(reference)}
    for resume in ("recompute", "reload"):
        found[resume] = {}
        for policy in POLICIES:
            engine.use(policy, resume)
            found[resume][policy] = engine.run().compared_with(reference)
        engine.use("slack", resume)
        engine.switching = True
        found[resume]["switching"] = engine.run().compared_with(reference)
        engine.switching = False
    found["switches"] = engine.switches
    for engine.mixing in ("device", "host"):
        engine.use("slack", "reload")
        found[f"broken_{engine.mixing}"] = engine.run().compared_with(reference)
    found["tokens"] = sum(map(len, reference.outputs))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
