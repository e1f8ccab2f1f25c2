"""The settings of a worker process: one immutable value, passed as one JSON argument."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

MAX_SOCKET_PATH_BYTES = 107  # longest path of a Unix socket: sockaddr_un without its final zero


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one worker and its engine.

    ``listen`` is ``unix:/path`` or ``tcp://host:port``. ``parent_fd`` is the read end of a pipe
    whose other end the launcher keeps open. When that end closes, the launcher has ended, and the
    worker exits.
    """

    instance_id: str
    listen: str
    model: str  # path or hub id
    served_model_name: str
    token: str | None = None  # what `Hello` must carry; required for TCP
    parent_fd: int | None = None
    heartbeat_s: float = 1.0  # interval; to the gateway 3.5 intervals are a long silence
    cpu_cores: tuple[int, ...] = ()  # pin to these; empty: leave to the system
    engine: Literal["inprocess", "async"] = "inprocess"  # in this process, or vLLM's AsyncLLM
    emulate: str | None = None  # device profile in place of hardware; see `workers.emulation`
    policy: str = "slack"  # with its numbers below; see `workers.policy.settings`
    quantum_tokens: int = 500
    demotion_tokens: int = 5000
    low_water_s: float = 2.0
    high_water_s: float = 12.0
    calls: Literal["calling", "answering"] = "calling"
    # Parsers of vLLM: "auto", "none", a registered name, or a plugin as path.py or path.py:name.
    reasoning_parser: str = "auto"
    tool_parser: str = "auto"
    # Reasoning tokens by word of effort, as word=tokens, for templates that know no effort.
    thinking_budgets: tuple[str, ...] = ()
    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 64  # batch slots
    max_num_batched_tokens: int | None = None
    watermark: float = 0.0  # share of the KV blocks that vLLM keeps free when it admits requests
    kv_cache_gib: float | None = None  # KV memory of the CPU engine
    kv_blocks: int | None = None  # exact number of KV blocks, instead of kv_cache_gib
    block_size: int | None = None
    enforce_eager: bool = True
    gpu_memory_utilization: float | None = None
    tensor_parallel_size: int = 1
    seed: int = 0
    kv_offload_gib: float = 0.0  # host memory for KV of preempted requests; 0: recompute it
    kv_migration: bool = False  # requests arrive and leave with their KV; needs NIXL
    # How long the KV of a request that left waits to be read. The target may have to make room
    # first; meanwhile the memory is missing here.
    kv_held_s: float = 15.0
    kv_resume: str = "auto"  # see `workers.policy.resume_cost.RESUMES`
    step_log: str | None = None  # file for the contents and times of steps: `workers.step_log`
    engine_args: dict[str, Any] = {}  # any other field of vLLM's EngineArgs
