"""``python -m tests.acceptance.fuzz``: anything over HTTP and over WebSockets, on a real gateway.

Installs schemathesis apart from .venv, and starts ``pascal serve`` with scripted workers. No answer
may be a 500, or differ from /openapi.json and /asyncapi.json; a healthy stream beside the fuzzer
must not notice; nothing may be left of what was refused.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aiohttp import ClientSession

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
from tests.gateway.support.socket_fuzz import Outcome, fuzz
from tests.support.packages import install, of_extra
from tests.support.server import ROOT, Server

_ENDING_S = 30.0
_SENDERS = 2  # processes of schemathesis: it needs more time than the gateway
LONGEST_GAP_S = 5.0  # between two events of the healthy stream; its pace is 5 ms


@contextlib.contextmanager
def workers(folder: Path) -> Iterator[str]:
    """A process with scripted workers; yields their addresses."""
    command = [sys.executable, "-m", "tests.acceptance.fuzz.workers", str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def send_cases(url: str, count: int, seed: int, packages: Path) -> bool:
    """Schemathesis over HTTP; whether every answer was right."""
    paths = [str(packages), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    module = "tests.acceptance.fuzz.cases"
    command = [sys.executable, "-m", module, url, str(-(-count // _SENDERS))]
    senders = [
        subprocess.Popen([*command, str(seed + number * 1_000_000)], cwd=ROOT, env=environment)
        for number in range(_SENDERS)
    ]
    try:
        statuses = [sender.wait() for sender in senders]
        return not any(statuses)
    finally:
        for sender in senders:
            sender.kill()  # nothing if it has ended


async def send_messages(url: str, count: int, seed: int) -> Outcome:
    """The fuzzer over WebSockets."""
    async with ClientSession(url) as http:
        return await fuzz(http, count, seed)


def _left(server: Server) -> float:
    """Requests that are still in engines after a time in which each of them ends."""
    with contextlib.suppress(AssertionError):
        server.wait_for(lambda: not server.metric("pascal_requests_in_engines"), _ENDING_S)
    return server.metric("pascal_requests_in_engines")


def main() -> int:
    """Run both; 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description="Anything at all, sent to a real gateway.")
    parser.add_argument("--cases", type=int, default=20_000, help="over HTTP")
    parser.add_argument("--messages", type=int, default=20_000, help="over WebSockets")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    packages = ROOT / ".acceptance" / "fuzz-packages"
    packages.mkdir(parents=True, exist_ok=True)
    install(packages, of_extra("fuzz"))
    with tempfile.TemporaryDirectory(prefix="pascal-fuzz-") as temporary:
        folder = Path(temporary)
        with workers(folder) as addresses:
            settings = {
                "launcher.kind": "static",
                "launcher.addresses": addresses,
                "workers.heartbeat_timeout_s": 1000,  # scripted workers have no heartbeat
                "limits.load": 0,  # nor memory
                "model.served_name": "m",
                "pacing.tpot_s": 0.001,
            }
            extra = tuple(f"--set={name}={value}" for name, value in settings.items())
            with Server(folder, workers=2, extra=extra) as server:
                right = send_cases(server.url, args.cases, args.seed, packages)
                outcome = asyncio.run(send_messages(server.url, args.messages, args.seed))
                for failure in outcome.failures:
                    print(f"FAIL {failure}")
                print(f"seen: {json.dumps(outcome.seen.most_common())}")
                bugs = [line for line in server.output().splitlines() if '"level":"error"' in line]
                for line in bugs[:10]:
                    print(f"FAIL in the log: {line[:3000]}")
                left = _left(server)
    late = outcome.longest_gap_s > LONGEST_GAP_S
    print(
        f"{outcome.sent} messages, {outcome.healthy} healthy streams beside them "
        f"(longest gap {outcome.longest_gap_s:.2f} s), {len(outcome.failures)} failures, "
        f"{len(bugs)} bugs in the log, {left:g} requests left"
    )
    return 0 if right and not (outcome.failures or bugs or left or late) else 1


if __name__ == "__main__":
    sys.exit(main())
