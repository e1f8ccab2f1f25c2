"""The page of metrics and ``GET /metrics`` have the same names and labels."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from gateway.scrape import LauncherCollector
from tests.docs.support.pages import Excerpt, code_blocks, code_spans, text_of
from tests.gateway.support import stored_keys
from tests.gateway.support.scripted_service import serving, start
from tests.gateway.support.scripted_worker import IDLE
from workers.messages import DeviceStats, Heartbeat, MigrationStats

PAGE = "docs/reference/metrics.md"
_METRIC = re.compile(r"\b(pascal_[a-z0-9_]+[a-z])(\{[^}]*\})?")


async def exported(folder: Path) -> dict[str, set[str]]:
    """The labels of every metric of a gateway whose instance reports all statistics."""
    device = DeviceStats(passed_s=1, steps=1, busy_s=1, starved_s=0, late_s=0, stalled_s=0)
    migration = msgspec.convert(
        dict.fromkeys(MigrationStats.__struct_fields__, 0), MigrationStats, strict=False
    )
    stats = msgspec.structs.replace(IDLE, migration=migration, device=device)
    launcher = SimpleNamespace(restarts_total=1, failures={"worker-0": 1})
    async with serving(folder, "worker-0") as (service, workers):
        service.metrics.registry.register(LauncherCollector(launcher))
        await workers["worker-0"].say(Heartbeat(since_step_s=0.0, stats=stats))
        await start(service, workers["worker-0"])  # it comes after the heartbeat on the link
        await stored_keys.added(folder, service)
        text = service.metrics.render().decode()
    labels = {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        if name.startswith(("process_", "python_")):  # of the client library
            continue
        labels[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    return labels


def documented() -> dict[str, set[str]]:
    """The labels of every metric in the tables of the page."""
    labels: dict[str, set[str]] = {}
    for line in text_of(PAGE).splitlines():
        if not line.startswith("| `pascal_"):
            continue
        name = ""
        for match in re.finditer(r"`(pascal_[a-z0-9_]+)?(\{[^}]*\})?`", line.split(" | ")[0]):
            name = match[1] or name
            labels.setdefault(name, set()).update(re.findall(r"(\w+)(?:=|,|\})", match[2] or ""))
    return labels


async def test_the_page_names_every_metric_and_no_other(tmp_path: Path) -> None:
    real, listed = await exported(tmp_path), documented()
    assert len(real) > 30
    assert sorted(real.keys() - listed.keys()) == [], f"exported, not in {PAGE}"
    assert sorted(listed.keys() - real.keys()) == [], f"in {PAGE}, not exported"
    for name, labels in real.items():
        if labels:  # a series that has never been counted shows none
            assert listed[name] == labels, name


async def test_other_pages_name_metrics_that_are_exported(tmp_path: Path) -> None:
    real = await exported(tmp_path)
    parts = {f"{name}{suffix}" for name in real for suffix in ("", "_bucket", "_count", "_sum")}
    named = [
        Excerpt(code.page, code.line, match[1])
        for code in (*code_spans(), *code_blocks())
        for match in _METRIC.finditer(code.text)
        if not match[1].startswith("pascal_serve")
    ]
    assert len(named) > 30
    assert not [str(name) for name in named if name.text not in parts]
