"""Configuration: one frozen dataclass per table of ``config.toml``.

A value comes from, in this order: a command line flag, a ``PASCAL_<TABLE>_<KEY>`` environment
variable, the file, the default below. Flags and variables may write a value as in the file; a list
may be plain words with commas between, a text needs no quotes, a duration may have a unit. An
unknown table or key, a value of the wrong type or out of range is a `ConfigError` that names it.
Durations are seconds and end in ``_s``.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import tomllib
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from gateway.policy.placement import Rules
from workers.policy.settings import is_plugin

PROJECT_ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = "embedded"

# Short names for what people set most often.
ENV_ALIASES = {
    "PASCAL_HOST": "server.host",
    "PASCAL_PORT": "server.port",
    "PASCAL_API_KEYS": "server.api_keys",
    "PASCAL_MODEL": "model.name",
    "PASCAL_WORKERS": "workers.count",
}
SECRETS = ("api_keys", "token")  # keys whose values are shown to nobody
# Variables of the same family that other parts read.
ENV_FOREIGN = frozenset({"PASCAL_CONFIG", "PASCAL_EXTRA", "PASCAL_API_KEY", "PASCAL_ACCEPTANCE"})


# Flags and variables may give a duration its unit: 250ms, 10s, 5m, 1h.
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_NUMBERS = {int: "a whole number", float: "a number"}
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class ConfigError(Exception):
    """The configuration cannot be used; the message names the key."""


def _setting(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A numeric setting with its bounds (inclusive)."""
    return field(default=default, metadata={"low": low, "high": high})


