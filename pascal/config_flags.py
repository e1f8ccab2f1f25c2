"""The flags that set the configuration of a command.

A flag wins over its environment variable, which wins over ``config.toml``. Every key of the file
can be set as ``PASCAL_<TABLE>_<KEY>`` and with ``--set table.key=value``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from gateway import config as configuration
from workers.checked import SettingError, split_pair

# Flags of `serve`, `check` and, as far as they concern an engine, `worker`: flag, key, help.
FLAGS = (
    ("--host", "server.host", "address to listen on [PASCAL_HOST]"),
    ("--port", "server.port", "port to listen on, 0 for any [PASCAL_PORT]"),
    ("--model", "model.name", "'embedded', a path, or a hub id [PASCAL_MODEL]"),
    ("--served-model-name", "model.served_name", "the model's name in the API"),
    ("--dtype", "model.dtype", "auto, bfloat16, float16 or float32"),
    ("--max-model-len", "model.max_model_len", "tokens of prompt and output together"),
    ("--workers", "workers.count", "number of worker processes [PASCAL_WORKERS]"),
    (
        "--emulate",
        "workers.emulate",
        "device profile to emulate instead of hardware, e.g. h100-qwen32b",
    ),
    ("--policy", "workers.policy", "scheduling policy"),
    ("--max-num-seqs", "workers.max_num_seqs", "batch slots of one engine"),
    ("--kv-cache-gib", "workers.kv_cache_gib", "KV memory of one CPU engine, GiB"),
    ("--tensor-parallel-size", "workers.tensor_parallel_size", "GPUs per engine"),
    (
        "--gpu-memory-utilization",
        "workers.gpu_memory_utilization",
        "share of a GPU's memory for an engine",
    ),
    ("--tpot", "pacing.tpot_s", "pace of requests that name none, e.g. 100ms"),
    (
        "--shutdown-timeout",
        "server.shutdown_timeout_s",
        "how long to wait for running requests, e.g. 10s",
    ),
    (
        "--token-file",
        "launcher.token_file",
        "file with the secret that workers on TCP ask for [PASCAL_LAUNCHER_TOKEN]",
    ),
    ("--log-level", "server.log_level", "debug, info, warning or error"),
)


def add_config_flags(parser: argparse.ArgumentParser, without: tuple[str, ...] = ()) -> None:
    """Add ``--config``, ``--set`` and the flags of keys that do not start with ``without``."""
    parser.add_argument(
        "--config",
        type=Path,
        help="configuration file [PASCAL_CONFIG]; default: config.toml here, if there is one",
    )
    for flag, key, text in FLAGS:
        if key.startswith(without):
            continue
        parser.add_argument(flag, dest=key, metavar="VALUE", help=f"{text} ({key})")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        dest="settings",
        help="any other key of the configuration",
    )


def config_of(args: argparse.Namespace) -> configuration.Config:
    """Load the configuration that the flags name and change.

    :raises ConfigError: the file or a flag is wrong; the message names the key.
    """
    path = args.config
    if path is None and os.environ.get("PASCAL_CONFIG"):
        path = Path(os.environ["PASCAL_CONFIG"])
    if path is None and Path("config.toml").is_file():
        path = Path("config.toml")
    flags: dict[str, Any] = {key: getattr(args, key, None) for _, key, _ in FLAGS}
    for setting in args.settings:
        try:
            key, value = split_pair(setting, "TABLE.KEY=VALUE")
        except SettingError as error:
            raise configuration.ConfigError(f"--set {error}") from error
        flags[key] = value
    return configuration.load(path, flags=flags)
