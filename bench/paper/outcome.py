"""The kept results of one simulated case, as plain values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.simulator.results import PolicyRun
from bench.simulator.spans import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRun:
    """The outcome of one case. Lists are by request, in the order of `run.requests`."""

    run: PolicyRun
    reasoning: Sequence[Split]
    answering: Sequence[Split]
    generation_tpot_s: Sequence[float | None]  # by the engine, before pacing; None for one token
    transfers_s: Sequence[float]  # of KV between instances, with the wait for the links
    migrations: int

    def to_json(self) -> dict[str, Any]:
        """The values for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PaperRun:
        """Inverse of `to_json`.

        :raises KeyError, TypeError: if the values are not those of a run.
        """
        return cls(
            run=PolicyRun.from_json(values["run"]),
            reasoning=[Split(**split) for split in values["reasoning"]],
            answering=[Split(**split) for split in values["answering"]],
            generation_tpot_s=values["generation_tpot_s"],
            transfers_s=values["transfers_s"],
            migrations=values["migrations"],
        )
