"""The instances of a cluster: which are there, and which of them may get requests.

`gateway.routing.cluster` changes the membership, `gateway.routing.router` only reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.routing.instance import Instance


class Members:
    """Instances with an open link, and the names of those out of service.

    :param silent_s: an instance that was silent for longer gets no request while others are there.
    """

    def __init__(self, silent_s: float) -> None:
        self.open: dict[str, Instance] = {}  # by name
        self.drained: set[str] = set()  # names that get nothing new, whether they are there or not
        self._silent_s = silent_s

    @property
    def in_service(self) -> bool:
        """Whether any instance is there and not drained."""
        return bool(self.open.keys() - self.drained)

    def usable(self, now: float) -> list[Instance]:
        """Instances that may get requests. Silent ones are left out while others are there."""
        there = [
            instance
            for name, instance in self.open.items()
            if name not in self.drained and not instance.link.full
        ]
        # A silent instance is probably about to be restarted.
        return [one for one in there if self.speaks(one, now)] or there

    def with_room(self) -> list[Instance]:
        """Instances whose link takes more, drained or not."""
        return [instance for instance in self.open.values() if not instance.link.full]

    def speaks(self, instance: Instance, now: float) -> bool:
        """Whether the instance was heard from lately."""
        return now - instance.link.last_heard_s < self._silent_s

    def targets(self, source: Instance, now: float) -> Sequence[Instance]:
        """Usable instances that can read the KV of ``source``."""
        return [other for other in self.usable(now) if other.can_read(source)]

    def has_engine(self, engine_id: str) -> bool:
        """Whether the engine with this KV memory is there."""
        endpoints = (instance.welcome.endpoint for instance in self.open.values())
        return any(endpoint and endpoint.engine_id == engine_id for endpoint in endpoints)
