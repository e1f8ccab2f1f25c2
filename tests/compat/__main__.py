"""``python -m tests.compat``, or `make compat`: real clients against this gateway.

Installs each client into a folder of its own under `.compat`, runs its program, and writes
`docs/results/compatibility.md`. Ends with status 1 if a client failed or could not be tried.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from setup_env import ROOT

from tests.compat import page
from tests.compat.client import Client
from tests.compat.runner import Result, Runner
from tests.compat.servers import Servers
from tests.compat.table import all_clients


def parser_of(clients: Sequence[Client]) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.compat", description="Run real clients against this gateway."
    )
    keys = [client.key for client in clients]
    parser.add_argument("--list", action="store_true", help="list the clients, and run none")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=keys, help=f"of: {', '.join(keys)}"
    )
    parser.add_argument(
        "--no-write", action="store_true", help="leave the page of results as it is"
    )
    return parser


def listing(clients: Sequence[Client]) -> str:
    """One line for each client, and one for each program that it lacks here."""
    lines = []
    for client in clients:
        packages = ", ".join(client.packages) or "from .venv"
        lines.append(f"{client.key:20} {client.name}: {packages}")
        lacks = [program.missing for program in client.programs if not program.is_there()]
        lines += [f"{'':20} {text}" for text in lacks]
    return "\n".join(lines)


def version_of_ours() -> str:
    """The version of pascal-serve, with the commit if there is a repository."""
    version = importlib.metadata.version("pascal-serve")
    command = ["git", "rev-parse", "--short=8", "HEAD"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    commit = answer.stdout.strip()
    return f"{version} ({commit})" if commit else version


def interrupt(_number: int, _frame: object) -> NoReturn:
    """SIGTERM ends the running client as Ctrl-C does."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the clients that are asked for; the exit status."""
    clients = all_clients()
    args = parser_of(clients).parse_args(argv)
    order = [client.name for client in clients]
    if args.only:
        clients = [client for client in clients if client.key in args.only]
    if args.list:
        print(listing(clients))
        return 0
    signal.signal(signal.SIGTERM, interrupt)
    ours = version_of_ours()

    def keep(result: Result) -> None:
        if not args.no_write:  # after each one: an interrupt loses nothing
            page.write(
                [result], order, datetime.datetime.now(datetime.UTC).date().isoformat(), ours
            )

    with Servers() as servers:
        runner = Runner(ROOT / ".compat", servers, done=keep)
        status = runner.run(clients)
    ended = [sum(result.outcome == kind for result in runner.results) for kind in ("ok", "FAIL")]
    rest = len(runner.results) - sum(ended)
    print(f"{ended[0]} clients work, {ended[1]} fail, {rest} could not be tried")
    return status


if __name__ == "__main__":
    sys.exit(main())
