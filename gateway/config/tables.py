"""The tables of ``config.toml``: every key with its type, bounds, default and description.

This is the one place that states them. ``docs/reference/configuration.md`` is made from it, and
``config.toml`` is held to it by a test. Durations are seconds and end in ``_s``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from gateway.policy.placement import Rules
from workers.checked import about, settings_of
from workers.policy.settings import POLICY_NAMES

PROJECT_ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = "embedded"

# Short names of variables that are set most often.
ENV_ALIASES = {
    "PASCAL_HOST": "server.host",
    "PASCAL_PORT": "server.port",
    "PASCAL_API_KEYS": "server.api_keys",
    "PASCAL_MODEL": "model.name",
    "PASCAL_WORKERS": "workers.count",
}

Texts = tuple[Annotated[str, msgspec.Meta(pattern=r"\S")], ...]  # none of them blank


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration; its ``repr`` leaves secrets out."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}"
            for name, setting in settings_of(type(self)).items()
            if not setting.secret
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class ServerConfig(Table, frozen=True, kw_only=True):
    """The public API: where it listens, who may use it, and how long it waits for clients."""

    host: Annotated[str, about("Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, about("Port to listen on; 0 takes any free port.", ge=0, le=65535)] = 8080
    api_keys: Annotated[
        Texts,
        about("Keys that clients must send; with an empty list, none is asked for.", secret=True),
    ] = ()
    allowed_origins: Annotated[
        Texts,
        about(
            "Web pages of other origins that may use the API, such as "
            "https://chat.example.org; * allows all."
        ),
    ] = ()
    max_message_bytes: Annotated[
        int, about("Largest request body or message; a larger one gets error 413.", ge=1024)
    ] = 1_048_576
    hard_message_bytes: Annotated[
        int,
        about(
            "A longer WebSocket message closes the connection (code 1009). It also bounds "
            "the requests that queue on one connection.",
            ge=1024,
        ),
    ] = 33_554_432
    header_timeout_s: Annotated[
        float, about("Time for a connection to begin a request and finish its headers.", ge=0.01)
    ] = 30.0
    body_timeout_s: Annotated[
        float, about("Time for a request body to be complete; then it gets error 408.", ge=0.01)
    ] = 30.0
    send_timeout_s: Annotated[
        float, about("A client that accepts no data for this long loses its connection.", ge=0.1)
    ] = 60.0
    sse_keepalive_s: Annotated[
        float,
        about(
            "Silence after which a Responses stream gets a comment line, so that proxies "
            "keep it open; 0 turns this off.",
            ge=0,
        ),
    ] = 15.0
    chat_keepalive_s: Annotated[
        float,
        about("The same for chat completions, where some clients cannot read comments.", ge=0),
    ] = 0.0
    shutdown_timeout_s: Annotated[
        float, about("How long Ctrl-C waits for running requests.", ge=0)
    ] = 10.0
    state_dir: Annotated[str, about("Folder of the response store and the worker logs.")] = (
        ".pascal"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], about("Least severe events to log.")
    ] = "info"


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
        Literal["off", "always", "adaptive", "balance"],
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
            "footprint is larger by more than this multiple of the KV; 0: no preference.",
            ge=0,
        ),
    ] = 1.0
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


class PacingConfig(Table, frozen=True, kw_only=True):
    """Targets for requests that name none."""

    tpot_s: Annotated[
        float, about("Time per answering token; 0.1 is the pace of a fast reader.", ge=0.001, le=60)
    ] = 0.1
    ttfat_s: Annotated[
        float, about("Time from the phase boundary to the first answering token.", ge=0)
    ] = 0.25
    ttft_s: Annotated[float, about("Time from submission to the first answering token.", ge=0)] = (
        10.0
    )
    slo_qoe: Annotated[
        float, about("A response whose QoE is lower violates its SLO.", ge=0, le=1)
    ] = 0.95


class SessionConfig(Table, frozen=True, kw_only=True):
    """How long, and how much of, a response can be resumed."""

    ttl_s: Annotated[float, about("How long a finished response can be resumed.", ge=0)] = 300.0
    grace_s: Annotated[
        float,
        about(
            "How long an HTTP stream goes on after its client has left, unless its body "
            'says `"store": true`.',
            ge=0,
        ),
    ] = 10.0
    log_events: Annotated[int, about("Most events kept of one response.", ge=16, unit="events")] = (
        32768
    )
    total_bytes: Annotated[
        int,
        about(
            "Memory for the events of all finished responses; the oldest lose theirs first.", ge=0
        ),
    ] = 268_435_456


class LimitsConfig(Table, frozen=True, kw_only=True):
    """Admission: beyond these limits a request gets error 429."""

    max_requests: Annotated[
        int, about("Most requests in engines, of all users.", ge=1, unit="requests")
    ] = 1024
    max_readers: Annotated[
        int,
        about(
            "Most unfinished responses: in engines, or generated and still being read.",
            ge=1,
            unit="responses",
        ),
    ] = 4096
    max_requests_per_user: Annotated[
        int,
        about(
            "Most unfinished responses of one API key and `user`; requests with neither are "
            "not counted, nor are generated responses that no client reads.",
            ge=1,
            unit="responses",
        ),
    ] = 64
    max_streams_per_connection: Annotated[
        int, about("Most responses that one WebSocket reads at a time.", ge=1, unit="responses")
    ] = 64
    retry_after_s: Annotated[int, about("When a refused client should try again.", ge=1)] = 2


class StoreConfig(Table, frozen=True, kw_only=True):
    """Stored responses (``store: true``, the default of the API)."""

    path: Annotated[str, about("SQLite file; empty: responses.sqlite3 in `server.state_dir`.")] = ""
    retention_days: Annotated[
        float, about("Older responses are deleted, every hour; 0: never.", ge=0)
    ] = 30.0


class Config(Table, frozen=True, kw_only=True):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    model: ModelConfig = ModelConfig()
    workers: WorkersConfig = WorkersConfig()
    launcher: LauncherConfig = LauncherConfig()
    placement: PlacementConfig = PlacementConfig()
    cluster: ClusterConfig = ClusterConfig()
    pacing: PacingConfig = PacingConfig()
    session: SessionConfig = SessionConfig()
    limits: LimitsConfig = LimitsConfig()
    store: StoreConfig = StoreConfig()

    @property
    def model_path(self) -> str:
        """What the engine loads: a path, or a hub id as given."""
        if self.model.name == EMBEDDED:
            return str(PROJECT_ROOT / "models" / "tiny-reasoner")
        return self.model.name

    @property
    def served_model_name(self) -> str:
        """The model's name in the API."""
        if self.model.served_name:
            return self.model.served_name
        if self.workers.emulate:
            return f"emulated-{Path(self.workers.emulate).stem}"
        if self.model.name == EMBEDDED:
            return "tiny-reasoner"
        path = Path(self.model.name)
        return path.resolve().name if path.is_dir() else self.model.name

    @property
    def model_line(self) -> str:
        """The model's name and source, for the terminal."""
        source = "no model, scripted answers" if self.workers.emulate else self.model_path
        return f"model {self.served_model_name} ({source})"

    @property
    def store_path(self) -> Path:
        """The SQLite file."""
        return Path(self.store.path or Path(self.server.state_dir) / "responses.sqlite3")


def _tables() -> dict[str, type[Table]]:
    return {field.name: type(field.default) for field in msgspec.structs.fields(Config)}


TABLES = _tables()  # by name, in the order of the file
