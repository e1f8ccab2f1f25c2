"""``pascal demo``, as a user starts it, on emulated instances."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.server import Server, is_alive

pytestmark = [pytest.mark.engine, pytest.mark.slow]

FLAGS = ("--load=calm", "--log-level=info")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("demo")
    with Server(folder, workers=2, extra=FLAGS, command="demo") as server:
        yield server


def load_pid(server: Server) -> int:
    pid: int = server.wait_for(lambda: server.logged("demo_load_started"))[-1]["pid"]
    return pid


def told(server: Server, name: str) -> int:
    value: int = server.request("/admin/demo")[1][name]
    return value


def test_it_says_where_the_pages_are_and_sends_its_load(demo: Server) -> None:
    assert f"Tour     {demo.url}/ops?tour" in demo.output()
    demo.wait_for(lambda: told(demo, "completed") > 0)
    assert demo.metric('pascal_responses_total{status="completed"') > 0
    status, state = demo.request("/admin/demo", {"load": "busy"})
    assert (status, state["load"]) == (200, "busy")
    begun = told(demo, "begun")
    demo.wait_for(lambda: told(demo, "begun") > begun)
    assert state["error"] is None


def test_a_killed_worker_comes_back_and_no_reader_loses_its_answer(demo: Server) -> None:
    demo.wait_for(lambda: len(demo.request("/ready")[1]["instances"]) == 2)
    before = demo.request("/admin/instances/worker-1")[1]["pid"]
    status, _ = demo.request("/admin/demo", {"kill": "worker-1"})
    assert status == 200
    demo.wait_for(lambda: not is_alive(before))
    demo.wait_for(lambda: demo.request("/admin/instances/worker-1")[1]["pid"] not in (None, before))
    assert demo.metric("pascal_worker_restarts_total") == 1
    assert demo.request("/admin/demo")[1]["failed"] == 0


def test_off_cancels_what_runs(demo: Server) -> None:
    demo.request("/admin/demo", {"load": "calm"})
    demo.wait_for(lambda: told(demo, "running") > 0)
    demo.request("/admin/demo", {"load": "off"})
    demo.wait_for(lambda: told(demo, "running") == 0)
    demo.wait_for(lambda: demo.request("/admin/instances/worker-0")[1]["requests"] == 0)


def test_the_load_and_the_workers_end_with_the_demonstration(demo: Server) -> None:
    pids = [load_pid(demo), *demo.worker_pids()]
    assert all(is_alive(pid) for pid in pids)
    demo.__exit__()
    assert demo.process.returncode == 0
    assert [pid for pid in pids if is_alive(pid)] == []
