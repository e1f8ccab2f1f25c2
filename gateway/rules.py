"""Translates the configuration for modules that decide about requests and must not read it."""

from __future__ import annotations

from gateway.config import Config
from gateway.policy import cluster_view
from gateway.policy.cluster_view import ViewRules
from gateway.routing.route import RouteTimeouts


def view_rules(config: Config) -> ViewRules:
    """The settings of `gateway.policy.cluster_view`."""
    workers = config.workers
    return cluster_view.view_rules(
        workers.policy,
        workers.quantum_tokens,
        workers.demotion_tokens,
        slo_qoe=config.pacing.slo_qoe,
        reserve_memory=config.placement.reserve_memory,
    )


def route_timeouts(config: Config) -> RouteTimeouts:
    """The settings of `gateway.routing.route`."""
    return RouteTimeouts(
        migration_timeout_s=config.placement.migration_timeout_s,
        failover_timeout_s=config.cluster.failover_timeout_s,
        max_restarts=config.cluster.max_restarts,
    )
