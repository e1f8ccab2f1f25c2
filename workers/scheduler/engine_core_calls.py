"""Calls to the engine core that do not submit or cancel requests.

vLLM's engine client can call any method of `EngineCore` by name from another process.
`serve_utilities` makes these functions such methods. In the same process they are called directly.
"""

from __future__ import annotations

from typing import Any

import msgspec
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm.v1.engine.core import EngineCore

from workers.kv.connectors import part_of
from workers.kv.migration import MigrationConnector
from workers.messages import Endpoint, Pace
from workers.policy.phase import Phase

NO_KV_MOVES = "the KV of this engine cannot move"


def set_pace(engine: EngineCore, own_id: str, pace: dict[str, Any]) -> None:
    """The reader of a request changed pace."""
    engine.scheduler.set_pace(own_id, Pace(**pace))


def turn(engine: EngineCore, own_id: str, phase: str) -> None:
    """The text of a request shows that it is in another phase."""
    engine.scheduler.turn(own_id, Phase(phase))


def hand_over(engine: EngineCore, own_id: str) -> None:
    """Let a request leave for another engine."""
    engine.scheduler.hand_over(own_id)


def use_policy(engine: EngineCore, policy: str) -> str | None:
    """Schedule by another policy, with the same numbers; :return: why that is not possible."""
    try:
        engine.scheduler.change_policy(policy)
    except ValueError as error:
        return str(error)
    return None


def kv_endpoint(engine: EngineCore) -> dict[str, Any] | None:
    """The fields of the engine's `Endpoint`; None if its KV cannot move."""
    migration = engine.scheduler.migration
    return None if migration is None else msgspec.structs.asdict(migration.endpoint())


def meet_peer(engine: EngineCore, peer: dict[str, Any]) -> str | None:
    """Connect to the engine at this endpoint; ask again until it is known.

    :param peer: the fields of its `Endpoint`.
    :return: None: not known yet; "": its KV can be read; else why not.
    """
    answers = engine.model_executor.collective_rpc(_meet, args=(peer,))
    return next((answer for answer in answers if answer != ""), "")


def serve_utilities() -> None:
    """Add these functions to `EngineCore`; the scheduler's constructor does so, in its process."""
    for utility in (set_pace, turn, hand_over, use_policy, kv_endpoint, meet_peer):
        setattr(EngineCore, utility.__name__, utility)


def _meet(_worker: object, peer: dict[str, Any]) -> str | None:
    connector = part_of(get_kv_transfer_group(), MigrationConnector)
    if connector is None or connector.connector_worker is None:
        return NO_KV_MOVES
    return connector.connector_worker.meet(Endpoint(**peer))
