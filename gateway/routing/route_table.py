"""All routes of the gateway: by response, and by the instance that has them.

Only `gateway.routing.router` changes the table.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.policy.cluster_view import Occupancy
from gateway.routing.instance import Instance
from gateway.routing.route import Moving, Route

_NONE: Mapping[str, Route] = {}


class RouteTable:
    """The routes of requests that instances have, or are to have."""

    def __init__(self) -> None:
        self.by_response: dict[str, Route] = {}
        self._held: dict[str, dict[str, Route]] = {}  # by instance, then by `Route.wire_id`

    # ---- what there is ------------------------------------------------------------------------

    def find(self, instance_id: str, wire_id: str) -> Route | None:
        """The request that an instance means; None for a submission that is over."""
        return self._held.get(instance_id, {}).get(wire_id)

    def held_by(self, instance_id: str) -> Mapping[str, Route]:
        """The requests that an instance has, by `Route.wire_id`, as they come and go."""
        return self._held.get(instance_id, _NONE)

    def of(self, instance_id: str) -> list[Route]:
        """The requests that an instance has, or was sent and has not answered."""
        return list(self._held.get(instance_id, {}).values())

    def is_held(self, route: Route) -> bool:
        """Whether the holder of a route still has it."""
        return self.find(route.holder or "", route.wire_id) is route

    @property
    def migrating(self) -> list[Route]:
        """Requests on their way between two instances."""
        return [route for route in self.by_response.values() if route.migration is not None]

    @property
    def moves(self) -> list[Moving]:
        """The same, for placement."""
        return [moving for route in self.by_response.values() if (moving := route.moving)]

    def occupancy(self, instance: Instance) -> Occupancy:
        """An instance with its unfinished requests, for placement."""
        sessions = [route.session for route in self.of(instance.instance_id)]
        return instance.occupancy([session for session in sessions if session.in_engine])

    # ---- what changes -------------------------------------------------------------------------

    def add(self, route: Route) -> None:
        """Take a new request in."""
        self.by_response[route.session.response_id] = route

    def hold(self, route: Route) -> None:
        """The request was sent to its holder."""
        self._held.setdefault(route.holder or "", {})[route.wire_id] = route

    def let_go(self, route: Route) -> None:
        """Its holder has it no longer."""
        if self.is_held(route):
            del self._held[route.holder or ""][route.wire_id]

    def lose(self, instance_id: str) -> list[Route]:
        """An instance has nothing any more; return what it had."""
        return list(self._held.pop(instance_id, {}).values())

    def remove(self, route: Route) -> None:
        """The request is over."""
        self.let_go(route)
        self.by_response.pop(route.session.response_id, None)
