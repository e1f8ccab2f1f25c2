"""What the scheduler says of itself after a step, by phase, and how that travels.

Pure. In another process only vLLM's own statistics arrive, in which integers by name fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from workers.messages import MigrationStats, PhaseCounts

_MIGRATION_PREFIX = "phase_migration_"
_SECONDS = ("read_s_total",)  # fields that travel in microseconds


class PhaseStats(msgspec.Struct, frozen=True):
    """State of the scheduler after a step.

    ``kv_blocks`` of a phase are the blocks that its requests hold; blocks shared through the
    prefix cache count once for each of them, so the phases may add up to more than is used.
    """

    reasoning: PhaseCounts
    answering: PhaseCounts
    kv_blocks_used: int
    kv_blocks_total: int
    preemptions_total: int
    reloaded_tokens_total: int
    recomputed_tokens_total: int
    migration: MigrationStats | None = None

    def to_integers(self) -> dict[str, int]:
        """Flat, for a field of vLLM's statistics that holds integers by name."""
        integers = {
            "phase_reasoning_running": self.reasoning.running,
            "phase_reasoning_waiting": self.reasoning.waiting,
            "phase_reasoning_kv_blocks": self.reasoning.kv_blocks,
            "phase_answering_running": self.answering.running,
            "phase_answering_waiting": self.answering.waiting,
            "phase_answering_kv_blocks": self.answering.kv_blocks,
            "phase_kv_blocks_used": self.kv_blocks_used,
            "phase_kv_blocks_total": self.kv_blocks_total,
            "phase_preemptions_total": self.preemptions_total,
            "phase_reloaded_tokens_total": self.reloaded_tokens_total,
            "phase_recomputed_tokens_total": self.recomputed_tokens_total,
        }
        if self.migration is not None:
            for name, value in msgspec.structs.asdict(self.migration).items():
                micro = name in _SECONDS
                integers[f"{_MIGRATION_PREFIX}{name}"] = round(value * 1e6) if micro else value
        return integers

    @classmethod
    def from_integers(cls, integers: Mapping[str, int]) -> PhaseStats:
        """Inverse of `to_integers`; :raises KeyError: if something is missing."""

        def counts(phase: str) -> PhaseCounts:
            return PhaseCounts(
                running=integers[f"phase_{phase}_running"],
                waiting=integers[f"phase_{phase}_waiting"],
                kv_blocks=integers[f"phase_{phase}_kv_blocks"],
            )

        return cls(
            counts("reasoning"),
            counts("answering"),
            integers["phase_kv_blocks_used"],
            integers["phase_kv_blocks_total"],
            integers["phase_preemptions_total"],
            integers["phase_reloaded_tokens_total"],
            integers["phase_recomputed_tokens_total"],
            cls._migration(integers),
        )

    @staticmethod
    def _migration(integers: Mapping[str, int]) -> MigrationStats | None:
        names = MigrationStats.__struct_fields__
        if f"{_MIGRATION_PREFIX}{names[0]}" not in integers:
            return None
        values: dict[str, Any] = {name: integers[f"{_MIGRATION_PREFIX}{name}"] for name in names}
        return MigrationStats(**(values | {name: values[name] / 1e6 for name in _SECONDS}))
