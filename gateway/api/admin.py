"""Routes for operators: instances, their policy, the rule at the boundary. ``pascal drain``."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from aiohttp import web

from gateway.api.auth import is_local
from gateway.api.http import SERVICE, caller_of, read_bytes
from gateway.api.refusals import json_response
from gateway.policy.placement import BoundaryRule
from gateway.routing.draining import Maintenance
from gateway.schemas.bodies import parse_json_object
from gateway.schemas.errors import ApiError, Forbidden, convert
from gateway.store import Scope
from workers.policy.settings import PolicyName

DemoLevel: TypeAlias = Literal["off", "calm", "busy", "pressure"]


class DrainBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/instances/{id}/drain``."""

    restart: bool = False


class PolicyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/policy``."""

    policy: PolicyName


class DemoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/demo``; see `gateway.ops.demo`. ``kill``: the instance whose worker to kill."""

    load: DemoLevel | None = None
    kill: str | None = None


class PlacementBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/placement``."""

    boundary: BoundaryRule


async def get_policy(request: web.Request) -> web.Response:
    """``GET /admin/policy``."""
    _allowed(request, "operations")
    return json_response(request.app[SERVICE].cluster.policies.describe())


async def set_policy(request: web.Request) -> web.Response:
    """``POST /admin/policy``: change it everywhere, and answer when the instances have."""
    _allowed(request)
    body = convert(parse_json_object(await read_bytes(request)), PolicyBody)
    policies = request.app[SERVICE].cluster.policies
    policies.set(body.policy)
    await policies.settled()
    return json_response(policies.describe())


async def get_placement(request: web.Request) -> web.Response:
    """``GET /admin/placement``."""
    _allowed(request, "operations")
    return json_response(request.app[SERVICE].cluster.boundary.describe())


async def set_placement(request: web.Request) -> web.Response:
    """``POST /admin/placement``: change the rule at the phase boundary, at once."""
    _allowed(request)
    body = convert(parse_json_object(await read_bytes(request)), PlacementBody)
    boundary = request.app[SERVICE].cluster.boundary
    boundary.set(body.boundary)
    return json_response(boundary.describe())


async def list_instances(request: web.Request) -> web.Response:
    """``GET /admin/instances``."""
    return json_response({"instances": _allowed(request, "operations").describe_all()})


async def get_instance(request: web.Request) -> web.Response:
    """``GET /admin/instances/{id}``."""
    maintenance = _allowed(request, "operations")
    return json_response(maintenance.describe(request.match_info["instance_id"]))


async def drain_instance(request: web.Request) -> web.Response:
    """``POST /admin/instances/{id}/drain``: begin to drain, and answer at once."""
    maintenance = _allowed(request)
    data = await read_bytes(request)
    document = parse_json_object(data) if data else {}
    body = convert(document, DrainBody)
    instance_id = request.match_info["instance_id"]
    return json_response(maintenance.drain(instance_id, restart=body.restart), status=202)


async def undrain_instance(request: web.Request) -> web.Response:
    """``POST /admin/instances/{id}/undrain``."""
    return json_response(_allowed(request).undrain(request.match_info["instance_id"]))


def check_operator(request: web.Request, scope: Scope = "admin") -> str:
    """Check that the client may use the routes of operators; return its owner.

    With API keys, a key with the scope is needed. Without keys the API is open to all, so that only
    requests from this machine are allowed.
    """
    owner = caller_of(request, scope).owner
    service = request.app[SERVICE]
    if not service.keys.asked_for and not is_local(request.remote, request.headers):
        raise Forbidden(
            "Without API keys, instances are managed from the gateway's own machine only: by its "
            "loopback address, and not through a proxy.",
            code="local_only",
        )
    return owner


def may_operate(request: web.Request) -> bool:
    """Whether the client may open the operations page; see `check_operator`."""
    try:
        check_operator(request, "operations")
    except ApiError:
        return False
    return True


def _allowed(request: web.Request, scope: Scope = "admin") -> Maintenance:
    """Return the maintenance if the client may use it; see `check_operator`."""
    check_operator(request, scope)
    return request.app[SERVICE].maintenance
