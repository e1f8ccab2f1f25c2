"""Answers of the routes of models and of operators as types; see `objects`."""

from __future__ import annotations

from typing import Literal

from gateway.api.admin import DemoLevel
from gateway.api.documents.objects import Answer, Count, UnixTime
from gateway.policy.placement import BoundaryRule


class Model(Answer):
    """A model."""

    id: str
    object: Literal["model"]
    created: UnixTime
    owned_by: str
    max_model_len: int | None
    engines: list[str]


class ModelList(Answer):
    """The models."""

    object: Literal["list"]
    data: list[Model]


class Version(Answer):
    """What runs here."""

    version: str
    engines: list[str]


class Health(Answer):
    """The gateway runs."""

    status: Literal["ok"]


class Readiness(Answer):
    """Whether a new request would be served."""

    ready: bool
    draining: bool
    instances: list[str]


class InstanceState(Answer):
    """One instance."""

    id: str
    state: Literal["serving", "draining", "drained", "restarting", "absent"]
    requests: Count
    pid: int | None
    engine: str | None
    error: str | None


class InstanceList(Answer):
    """All instances."""

    instances: list[InstanceState]


class Demo(Answer):
    """The load of a demonstration. All counts are of its clients."""

    load: DemoLevel
    running: Count
    begun: Count
    completed: Count
    failed: Count
    error: str | None  # of the last client that failed, or why the load does not run


class InstancePolicy(Answer):
    """By what an instance schedules."""

    id: str
    policy: str
    pending: bool  # it was asked to change, and has not answered
    error: str | None


class Policies(Answer):
    """By what the instances schedule; ``policy``: what an operator has asked for."""

    policy: str | None
    instances: list[InstancePolicy]


class Placement(Answer):
    """The rule at the phase boundary; ``configured``: what the settings say."""

    boundary: BoundaryRule
    configured: BoundaryRule
    boundaries: list[BoundaryRule]  # all there are
