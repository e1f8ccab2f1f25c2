"""Two workers in actors of a Ray cluster on this machine: ``python -m tests.support.ray_cluster``.

Starts a cluster and ``pascal serve`` on it. Shows that both actors serve requests, that Ray
restarts a killed worker while requests run, and that the requests of a drained worker move. Also
shows that the workers of a killed gateway serve the next one. Needs the extra ``ray``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.server import Server, is_alive

NAMES = ["worker-0", "worker-1"]
SHORT = {"reasoning_tokens": 30, "answer_tokens": 30}
LONG = {"reasoning_tokens": 200, "answer_tokens": 1200}


@contextmanager
def ray_cluster() -> Iterator[str]:
    """A cluster on this machine with room for two workers; yields its address."""
    import ray

    # The actors import from the same path as this process.
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def serving(folder: Path, address: str, *extra: str) -> Server:
    """``pascal serve`` on that cluster."""
    folder.mkdir()
    settings = (
        "launcher.kind=ray",
        f"launcher.address={address}",
        "workers.restart_backoff_max_s=2",
        *extra,
    )
    return Server(folder, workers=2, extra=tuple(f"--set={setting}" for setting in settings))


def ask(server: Server, number: int, lengths: dict[str, int]) -> dict[str, Any]:
    """Ask for a whole response, decoded greedily."""
    body = {
        "input": f"What is {number} + 275?",
        "temperature": 0,
        "pacing": False,
        "forced_lengths": lengths,
    }
    status, response = server.request("/v1/responses", body)
    assert (status, response["status"]) == (200, "completed"), response
    return dict(response)


def text_of(response: dict[str, Any]) -> list[str]:
    """The reasoning and answer texts."""
    return [item["content"][0]["text"] for item in response["output"]]


def pids_of(server: Server) -> list[int | None]:
    """Process ids of the workers; None for one that is not connected."""
    return [one["pid"] for one in server.request("/admin/instances")[1]["instances"]]


def all_there(server: Server) -> bool:
    """Whether both instances serve."""
    return bool(server.request("/ready")[1]["instances"] == NAMES)


def under_load(server: Server, count: int, disturb: Any) -> list[dict[str, Any]]:
    """Run long responses while something happens to the instances."""
    with ThreadPoolExecutor(count) as threads:
        running = [threads.submit(ask, server, number, LONG) for number in range(count)]

        def on_both() -> bool:
            return all(
                server.metric(f'pascal_kv_blocks_used{{instance="{name}",phase="answering"')
                for name in NAMES
            )

        server.wait_for(on_both)
        disturb()
        return [one.result() for one in running]


def show(folder: Path, address: str, *extra: str) -> dict[str, Any]:
    """Do the whole run; :return: the observations. Raises AssertionError if one is wrong."""
    seen: dict[str, Any] = {}
    with serving(folder / "first", address, *extra) as server:
        server.wait_for(lambda: all_there(server))
        with ThreadPoolExecutor(10) as threads:
            responses = list(threads.map(lambda n: ask(server, n, SHORT), range(10)))
        seen["served"] = dict(sorted(Counter(one["instance"] for one in responses).items()))
        assert list(seen["served"]) == NAMES, seen

        alone = [text_of(ask(server, number, LONG)) for number in range(4)]
        before = pids_of(server)
        killed = before[0]
        assert killed is not None
        responses = under_load(server, 4, lambda: os.kill(killed, signal.SIGKILL))
        seen["failovers"] = sum(one["failovers"] for one in responses)
        assert seen["failovers"] >= 1
        assert [text_of(one) for one in responses] == alone
        server.wait_for(lambda: all_there(server))
        assert pids_of(server)[0] != killed
        assert server.metric("pascal_worker_restarts_total") == 1

        def drain() -> None:
            status, _ = server.request("/admin/instances/worker-1/drain", {"restart": True})
            assert status == 202

        responses = under_load(server, 4, drain)
        seen["migrations"] = sum(one["migrations"] for one in responses)
        seen["with their KV"] = int(server.metric('pascal_migrations_total{outcome="moved"}'))
        assert seen["with their KV"] >= 1, seen
        assert [text_of(one) for one in responses] == alone

        def restarted() -> bool:
            found = server.request("/admin/instances")[1]["instances"]
            states = {one["state"] for one in found}
            return states == {"serving"} and pids_of(server)[1] not in (None, before[1])

        server.wait_for(restarted)
        after = pids_of(server)
        server.process.kill()
    with serving(folder / "second", address, *extra) as server:
        server.wait_for(lambda: all_there(server))
        assert pids_of(server) == after  # the actors outlived their gateway
        seen["after a new gateway"] = ask(server, 1, SHORT)["status"]
    assert not any(is_alive(pid) for pid in after if pid is not None)  # all stopped
    return seen


def main() -> int:
    """Run it and print the observations."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.ray_cluster", description=__doc__
    )
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    extra = parser.parse_args().set or ["model.dtype=float32"]
    with tempfile.TemporaryDirectory() as folder, ray_cluster() as address:
        for name, value in show(Path(folder), address, *extra).items():
            print(f"{name}: {value}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
