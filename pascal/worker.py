"""``pascal worker``: one worker for a gateway on another machine (``launcher.kind = "static"``)."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import urllib.parse
from typing import NoReturn

import msgspec

from gateway.config import Config, ConfigError, is_worker_address
from gateway.launchers import preflight
from gateway.launchers.worker_settings import worker_settings
from pascal.config_flags import add_config_flags, config_of
from workers.settings import WorkerSettings

_OF_THE_GATEWAY = ("server.", "pacing.", "workers.count")  # keys without an effect on an engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``pascal worker``: its own, and those of keys that concern an engine."""
    parser.add_argument(
        "--listen",
        required=True,
        help="address: tcp://host:port, with host 0.0.0.0 for all interfaces, or unix:/path",
    )
    parser.add_argument(
        "--id", help="name of the worker, unique in the cluster; default: host name and port"
    )
    add_config_flags(parser, without=_OF_THE_GATEWAY)


def run(args: argparse.Namespace) -> int:
    """Check the engine's configuration, then become the worker process.

    :return: the exit status, if it cannot start: 1 if something is missing on this machine, 2 if
        the command line or the configuration is wrong.
    """
    try:
        config = config_of(args)
        settings = settings_of(args, config)
        preflight.check_engine(config)
    except ConfigError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 2
    except preflight.PreflightError as error:
        print(f"pascal: {error}", file=sys.stderr)
        return 1
    return become(settings)


def settings_of(args: argparse.Namespace, config: Config) -> WorkerSettings:
    """Make the settings of the worker. Raises `ConfigError`."""
    scheme = args.listen.partition(":")[0]
    if scheme not in ("tcp", "unix") or not is_worker_address(args.listen):
        raise ConfigError(f"--listen {args.listen}: neither tcp://host:port nor unix:/path")
    token = config.launcher.token or None
    if scheme == "tcp" and token is None:
        raise ConfigError(
            "launcher.token: a worker on TCP needs one; use --token-file, or "
            "PASCAL_LAUNCHER_TOKEN in the environment"
        )
    instance_id = args.id or _default_id(args.listen)
    settings = worker_settings(config, instance_id, args.listen)
    # The number of workers is in the configuration of the gateway, not in this one.
    migration = config.workers.kv_migration
    return msgspec.structs.replace(settings, token=token, kv_migration=migration)


def become(settings: WorkerSettings) -> NoReturn:
    """Become the worker process. Its settings go through a pipe, since arguments are public."""
    data = msgspec.json.encode(settings)
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(data)  # a few hundred bytes, which fit into the pipe
    os.dup2(read_end, 0)
    os.execv(sys.executable, [sys.executable, "-m", "workers.process", "--settings", "-"])


def _default_id(listen: str) -> str:
    if listen.startswith("unix:"):
        return f"{socket.gethostname()}-{os.path.basename(listen).removesuffix('.sock')}"
    return f"{socket.gethostname()}-{urllib.parse.urlsplit(listen).port}"
