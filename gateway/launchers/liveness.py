"""Decides when a worker counts as dead although its connection is open."""

from __future__ import annotations

import time

from gateway.routing.cluster import Cluster
from gateway.routing.worker_link import LinkError, WorkerLink


def check_alive(link: WorkerLink, cluster: Cluster, instance_id: str, timeout_s: float) -> None:
    """Check a connected worker.

    :param timeout_s: the longest time without a heartbeat; an engine step may take four times that.
    :raises LinkError: the worker is silent, or its engine makes no step.
    """
    silent_s = time.monotonic() - link.last_heard_s
    instance = cluster.instances.get(instance_id)
    stuck_s = instance.since_step_s if instance else 0.0
    if silent_s > timeout_s:
        raise LinkError(f"no heartbeat for {silent_s:.0f} s")
    if stuck_s > 4 * timeout_s:
        raise LinkError(f"no engine step for {stuck_s:.0f} s")