def _choice(default: str, *choices: str) -> Any:
    return field(default=default, metadata={"choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where the gateway listens and whom it lets in."""

    host: str = "127.0.0.1"
    port: int = _setting(8080, 0, 65535)  # 0: any free port
    api_keys: tuple[str, ...] = field(default=(), repr=False)  # empty: no key asked for
    allowed_origins: tuple[str, ...] = ()  # web origins besides the gateway's own
    max_message_bytes: int = _setting(1_048_576, 1024)  # larger: error 413
    hard_message_bytes: int = _setting(33_554_432, 1024)  # larger: the connection is closed, 1009
    header_timeout_s: float = _setting(30.0, 0.01)  # for a request's first line and its headers
    body_timeout_s: float = _setting(30.0, 0.01)  # for its body
    send_timeout_s: float = _setting(60.0, 0.1)  # a client that takes nothing for longer is dropped
    sse_keepalive_s: float = _setting(15.0, 0)  # silence before a comment; 0: never
    chat_keepalive_s: float = _setting(0.0, 0)  # the same for chat completions
    shutdown_timeout_s: float = _setting(10.0, 0)
    state_dir: str = ".pascal"  # store and worker logs
    log_level: str = _choice("info", "debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What is served."""

    name: str = EMBEDDED  # "embedded", a path, or a hub id
    served_name: str = ""  # the name clients use; empty: from `name`
    dtype: str = _choice("auto", "auto", "bfloat16", "float16", "float32")
    max_model_len: int = _setting(0, 0)  # tokens; 0: the model's own


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersConfig:
    """Worker processes and their engines."""

    count: int = _setting(2, 1)
    engine: str = _choice("auto", "auto", "inprocess", "async")
    emulate: str = ""  # device profile, by name or path, that stands for the hardware; empty: none
    # inside an engine
    policy: str = _choice("slack", "fcfs", "rr", "pascal", "slack", "andes", "tokenflow")
    quantum_tokens: int = _setting(500, 1)  # a turn in a round-robin queue
    demotion_tokens: int = _setting(5000, 1)  # pascal: longer reasoning yields to the rest
    low_water_s: float = _setting(2.0, 0)  # slack: a reader with less left goes first
    high_water_s: float = _setting(12.0, 0.01)  # slack: until it has this much again
    max_num_seqs: int = _setting(64, 1)  # batch slots of one engine
    max_num_batched_tokens: int = _setting(0, 0)  # 0: vLLM's own
    kv_cache_gib: float = _setting(0.5, 0.01)  # KV memory of one CPU engine
    kv_blocks: int = _setting(0, 0)  # exact number of KV blocks instead; 0: off
    block_size: int = _setting(0, 0)  # tokens per KV block; 0: vLLM's own
    kv_offload_gib: float = _setting(0.0, 0)  # host memory of one engine for preempted KV; 0: none
    kv_migration: bool = True  # requests move between engines with their KV
    kv_resume: str = _choice("auto", "auto", "reload", "recompute")  # auto: whichever is cheaper
    step_log_dir: str = ""  # a file of engine steps for each worker; empty: none
    enforce_eager: bool = False  # no compilation (always so on CPU: it starts a minute earlier)
    gpu_memory_utilization: float = _setting(0.9, 0.05, 1.0)
    tensor_parallel_size: int = _setting(1, 1)
    start_timeout_s: float = _setting(600.0, 1)
    heartbeat_timeout_s: float = _setting(15.0, 2)  # silent for longer: killed and restarted
    restart_backoff_s: float = _setting(0.5, 0.01)  # first pause; doubles with each failure
    restart_backoff_max_s: float = _setting(30.0, 0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherConfig:
    """Who runs the workers; see `gateway.launchers.base`."""

    kind: str = _choice("local", "local", "static", "ray")
    addresses: tuple[str, ...] = ()  # static: where the workers listen
    token: str = field(default="", repr=False)  # static: what workers on TCP ask for
    token_file: str = ""  # a file that holds it
    address: str = "auto"  # ray: the cluster
    namespace: str = "pascal"  # ray: in which the actors have their names
    cpus: float = _setting(1.0, 0)  # ray: of one worker
    gpus: int = _setting(-1, -1)  # ray: of one worker; -1: as many as its engine needs


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementConfig:
    """Which instance serves what, and which requests move; see `gateway.policy.placement.Rules`."""

    new: str = _choice("pascal", "pascal", "round_robin", "least_kv")
    boundary: str = _choice("balance", "off", "always", "adaptive", "balance")
    balance_gap: float = _setting(2.0, 0)
    headroom: float = _setting(0.1, 0, 0.9)  # with all of it no instance would have room
    affinity: float = _setting(1.0, 0)
    cost_check: bool = True
    max_migrations: int = _setting(16, 0)
    max_migrations_per_instance: int = _setting(4, 0)
    reserve_memory: bool = True  # who is on the way to an instance counts as there
    migration_timeout_s: float = _setting(10.0, 0.1)  # for each step of a migration

    @property
    def rules(self) -> Rules:
        """What decides."""
        return Rules(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Rules)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Requests that outlive their instance."""

    failover_timeout_s: float = _setting(120.0, 0)  # without any instance: fails after so long
    max_restarts: int = _setting(3, 0)  # instances that a request may lose


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingConfig:
    """Targets that hold where a request names none."""

    tpot_s: float = _setting(0.1, 0.001, 60)  # per answering token: 10 tokens/s, a fast reader
    ttfat_s: float = _setting(0.25, 0)  # phase boundary to first answering token
    ttft_s: float = _setting(10.0, 0)  # submission to first answering token
    slo_qoe: float = _setting(0.95, 0, 1)  # below: the request violates its SLO


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """How long and how much of a response can be resumed."""

    ttl_s: float = _setting(300.0, 0)  # after its end
    grace_s: float = _setting(10.0, 0)  # an HTTP stream without its client goes on for so long
    log_events: int = _setting(32768, 16)  # events kept per response
    total_bytes: int = _setting(268_435_456, 0)  # of all finished responses; the oldest go first


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """Admission."""

    max_requests: int = _setting(1024, 1)  # requests in engines, of all users
    max_readers: int = _setting(4096, 1)  # unfinished responses, of all users
    max_requests_per_user: int = _setting(64, 1)
    max_streams_per_connection: int = _setting(64, 1)
    retry_after_s: int = _setting(2, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Stored responses (`store: true`, the default of the API)."""

    path: str = ""  # SQLite file; empty: responses.sqlite3 in the state directory
    retention_days: float = _setting(30.0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything, resolved."""

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
        """The model's name and where it comes from, for people."""
        source = "no model, scripted answers" if self.workers.emulate else self.model_path
        return f"model {self.served_model_name} ({source})"

    @property
    def store_path(self) -> Path:
        """The SQLite file."""
        return Path(self.store.path or Path(self.server.state_dir) / "responses.sqlite3")


TABLES = {f.name: f for f in dataclasses.fields(Config)}


def load(
    path: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Resolve the configuration.

    :param path: a ``config.toml``; None: no file.
    :param flags: ``{"table.key": value}`` from the command line; None values are left out.
    :raises ConfigError: naming the file, variable or flag and the key.
    """
    values: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    if path is not None:
        _merge_file(values, path)
    for name, text in environment.items():
        if name.startswith("PASCAL_") and name not in ENV_FOREIGN and text:
            table, key = _key_of_variable(name)
            values[table][key] = _from_text(table, key, text, f"environment variable {name}")
    for name, value in (flags or {}).items():
        if value is not None:
            table, key = _split_key(name, "command line")
            values[table][key] = (
                _from_text(table, key, value, "command line") if isinstance(value, str) else value
            )
    config = Config(**{table: _build(table, found) for table, found in values.items()})
    if config.workers.high_water_s <= config.workers.low_water_s:
        raise ConfigError(
            f"workers.high_water_s: {config.workers.high_water_s} must be above "
            f"workers.low_water_s ({config.workers.low_water_s})"
        )
    _check_emulation(config)
    _check_addresses(config.launcher)
    return replace(config, launcher=_with_token(config.launcher))


def _check_addresses(launcher: LauncherConfig) -> None:
    key = "launcher.addresses"
    if launcher.kind != "static":
        if launcher.addresses:
            raise ConfigError(f"{key}: only with launcher.kind = 'static'")
        return
    if not launcher.addresses:
        raise ConfigError(f"{key}: launcher.kind = 'static' needs the address of each worker")
    for address in launcher.addresses:
        if not is_worker_address(address):
            raise ConfigError(
                f"{key}: {address!r} is none of ws://host:port, wss://host:port, tcp://host:port, "
                "unix:/path"
            )
        if launcher.addresses.count(address) > 1:
            raise ConfigError(f"{key}: {address!r} is there twice")
    if not (launcher.token or launcher.token_file or _only_here(launcher.addresses)):
        raise ConfigError(
            "launcher.token: workers on TCP ask for one; set launcher.token_file, or "
            "PASCAL_LAUNCHER_TOKEN in the environment"
        )


def _only_here(addresses: tuple[str, ...]) -> bool:
    return all(address.startswith("unix:") for address in addresses)


def is_worker_address(address: str) -> bool:
    """Whether this is an address that a gateway can dial."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        return bool(rest)
    try:
        parts = urllib.parse.urlsplit(address)
        return scheme in ("ws", "wss", "tcp") and bool(parts.hostname and parts.port)
    except ValueError:  # the port is no number, or none that exists
        return False


def _with_token(launcher: LauncherConfig) -> LauncherConfig:
    if launcher.token or not launcher.token_file:
        return launcher
    try:
        token = Path(launcher.token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise ConfigError(f"launcher.token_file: {launcher.token_file}: {reason}") from error
    if not token:
        raise ConfigError(f"launcher.token_file: {launcher.token_file} is empty")
    return replace(launcher, token=token)


def _check_emulation(config: Config) -> None:
    """An emulated device brings its own model and memory: refuse what would be ignored."""
    if not config.workers.emulate:
        return
    for key, ignored in (
        ("model.name", config.model.name != EMBEDDED),
        ("workers.engine", config.workers.engine == "async"),
        ("workers.tensor_parallel_size", config.workers.tensor_parallel_size > 1),
    ):
        if ignored:
            raise ConfigError(f"{key}: has no place beside workers.emulate; leave it out")


def _merge_file(values: dict[str, dict[str, Any]], path: Path) -> None:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for table, found in document.items():
        if table not in TABLES:
            raise ConfigError(f"{path}: unknown table [{table}]{_nearest(table, TABLES)}")
        if not isinstance(found, dict):
            raise ConfigError(f"{path}: {table} must be a table")
        for key, value in found.items():
            _split_key(f"{table}.{key}", str(path))
            values[table][key] = value


def _table_class(table: str) -> type:
    return type(TABLES[table].default)


def _split_key(name: str, origin: str) -> tuple[str, str]:
    table, _, key = name.partition(".")
    if table not in TABLES:
        raise ConfigError(f"{origin}: unknown table {table!r}{_nearest(table, TABLES)}")
    names = {f.name for f in dataclasses.fields(_table_class(table))}
    if key not in names:
        raise ConfigError(f"{origin}: unknown key {name!r}{_nearest(key, names)}")
    return table, key


def _key_of_variable(name: str) -> tuple[str, str]:
    if name in ENV_ALIASES:
        return _split_key(ENV_ALIASES[name], name)
    table, _, key = name.removeprefix("PASCAL_").lower().partition("_")
    return _split_key(f"{table}.{key}", f"environment variable {name}")


def _from_text(table: str, key: str, text: str, origin: str) -> Any:
    """Read a flag's or variable's text as the type of its field."""
    kind, text = _field_type(table, key), text.strip()
    where = f"{origin} ({table}.{key})"
    shown = "(hidden)" if key in SECRETS else repr(text)
    if kind == tuple[str, ...]:
        return _list_from_text(text, where, shown)
    if kind is str:
        quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
        return _toml_value(text, where, shown) if quoted else text
    if key.endswith("_s") and (duration := _DURATION.fullmatch(text)):
        return float(duration[1]) * _UNITS_S[duration[2]]
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        try:  # a number as only the file may have it, such as 1_000
            return msgspec.convert(_toml_value(text, where, shown), kind)
        except (ConfigError, msgspec.ValidationError):
            expected = "true or false" if kind is bool else _NUMBERS[kind]
            raise ConfigError(f"{where}: expected {expected}, not {shown}") from error


def _list_from_text(text: str, where: str, shown: str) -> tuple[str, ...]:
    """A list as in the file, ``["a", "b"]``, or plain: ``a,b``. Never a mixture."""
    if text.startswith("["):
        found = _toml_value(text, where, shown)
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise ConfigError(f"{where}: expected a list of texts, not {shown}")
        return tuple(found)
    if any(character in text for character in "[]\"'"):
        raise ConfigError(f'{where}: expected ["a", "b"] as in the file, or a,b; not {shown}')
    if not text.strip():
        return ()
    # An empty entry, as of a variable that is not set, is refused where the list is checked.
    first, *others = (part.strip() for part in text.split(","))
    if first and others and not others[-1]:
        others.pop()  # a comma at the end is none, as in the file
    return (first, *others)


def _toml_value(text: str, where: str, shown: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: {shown} cannot be read as in the file: {error}") from error
    if document.keys() != {"value"}:
        raise ConfigError(f"{where}: expected one value, not {shown}")
    return document["value"]


def _field_type(table: str, key: str) -> Any:
    return {
        "str": str,
        "int": int,
        "float": float,
        "bool": bool,
        "tuple[str, ...]": tuple[str, ...],
    }[str({f.name: f.type for f in dataclasses.fields(_table_class(table))}[key])]


def _build(table: str, found: dict[str, Any]) -> Any:
    cls = _table_class(table)
    for spec in dataclasses.fields(cls):
        if spec.name in found:
            name = f"{table}.{spec.name}"
            try:
                value = msgspec.convert(found[spec.name], _field_type(table, spec.name))
            except msgspec.ValidationError as error:
                raise ConfigError(f"{name}: {error}") from error
            if isinstance(value, tuple) and not all(map(str.strip, value)):
                raise ConfigError(f"{name}: an entry of the list is empty")
            found[spec.name] = _checked(name, value, spec.metadata)
    return cls(**found)


def _checked(name: str, value: Any, metadata: Mapping[str, Any]) -> Any:
    choices = metadata.get("choices")
    if choices and value not in choices and not (name == "workers.policy" and is_plugin(value)):
        raise ConfigError(f"{name}: {value!r} is none of {', '.join(choices)}")
    # A bound would let infinity through; a timer that never ends is nobody's wish.
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}: {value} is not a finite number")
    low, high = metadata.get("low"), metadata.get("high")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{name}: {value} is out of range ({bounds})")
    return value


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
