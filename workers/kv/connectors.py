"""The KV connectors of one engine: one, or two under vLLM's `MultiConnector`.

Decides how they are put together and found again; what each does is `workers.kv.offload` and
`workers.kv.migration`. KV that a ticket gives comes before what host memory holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import (
    MultiConnector,
    MultiKVConnectorMetadata,
)
from vllm.v1.kv_cache_interface import KVCacheConfig

_Part = TypeVar("_Part")


def combined(configs: Sequence[KVTransferConfig]) -> KVTransferConfig | None:
    """One configuration out of at most two; the first claims KV first. None: no connector."""
    if len(configs) < 2:
        return configs[0] if configs else None
    first = configs[0]
    return KVTransferConfig(
        kv_connector=MultiConnector.__name__,
        kv_role="kv_both",
        engine_id=first.engine_id,
        kv_buffer_device=first.kv_buffer_device,
        kv_load_failure_policy="recompute",
        kv_connector_extra_config={"connectors": [_child(config) for config in configs]},
    )


def _child(config: KVTransferConfig) -> dict[str, Any]:
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    del values["engine_id"]  # all get that of the whole
    return values


def may_move(config: KVCacheConfig) -> bool:
    """Whether KV may go to another engine or to host memory, and come back.

    Not where layers differ in the KV that they keep, as with sliding windows or recurrent layers.
    Such requests compute their KV again: no test has shown their KV to be complete elsewhere.
    """
    return len(config.kv_cache_groups) == 1


def part_of(connector: object, kind: type[_Part]) -> _Part | None:
    """The connector of this kind, if the engine has one."""
    parts = connector.sub_connectors if isinstance(connector, MultiConnector) else [connector]
    return next((part for part in parts if isinstance(part, kind)), None)


def parts_of_metadata(metadata: object) -> Sequence[object]:
    """What the connectors' scheduler sides told their workers in a step."""
    if isinstance(metadata, MultiKVConnectorMetadata):
        parts: Sequence[object] = metadata.metadata
        return parts
    return (metadata,)
