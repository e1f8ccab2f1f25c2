"""The scheduler's statistics as integers by name: the one form in which they leave its process.

vLLM's own statistics are all that arrives from an engine core in another process. They have a field
that holds integers by name, so the statistics of the phases travel in it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from workers.messages import MigrationStats, PhaseCounts, PhaseStats

_PREFIX = "phase_"
_PHASES = ("reasoning", "answering")
_TOTALS = (
    "kv_blocks_used",
    "kv_blocks_total",
    "preemptions_total",
    "reloaded_tokens_total",
    "recomputed_tokens_total",
)
_MIGRATION = "migration"
_SECONDS = ("read_s_total",)  # fields that travel in microseconds


def to_integers(stats: PhaseStats) -> dict[str, int]:
    """Flat, for a field of vLLM's statistics that holds integers by name."""
    integers = {f"{_PREFIX}{name}": getattr(stats, name) for name in _TOTALS}
    for phase in _PHASES:
        for name, count in msgspec.structs.asdict(getattr(stats, phase)).items():
            integers[f"{_PREFIX}{phase}_{name}"] = count
    if stats.migration is not None:
        for name, value in msgspec.structs.asdict(stats.migration).items():
            integer = round(value * 1e6) if name in _SECONDS else value
            integers[f"{_PREFIX}{_MIGRATION}_{name}"] = integer
    return integers


def from_integers(integers: Mapping[str, int]) -> PhaseStats:
    """Inverse of `to_integers`; :raises KeyError: if an integer is missing."""
    totals = {name: integers[f"{_PREFIX}{name}"] for name in _TOTALS}
    reasoning, answering = (
        PhaseCounts(**_part(integers, phase, PhaseCounts.__struct_fields__)) for phase in _PHASES
    )
    return PhaseStats(
        reasoning=reasoning, answering=answering, migration=_migration(integers), **totals
    )


def _migration(integers: Mapping[str, int]) -> MigrationStats | None:
    names = MigrationStats.__struct_fields__
    if f"{_PREFIX}{_MIGRATION}_{names[0]}" not in integers:
        return None
    values = _part(integers, _MIGRATION, names)
    return MigrationStats(**(values | {name: values[name] / 1e6 for name in _SECONDS}))


def _part(integers: Mapping[str, int], part: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: integers[f"{_PREFIX}{part}_{name}"] for name in names}
