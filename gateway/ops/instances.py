"""The instances as rows, and what happened to them in words."""

from __future__ import annotations

from typing import Any, Final

from gateway.ops.watch import Watch
from gateway.routing.cluster import Cluster
from gateway.routing.draining import Maintenance
from gateway.routing.instance import Totals

INSTANCE_COLUMNS: Final = (
    *("place", "name", "state", "engine", "requests"),
    *("running_reasoning", "running_answering", "waiting_reasoning", "waiting_answering"),
    *("kv_reasoning", "kv_answering", "kv_used", "kv_held", "kv_blocks"),
    *("preemptions", "steps", "step_s"),
)
_WORDS = {
    "serving": "serves",
    "draining": "is draining",
    "drained": "is drained",
    "restarting": "restarts",
    "absent": "is gone",
}


class Instances:
    """All known instances.

    :param watch: gives each its number.
    """

    def __init__(self, cluster: Cluster, maintenance: Maintenance, watch: Watch) -> None:
        self._cluster, self._maintenance, self._watch = cluster, maintenance, watch
        self._states: dict[str, str] | None = None

    def rows(self) -> list[list[Any]]:
        """One row of `INSTANCE_COLUMNS` for each, by name. Blocks are KV blocks."""
        totals = self._cluster.totals()
        return [
            self._row(known, totals.get(known["id"], Totals()).preemptions)
            for known in self._maintenance.describe_all()
        ]

    def news(self) -> list[str]:
        """What happened since the last call."""
        states = {one["id"]: one["state"] for one in self._maintenance.describe_all()}
        before, self._states = self._states, states
        if before is None:
            return []
        found = [
            f"{name} {_WORDS[state]}"
            for name, state in states.items()
            if before.get(name, "absent") != state
        ]
        return found + [f"{name} is gone" for name in before.keys() - states.keys()]

    def _row(self, known: dict[str, Any], preemptions: int) -> list[Any]:
        name = known["id"]
        instance = self._cluster.instances.get(name)
        row = [self._watch.place(name), name, known["state"], known["engine"], known["requests"]]
        stats = None if instance is None else instance.stats
        if instance is None or stats is None:
            return [*row, 0, 0, 0, 0, 0, 0, 0, 0, 0, preemptions, 0, None]
        answering, calling = stats.answering, stats.calling
        step_s = instance.steps.step_s
        return [
            *row,
            stats.reasoning.running,
            answering.running + calling.running,
            stats.reasoning.waiting,
            answering.waiting + calling.waiting,
            stats.reasoning.kv_blocks,
            answering.kv_blocks + calling.kv_blocks,
            stats.kv_blocks_used,
            0 if stats.migration is None else stats.migration.held_blocks,
            stats.kv_blocks_total,
            preemptions,
            stats.steps_total,
            None if step_s is None else round(step_s, 5),
        ]
