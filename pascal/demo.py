"""``pascal demo``: eight emulated GPUs behind the real gateway, and a load to play with."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from typing import Final

from pascal import config_flags, serve

# What the demonstration sets, unless the command line says otherwise.
_INSTANCES: Final = 8
_SETTINGS: Final = {
    "workers.emulate": "h100-qwen32b",
    "workers.count": str(_INSTANCES),
    "workers.max_num_seqs": "64",
    "model.max_model_len": "4096",
    # 4,320 tokens, so that a load that a laptop can carry fills them; the profile has 90,000.
    "workers.kv_blocks": "270",
    "workers.restart_backoff_s": "1",
    # Nobody is refused: the pages show how requests wait.
    "limits.load": "0",
    # Finished answers need no memory for long: nobody resumes them.
    "session.ttl_s": "30",
    "server.shutdown_timeout_s": "2",
    "server.log_level": "warning",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``pascal demo``: those of `serve`, and the load."""
    parser.add_argument(
        "--load",
        choices=("off", "calm", "busy", "pressure"),
        default="busy",
        help="with which load it begins (default: %(default)s); the page /ops changes it",
    )
    config_flags.add_config_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the demonstration; :return: as `pascal.serve.run`."""
    folder = tempfile.mkdtemp(prefix="pascal-demo-")
    given = {setting.partition("=")[0].strip() for setting in args.settings}
    ours = {**_SETTINGS, "server.state_dir": folder, "server.demo": args.load}
    args.settings = [
        *(
            f"{key}={value}"
            for key, value in ours.items()
            if key not in given and getattr(args, key, None) is None
        ),
        *args.settings,
    ]
    try:
        return serve.run(args, _announce)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _announce(line: str) -> None:
    serve.say(line)
    if line.startswith("  Live"):
        url = line.split()[-1]
        serve.say(f"  Tour     {url}?tour   (five steps: load, pressure, policy, kill, drain)")
