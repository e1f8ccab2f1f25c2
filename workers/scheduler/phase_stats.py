"""The scheduler's statistics as integers by name: the one form in which they leave its process.

vLLM's own statistics are all that arrives from an engine core in another process. They have a field
that holds integers by name, so the statistics of the phases travel in it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.messages import MigrationStats, PhaseCounts, PhaseStats

_PHASES = ("reasoning", "answering", "calling")
_TOTALS = (
    "kv_blocks_used",
    "kv_blocks_total",
    "preemptions_total",
    "reloaded_tokens_total",
    "recomputed_tokens_total",
)
_SECONDS = ("read_s_total",)  # fields that travel in microseconds

# The key of each field, made once: every step of an engine writes them all.
_KEYS_OF_TOTALS = {name: f"phase_{name}" for name in _TOTALS}
_KEYS_OF_PHASES = {
    phase: {name: f"phase_{phase}_{name}" for name in PhaseCounts.__struct_fields__}
    for phase in _PHASES
}
_KEYS_OF_MIGRATION = {name: f"phase_migration_{name}" for name in MigrationStats.__struct_fields__}


def to_integers(stats: PhaseStats) -> dict[str, int]:
    """Flat, for a field of vLLM's statistics that holds integers by name."""
    integers = {key: getattr(stats, name) for name, key in _KEYS_OF_TOTALS.items()}
    for phase, keys in _KEYS_OF_PHASES.items():
        counts = getattr(stats, phase)
        for name, key in keys.items():
            integers[key] = getattr(counts, name)
    if stats.migration is not None:
        for name, key in _KEYS_OF_MIGRATION.items():
            value = getattr(stats.migration, name)
            integers[key] = round(value * 1e6) if name in _SECONDS else value
    return integers


def from_integers(integers: Mapping[str, int]) -> PhaseStats:
    """Inverse of `to_integers`; :raises KeyError: if an integer is missing."""
    fields: dict[str, Any] = {name: integers[key] for name, key in _KEYS_OF_TOTALS.items()}
    for phase, keys in _KEYS_OF_PHASES.items():
        fields[phase] = PhaseCounts(**{name: integers[key] for name, key in keys.items()})
    return PhaseStats(migration=_migration(integers), **fields)


def _migration(integers: Mapping[str, int]) -> MigrationStats | None:
    if integers.keys().isdisjoint(_KEYS_OF_MIGRATION.values()):
        return None
    values: dict[str, Any] = {name: integers[key] for name, key in _KEYS_OF_MIGRATION.items()}
    return MigrationStats(**(values | {name: values[name] / 1e6 for name in _SECONDS}))
