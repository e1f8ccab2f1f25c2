"""Tells each worker what this gateway has on it, for the other gateways that it serves.

A worker passes the loads of all other gateways on (`workers.messages.OtherLoads`), and placement
adds them to this gateway's own. A new request is told at once, so that two gateways do not choose
the same instance again and again. What tokens change is told ten times a second.

Nothing is computed or sent while no other gateway is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.routing.instance import Instance
from gateway.routing.members import Members
from workers.messages import Load, OtherLoads, TellLoad

EVERY_S = 0.1  # between two looks at all instances


class Loads:
    """What the workers are told of this gateway, and what they tell of the others.

    :param load_of: this gateway's load on an instance.
    """

    def __init__(self, members: Members, load_of: Callable[[Instance], Load]) -> None:
        self._members = members
        self._load_of = load_of
        self._told: dict[Instance, Load] = {}
        self._at_once: set[str] = set()  # names of instances to be told in this turn of the loop
        self._timer: asyncio.TimerHandle | None = None

    def heard(self, instance: Instance, message: OtherLoads) -> None:
        """A worker told what the other gateways have there."""
        instance.others = message.load if message.gateways else None
        if instance.others is None:
            self._told.pop(instance, None)
        elif self._timer is None:
            self._look()

    def placed(self, instance: Instance) -> None:
        """A request was sent to an instance."""
        if instance.others is None:
            return
        if not self._at_once:
            asyncio.get_running_loop().call_soon(self._tell_placed)
        self._at_once.add(instance.instance_id)

    def lost(self, instance: Instance) -> None:
        """An instance is gone."""
        self._told.pop(instance, None)

    def close(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell_placed(self) -> None:
        names, self._at_once = self._at_once, set()
        for name in names:
            if (instance := self._members.open.get(name)) is not None:
                self._tell(instance)

    def _look(self) -> None:
        shared = [one for one in self._members.open.values() if one.others is not None]
        self._timer = None
        if shared:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._look)
        for instance in shared:
            self._tell(instance)

    def _tell(self, instance: Instance) -> None:
        if instance.others is None:
            return
        try:
            load = self._load_of(instance)
        except Exception:
            instance.log.exception("load_not_known")
            return
        if self._told.get(instance) != load:
            self._told[instance] = load
            instance.link.send(TellLoad(load=load))
