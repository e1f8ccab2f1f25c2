"""Takes requests to instances and from them: what is sent, and what the routes record of it.

`gateway.routing.router` says when; this module knows tickets, submissions and who holds a request.
"""

from __future__ import annotations

from gateway.routing.deadlines import Deadlines
from gateway.routing.instance import Instance
from gateway.routing.members import Members
from gateway.routing.route import MoveReason, Route
from gateway.routing.route_table import RouteTable
from workers.messages import Cancel, HandOver, Ticket, ToWorker


class Carrier:
    """Sends the messages of routes. ``now`` is in monotonic seconds."""

    def __init__(self, members: Members, table: RouteTable, deadlines: Deadlines) -> None:
        self._members = members
        self._table = table
        self._deadlines = deadlines

    def send(self, route: Route, message: ToWorker) -> bool:
        """Send something to the instance that has the request; False if none has it."""
        holder = self._members.open.get(route.holder or "")
        if holder is None or not self._table.is_held(route):
            return False
        holder.link.send(message)
        return True

    def stop(self, route: Route) -> bool:
        """Have the instance stop the request; False if none has it."""
        return self.send(route, Cancel(request_id=route.wire_id))

    def submit(self, route: Route, instance: Instance, now: float) -> None:
        """Submit the request, with its ticket if that can be used.

        :raises FrameTooLarge: the conversation is longer than a worker takes.
        """
        ticket = self._usable_ticket(route, instance, now)
        route.submitted(instance.instance_id, now, with_ticket=ticket is not None)
        self._table.hold(route)
        self._deadlines.set(route, now)
        instance.link.send(route.submission(ticket))
        instance.prefixes.expect(route.prefixes, route.session.kv_tokens)
        route.log.info(
            "request_placed",
            instance_id=instance.instance_id,
            known_tokens=len(route.session.token_ids),
            with_kv=ticket is not None,
        )

    def suspend(self, route: Route, now: float) -> None:
        """Let the request wait until an instance can take it."""
        route.log.info("request_suspended")
        route.waits(now)
        self._deadlines.set(route, now)

    def hand_over(
        self, route: Route, source: Instance, target_id: str, reason: MoveReason, now: float
    ) -> None:
        """Have the instance let the request go, for another."""
        kv_blocks = source.blocks(route.session)
        route.hand_over(target_id, kv_blocks, reason, now)
        source.link.send(HandOver(request_id=route.wire_id))
        self._deadlines.set(route, now)
        route.log.info(
            "hand_over_requested",
            instance_id=source.instance_id,
            target_id=target_id,
            reason=reason,
            kv_blocks=kv_blocks,
        )

    def _usable_ticket(self, route: Route, target: Instance, now: float) -> Ticket | None:
        """The route's ticket, if its memory is there and the target can read it."""
        ticket = route.ticket(now)
        if ticket is None or ticket.engine_id not in target.readable:
            return None
        return ticket if self._members.has_engine(ticket.engine_id) else None
