"""Which instance serves a request. Pure: a view of the instances in, a decision out.

Source: the paper's instance-level scheduling, Algorithm 1 (a new request). Knows nothing of links,
processes, clocks or how the view came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InstanceView:
    """What placement sees of one instance that can take requests."""

    instance_id: str
    within_slo: bool  # t_i: all its answering requests are within their SLO
    kv_footprint_blocks: int  # m_i: KV blocks of all its requests, on the device and off it
    requests: int  # all its unfinished requests; breaks ties


def place_new_request(instances: Sequence[InstanceView]) -> str | None:
    """Algorithm 1: among instances within their SLO the smallest KV footprint, else over all.

    Ties go to fewer requests, then to the earlier instance. None if there is no instance.
    """
    healthy = [view for view in instances if view.within_slo]
    candidates = healthy or instances
    if not candidates:
        return None
    return min(candidates, key=lambda view: (view.kv_footprint_blocks, view.requests)).instance_id
