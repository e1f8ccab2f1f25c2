"""Reads the configuration: flags over environment variables over ``config.toml`` over defaults.

Flags and ``PASCAL_<TABLE>_<KEY>`` variables may write a value as in the file. A text needs no
quotes, a list may be plain words with commas between, a duration may have a unit. An unknown table
or key, a value of the wrong type or one that is out of range is a `ConfigError` that names it.
"""

from __future__ import annotations

import os
import tomllib
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.config.serving import StoreConfig
from gateway.config.tables import ENV_ALIASES, TABLES, Config
from gateway.config.workers import EMBEDDED, LauncherConfig
from workers import checked
from workers.checked import SettingError
from workers.policy.settings import POLICY_NAMES, is_plugin

# Variables of the same family that other parts read.
ENV_FOREIGN = frozenset({"PASCAL_CONFIG", "PASCAL_EXTRA", "PASCAL_API_KEY", "PASCAL_ACCEPTANCE"})

_SHORTEST_SECRET = 32  # characters: as many as a random one of 128 bits in hex


class ConfigError(SettingError):
    """The configuration cannot be used; the message names the key."""


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
    try:
        return _resolved(path, environment, flags or {})
    except ConfigError:
        raise
    except SettingError as error:
        raise ConfigError(str(error)) from error


def _resolved(
    path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Config:
    values: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    if path is not None:
        _merge_file(values, path)
    for name, text in environment.items():
        if name.startswith("PASCAL_") and name not in ENV_FOREIGN and text:
            origin = f"environment variable {name}"
            table, key = _split_key(_name_of_variable(name), origin)
            values[table][key] = _from_text(table, key, text, origin)
    for name, value in flags.items():
        if value is not None:
            table, key = _split_key(name, "command line")
            values[table][key] = (
                _from_text(table, key, value, "command line") if isinstance(value, str) else value
            )
    config = checked.convert(values, Config)
    _check_policy(config.workers.policy)
    _check_water_marks(config)
    _check_emulation(config)
    _check_addresses(config.launcher)
    _check_store(config.store)
    return msgspec.structs.replace(
        config, launcher=_with_token(config.launcher), store=_with_keys(config.store)
    )


def _check_policy(policy: str) -> None:
    if policy not in POLICY_NAMES and not is_plugin(policy):
        known = ", ".join(POLICY_NAMES)
        raise ConfigError(f"workers.policy: {policy!r} is none of {known}, and no module:function")


def _check_water_marks(config: Config) -> None:
    low_s, high_s = config.workers.low_water_s, config.workers.high_water_s
    if high_s <= low_s:
        raise ConfigError(
            f"workers.high_water_s: {high_s} must be above workers.low_water_s ({low_s})"
        )


def _check_store(store: StoreConfig) -> None:
    if not store.url:
        return
    if store.path:
        raise ConfigError("store.url: has no place beside store.path; leave one of them out")
    if not store.url.startswith(("postgresql://", "postgres://")):
        raise ConfigError("store.url: is not of the form postgresql://user@host/database")


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
    token = _secret_in(launcher.token_file, "launcher.token_file")
    return msgspec.structs.replace(launcher, token=token)


def _with_keys(store: StoreConfig) -> StoreConfig:
    keys, key = store.reasoning_keys, "store.reasoning_keys"
    if not keys and store.reasoning_keys_file:
        key = "store.reasoning_keys_file"
        keys = tuple(_secret_in(store.reasoning_keys_file, key).split())
    if any(len(one) < _SHORTEST_SECRET for one in keys):
        raise ConfigError(f"{key}: each secret needs {_SHORTEST_SECRET} characters at least")
    return msgspec.structs.replace(store, reasoning_keys=keys)


def _secret_in(file: str, key: str) -> str:
    try:
        secret = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise ConfigError(f"{key}: {file}: {reason}") from error
    if not secret:
        raise ConfigError(f"{key}: {file} is empty")
    return secret


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
    for table, keys in document.items():
        if table not in TABLES:
            hint = checked.nearest(table, TABLES)
            raise ConfigError(f"{path}: unknown table [{table}]; {hint}")
        if not isinstance(keys, dict):
            raise ConfigError(f"{path}: {table} must be a table")
        for key, value in keys.items():
            _split_key(f"{table}.{key}", str(path))
            values[table][key] = value


def _split_key(name: str, origin: str) -> tuple[str, str]:
    table, _, key = name.partition(".")
    if table not in TABLES:
        hint = checked.nearest(table, TABLES)
        raise ConfigError(f"{origin}: unknown table {table!r}; {hint}")
    known = checked.settings_of(TABLES[table])
    if key not in known:
        raise ConfigError(f"{origin}: unknown key {name!r}; {checked.nearest(key, known)}")
    return table, key


def _name_of_variable(variable: str) -> str:
    if variable in ENV_ALIASES:
        return ENV_ALIASES[variable]
    table, _, key = variable.removeprefix("PASCAL_").lower().partition("_")
    return f"{table}.{key}"


def _from_text(table: str, key: str, text: str, origin: str) -> Any:
    setting = checked.settings_of(TABLES[table])[key]
    return checked.from_text(setting, text, f"{origin} ({table}.{key})")
