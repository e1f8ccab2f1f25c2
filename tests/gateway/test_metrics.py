"""What `/metrics` exports from the start, and that Prometheus' own tool accepts it."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import msgspec

from gateway.config import PROJECT_ROOT
from gateway.metrics import REFUSALS
from gateway.store import Failure
from tests.gateway.support.scripted_service import serving, start
from tests.gateway.support.scripted_worker import IDLE
from tests.support.programs import PROMTOOL, needs
from workers.messages import DeviceStats, Heartbeat, MigrationStats

LAUNCHER = SimpleNamespace(restarts_total=2, failures={"worker-0": 0, "worker-1": 3})
MIGRATION = MigrationStats(
    held_blocks=7,
    tickets_total=9,
    expired_total=2,
    read_requests_total=4,
    read_s_total=0.0,
    failed_total=1,
)
DEVICE = DeviceStats(passed_s=9.0, steps=7, busy_s=2.0, starved_s=0.5, late_s=0.25)


async def rendered(folder: Path) -> str:
    """With everything that a gateway can show."""
    stats = msgspec.structs.replace(IDLE, migration=MIGRATION, device=DEVICE)
    async with serving(folder, "worker-0") as (service, workers):
        service.metrics.watch_launcher(LAUNCHER)
        await workers["worker-0"].say(Heartbeat(since_step_s=0.0, stats=stats))
        await start(service, workers["worker-0"])  # comes after it on the link
        return service.metrics.render().decode()


@needs(PROMTOOL)
async def test_promtool_is_content(tmp_path: Path) -> None:
    text = await rendered(tmp_path)
    pipe = subprocess.PIPE
    tool = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics", stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(tool.communicate(text.encode()), 30)
    assert (tool.returncode, said.decode()) == (0, "")


async def test_known_label_values_start_at_zero(tmp_path: Path) -> None:
    text = await rendered(tmp_path)
    for name, label, values in (
        ("pascal_responses_total", "status", ("completed", "incomplete", "cancelled", "failed")),
        ("pascal_refused_total", "code", REFUSALS),
        ("pascal_tokens_total", "kind", ("prompt", "reasoning", "answering")),
        ("pascal_boundary_blocking_seconds_count", "how", ("stayed", "moved", "recomputed")),
        ("pascal_tpot_seconds_count", "kind", ("raw", "paced")),
        ("pascal_store_failures_total", "kind", get_args(Failure)),
        ("pascal_failovers_total", "outcome", ("resumed", "failed")),
    ):
        for value in values:
            assert f'{name}{{{label}="{value}"}} 0.0\n' in text


async def test_what_a_scrape_reads(tmp_path: Path) -> None:
    text = await rendered(tmp_path)
    for line in (
        "pascal_worker_restarts_total 2.0",
        'pascal_worker_failures_in_a_row{worker="worker-1"} 3.0',
        'pascal_worker_failures_in_a_row{worker="worker-0"} 0.0',
        'pascal_kv_blocks{instance="worker-0"} 100.0',
        'pascal_kv_tickets_total{event="given",instance="worker-0"} 9.0',
        'pascal_kv_tickets_total{event="expired",instance="worker-0"} 2.0',
        'pascal_kv_tickets_total{event="read",instance="worker-0"} 4.0',
        'pascal_kv_tickets_total{event="failed",instance="worker-0"} 1.0',
        "# TYPE pascal_worker_restarts_total counter",
    ):
        assert line in text

    def value(name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    assert value("pascal_asyncio_tasks") >= 3  # the test, the link's reader and writer
    assert value("pascal_store_bytes") >= 4096
    assert value("process_open_fds") >= 3
    assert value("process_resident_memory_bytes") > 1e6


def test_refusals_that_start_at_zero_are_codes_of_the_gateway() -> None:
    source = "".join(
        path.read_text(encoding="utf-8") for path in (PROJECT_ROOT / "gateway").rglob("*.py")
    )
    codes = set(re.findall(r'code(?:: str)? ?= ?"([a-z_]+)"', source))
    assert set(REFUSALS) <= codes
