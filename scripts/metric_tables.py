"""Tables of all metrics that ``GET /metrics`` can have: name, labels, kind and help."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import msgspec
from prometheus_client.metrics_core import Metric

from gateway.keys.collector import KeyCollector
from gateway.metrics import Metrics
from gateway.response.tally import Tally
from gateway.routing.instance import Totals
from gateway.scrape import InfoCollector, LauncherCollector, TallyCollector
from gateway.store import KeyUsage
from workers.messages import DeviceStats, MigrationStats, PhaseCounts, StepStats

_OF_THE_LIBRARY = ("process_", "python_")


def metrics() -> Iterator[str]:
    """A heading and a table for metrics of instances, of the gateway, and distributions."""
    families = sorted(asyncio.run(_families()), key=lambda family: family.name)
    of_instances = [f for f in families if {"instance", "worker"}.intersection(_labels(f))]
    distributions = [f for f in families if f.type == "histogram"]
    others = [f for f in families if f not in of_instances and f not in distributions]
    for title, chosen in (
        ("Instances", of_instances),
        ("The gateway", others),
        ("Distributions", distributions),
    ):
        yield f"## {title}"
        yield "\n".join(["| metric | kind | meaning |", "| --- | --- | --- |", *map(_row, chosen)])


def _row(family: Metric) -> str:
    labels = _labels(family)
    ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
    name = family.name + ending
    shown = f"{name}{{{','.join(labels)}}}" if labels else name
    return f"| `{shown}` | {family.type} | {family.documentation} |"


def _labels(family: Metric) -> list[str]:
    """The labels of a metric, in the order in which it declares them."""
    declared = getattr(family, "_labelnames", ())  # all there is where nothing was counted yet
    names = [*declared, *(label for sample in family.samples for label in sample.labels)]
    return [label for label in dict.fromkeys(names) if label != "le"]


async def _families() -> list[Metric]:
    """What a gateway exports whose instance reports everything; stand-ins hold the numbers."""
    cluster: Any = MagicMock()
    cluster.instances = {"worker-0": _instance()}
    cluster.policies.wanted = None
    cluster.totals.return_value = {"worker-0": Totals()}
    registry = Metrics(cluster, MagicMock()).registry
    registry.register(LauncherCollector(MagicMock()))
    registry.register(TallyCollector(Tally({})))
    registry.register(InfoCollector(MagicMock(), cluster))
    keys: Any = MagicMock()
    keys.uses.return_value = [(SimpleNamespace(key_id="", name=""), KeyUsage(), 0)]
    keys.refused.__getitem__.return_value = 0
    registry.register(KeyCollector(keys))
    return [f for f in registry.collect() if not f.name.startswith(_OF_THE_LIBRARY)]


def _instance() -> SimpleNamespace:
    return SimpleNamespace(
        stats=_stats(), steps=SimpleNamespace(step_s=0.0), welcome=SimpleNamespace(engine="")
    )


def _stats() -> StepStats:
    counts = PhaseCounts()
    values: dict[str, Any] = dict.fromkeys(StepStats.__struct_fields__, 0)
    values |= {
        "reasoning": counts,
        "answering": counts,
        "calling": counts,
        "device": _zeros(DeviceStats),
        "migration": _zeros(MigrationStats),
    }
    return StepStats(**values)


def _zeros(kind: type[msgspec.Struct]) -> Any:
    return kind(**dict.fromkeys(kind.__struct_fields__, 0))
