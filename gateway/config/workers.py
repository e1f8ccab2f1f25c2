"""The tables about workers: model, engines, launcher, placement and failover."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import msgspec

from gateway.config.table import Table, Texts
from gateway.policy.placement import BoundaryRule, Rules
from workers.checked import about
from workers.policy.settings import POLICY_NAMES

EMBEDDED = "embedded"  # the name of the model in this repository


class ModelConfig(Table, frozen=True, kw_only=True):
    """The model that all workers serve."""

    name: Annotated[
        str, about('"embedded" for the small model of this repository, a path, or a hub id.')
    ] = EMBEDDED
    served_name: Annotated[
        str, about("Name of the model in the API; empty: derived from `model.name`.")
    ] = ""
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        about("Number format of weights and activations."),
    ] = "auto"
    max_model_len: Annotated[
        int,
        about(
            "Most tokens of prompt and output together; 0: the model's own limit.",
            ge=0,
            unit="tokens",
        ),
    ] = 0
    reasoning_parser: Annotated[
        str,
        about(
            'What reads the thoughts in the output: "auto" chooses by architecture and tokenizer; '
            '"none"; a parser that vLLM registers; or a plugin, `path.py` or `path.py:name`.'
        ),
    ] = "auto"
    tool_parser: Annotated[
        str, about("What reads calls of tools; the same choices as `reasoning_parser`.")
    ] = "auto"
    thinking_budgets: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^[a-z]+=[0-9]+$")], ...],
        about(
            "Most reasoning tokens for each word of effort, for models whose chat template knows "
            "no effort; 0: as many as the model likes."
        ),
    ] = ("minimal=128", "low=512", "medium=2048", "high=0", "xhigh=0", "max=0")
    drop_billing_header: Annotated[
        bool,
        about(
            "Leave out the line `x-anthropic-billing-header: ...` with which a system prompt "
            "begins: it changes with each request, so that no KV would be found again."
        ),
    ] = True


class WorkersConfig(Table, frozen=True, kw_only=True):
    """Worker processes, their engines and the scheduling inside an engine."""

    count: Annotated[int, about("Number of workers, each with one engine.", ge=1)] = 2
    engine: Annotated[
        Literal["auto", "inprocess", "async"],
        about('"inprocess" suits CPUs, "async" (vLLM\'s AsyncLLM) GPUs; "auto" chooses.'),
    ] = "auto"
    emulate: Annotated[
        str,
        about(
            "Device profile, by name or path, that replaces model and hardware by scripted "
            "tokens in modelled time; empty: none."
        ),
    ] = ""
    policy: Annotated[
        str,
        about(
            f"Scheduling policy of an engine: {', '.join(POLICY_NAMES)}; or module:function, a "
            "policy of your own. fcfs is vLLM's own order."
        ),
    ] = "slack"
    quantum_tokens: Annotated[
        int,
        about(
            "rr, pascal, slack: tokens that a request may generate before others get their turn.",
            ge=1,
        ),
    ] = 500
    demotion_tokens: Annotated[
        int,
        about("pascal: a request that has reasoned for more tokens moves to the low queue.", ge=1),
    ] = 5000
    low_water_s: Annotated[
        float, about("slack: a reader with less left to read is served first.", ge=0)
    ] = 2.0
    high_water_s: Annotated[
        float,
        about(
            "slack: that reader keeps precedence until it has this much to read; a larger "
            "distance to `low_water_s` means fewer preemptions.",
            ge=0.01,
        ),
    ] = 12.0
    calls: Annotated[
        Literal["calling", "answering"],
        about(
            "How a request that writes a call of a tool is scheduled: as reasoning, because "
            "nobody reads it, or, to compare with, as an answer."
        ),
    ] = "calling"
    max_num_seqs: Annotated[
        int,
        about("Batch slots of one engine: the most requests in one step.", ge=1, unit="requests"),
    ] = 64
    max_num_batched_tokens: Annotated[
        int,
        about(
            "Most tokens in one step; 0: vLLM's own default. Long prompts delay readers, so "
            "1024 may serve them better.",
            ge=0,
        ),
    ] = 0
    watermark: Annotated[
        float,
        about(
            "Share of the KV blocks that vLLM keeps free when it admits a request; 0: none. More "
            "means fewer preemptions with `fcfs`; `slack` needs none.",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    kv_cache_gib: Annotated[float, about("KV memory of one CPU engine.", ge=0.01)] = 0.5
    kv_blocks: Annotated[
        int,
        about("Exact number of KV blocks instead of `kv_cache_gib`; 0: off.", ge=0, unit="blocks"),
    ] = 0
    block_size: Annotated[
        int, about("Tokens of one KV block; 0: vLLM's own default.", ge=0, unit="tokens")
    ] = 0
    kv_offload_gib: Annotated[
        float,
        about(
            "Host memory of one engine for the KV of preempted requests; 0: none, the KV "
            "is computed again.",
            ge=0,
        ),
    ] = 0.0
    kv_resume: Annotated[
        Literal["auto", "reload", "recompute"],
        about('How a preempted request gets its KV back; "auto" takes the cheaper way.'),
    ] = "auto"
    kv_migration: Annotated[
        bool,
        about(
            "Whether a request that changes engines takes its KV along instead of "
            "computing it again."
        ),
    ] = True
    step_log_dir: Annotated[
        str,
        about(
            "Folder for a log of engine steps of each worker, read by "
            "`pascal simulate calibrate`; empty: no such log."
        ),
    ] = ""
    enforce_eager: Annotated[
        bool, about("Run the model without compilation; always so on a CPU.")
    ] = False
    gpu_memory_utilization: Annotated[
        float, about("Share of a GPU's memory that an engine may use.", ge=0.05, le=1.0)
    ] = 0.9
    tensor_parallel_size: Annotated[int, about("GPUs of one engine.", ge=1)] = 1
    start_timeout_s: Annotated[
        float, about("Time for a worker to start; a slower one is killed.", ge=1)
    ] = 600.0
    heartbeat_timeout_s: Annotated[
        float, about("A worker that is silent for longer is killed and restarted.", ge=2)
    ] = 15.0
    restart_backoff_s: Annotated[
        float,
        about(
            "Pause before a restart. It doubles with each failure, until the worker has "
            "served for a minute.",
            ge=0.01,
        ),
    ] = 0.5
    restart_backoff_max_s: Annotated[float, about("Longest pause before a restart.", ge=0.01)] = (
        30.0
    )


class LauncherConfig(Table, frozen=True, kw_only=True):
    """How the workers are started; see `gateway.launchers.base`."""

    kind: Annotated[
        Literal["local", "static", "ray"],
        about(
            '"local": this gateway starts them on its machine; "static": they are started '
            'elsewhere, with `pascal worker`; "ray": as actors of a Ray cluster.'
        ),
    ] = "local"
    addresses: Annotated[
        Texts,
        about(
            "static: where the workers listen: ws://host:port, wss://host:port, "
            "tcp://host:port or unix:/path."
        ),
    ] = ()
    token: Annotated[
        str, about("static: the secret that all workers on TCP ask for.", secret=True)
    ] = ""
    token_file: Annotated[str, about("A file that holds the token.")] = ""
    address: Annotated[
        str, about('ray: the address of the cluster; "auto": the one this machine belongs to.')
    ] = "auto"
    namespace: Annotated[
        str, about("ray: namespace of the actors worker-0, worker-1 and so on.")
    ] = "pascal"
    cpus: Annotated[float, about("ray: CPUs that one worker reserves.", ge=0)] = 1.0
    gpus: Annotated[
        int,
        about(
            "ray: GPUs that one worker reserves; -1: `workers.tensor_parallel_size`, or "
            "none for a CPU engine.",
            ge=-1,
        ),
    ] = -1


class PlacementConfig(Table, frozen=True, kw_only=True):
    """Which instance serves a request, and which requests move; see `Rules`."""

    new: Annotated[
        Literal["pascal", "round_robin", "least_kv"],
        about(
            'Instance of a new request; "pascal" is the paper\'s rule: one within its SLO, then '
            "the least KV."
        ),
    ] = "pascal"
    boundary: Annotated[
        BoundaryRule,
        about(
            'Whether a request moves at its phase boundary: "off" never; "always" and '
            '"adaptive" are the paper\'s rules (fewest reasoning requests, "adaptive" only where '
            'memory is free); "balance" to the least KV.'
        ),
    ] = "balance"
    balance_gap: Annotated[
        float,
        about(
            "balance: move only if KV footprints differ by more than this multiple of the "
            "request's own.",
            ge=0,
        ),
    ] = 2.0
    headroom: Annotated[
        float,
        about(
            "Share of an instance's KV memory. adaptive: must stay free at the target. "
            "balance: footprints must differ by more, and the request must fit at the "
            "target. 0: no such condition.",
            ge=0,
            le=0.9,
        ),
    ] = 0.1
    affinity: Annotated[
        float,
        about(
            "A conversation returns to the instance with its KV unless that instance's "
            "footprint is larger by more than this multiple of the KV. 0: no preference, and "
            "conversations between two turns do not count in placement.",
            ge=0,
        ),
    ] = 2.0
    cost_check: Annotated[
        bool,
        about(
            "Do not move a request if the transfer takes longer than waiting here and "
            "longer than `pacing.ttfat_s`."
        ),
    ] = True
    max_migrations: Annotated[int, about("Most migrations at one time; 0: no limit.", ge=0)] = 16
    max_migrations_per_instance: Annotated[
        int, about("Most migrations at one time from and to one instance; 0: no limit.", ge=0)
    ] = 4
    reserve_memory: Annotated[
        bool, about("Count a request that is moving as already at its target.")
    ] = True
    migration_timeout_s: Annotated[
        float,
        about(
            "Time for each step of a migration; then the request goes on without its KV, "
            "which is computed again.",
            ge=0.1,
        ),
    ] = 10.0

    @property
    def rules(self) -> Rules:
        """The part that placement decides by."""
        return Rules(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Rules)})


class ClusterConfig(Table, frozen=True, kw_only=True):
    """Requests that have lost their instance."""

    failover_timeout_s: Annotated[
        float, about("How long such a request waits for another instance before it fails.", ge=0)
    ] = 120.0
    max_restarts: Annotated[
        int,
        about(
            "Instances that one request may lose before it fails: it may be what crashes them.",
            ge=0,
        ),
    ] = 3
