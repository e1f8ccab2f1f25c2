"""Which instance serves a request: the candidates, and placement's decision among them.

The rules are those of `gateway.policy`; this module says who may be asked. It changes no route and
sends nothing: `gateway.routing.router` carries the decisions out.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.policy.affinity import LastPlaces
from gateway.policy.cluster_view import Occupancy, Passage, Placer, ViewRules
from gateway.policy.placement import Rules
from gateway.routing.instance import Instance
from gateway.routing.members import Members
from gateway.routing.route import Route, Stage
from gateway.routing.route_table import RouteTable
from workers.messages import Load


class Chooser:
    """Chooses instances. ``now`` is in monotonic seconds."""

    def __init__(
        self, members: Members, table: RouteTable, rules: Rules, view_rules: ViewRules
    ) -> None:
        self._members = members
        self._table = table
        self._placer = Placer(rules, view_rules)
        self._places = LastPlaces()

    @property
    def rules(self) -> Rules:
        """The rules in force. A decision that was made stays as it is when they change."""
        return self._placer.rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._placer.rules = rules

    def for_new(self, route: Route, now: float) -> Instance | None:
        """The instance for a new request; None if there is none."""
        return self._among(self._members.usable(now), route, now)

    def for_resumed(
        self,
        route: Route,
        now: float,
        *,
        prefer: str | None = None,
        avoid: str | None = None,
    ) -> Instance | None:
        """The instance for a request that has begun already; None if there is none.

        Such a request goes to a drained instance rather than to none.

        :param prefer: this instance, if it can take the request.
        :param avoid: not this one, if there is another.
        """
        usable = self._members.usable(now)
        for instance in usable:
            if instance.instance_id == prefer:
                return instance
        usable = usable or self._members.with_room()
        return self._among([i for i in usable if i.instance_id != avoid] or usable, route, now)

    def at_boundary(self, route: Route, here: Instance, now: float) -> str | None:
        """The instance that a request moves to for its answer; None if it stays."""
        session = route.session
        if self.rules.boundary == "off" or route.stage is not Stage.RUNNING or session.cancelling:
            return None
        targets = self._members.targets(here, now)
        if not targets or here.instance_id in self._members.drained:
            return None
        chosen = self._placer.place_at_boundary(
            session,
            self._table.occupancy(here),
            self._occupancies(targets),
            self._table.moves,
            now,
            unnoticed_s=session.delivery.targets.ttfat_s,
        )
        return None if chosen == here.instance_id else chosen

    def open_targets(self, source: Instance, targets: Sequence[Instance]) -> list[Instance]:
        """The targets to which one more request of ``source`` may migrate."""
        names = [target.instance_id for target in targets]
        open_ids = self._placer.open_targets(source.instance_id, names, self._table.moves)
        return [target for target in targets if target.instance_id in open_ids]

    def among_open(self, targets: Sequence[Instance], now: float) -> str | None:
        """The target for the next request of a drained instance; None without a target."""
        return self._placer.place_new(self._occupancies(targets), self._table.moves, now)

    def note_first_answer(
        self, passage: Passage, instance: Instance, kv_blocks: int, boundary_s: float, now: float
    ) -> float:
        """Learn how long a request waited at its boundary; return that, in seconds."""
        return self._placer.note_first_answer(
            passage, instance.instance_id, kv_blocks, boundary_s, now
        )

    def load(self, instance: Instance, now: float) -> Load:
        """What this gateway has on an instance."""
        return self._placer.load(self._table.occupancy(instance), self._table.moves, now)

    def accepted(self, route: Route, instance: Instance, prompt_tokens: int) -> None:
        """Learn where a request with an affinity key runs."""
        self._places.note(route.affinity_key, instance.instance_id, prompt_tokens)

    def ended(self, route: Route, instance: Instance, now: float) -> None:
        """Learn that a request is complete, and where."""
        session = route.session
        tokens = session.prompt_tokens + session.output_tokens
        self._placer.turn_ended(route.prefixes, instance.instance_id, tokens, now)

    def lost(self, instance_id: str) -> None:
        """An instance is gone."""
        self._places.lose(instance_id)
        self._placer.lost(instance_id)

    def _among(self, candidates: Sequence[Instance], route: Route, now: float) -> Instance | None:
        chosen = self._placer.place_new(
            self._occupancies(candidates),
            self._table.moves,
            now,
            held_tokens={
                one.instance_id: tokens
                for one in candidates
                if (tokens := one.prefixes.tokens_of(route.prefixes))
            },
            last=self._places.find(route.affinity_key),
            prefixes=route.prefixes,
        )
        return None if chosen is None else self._members.open[chosen]

    def _occupancies(self, instances: Sequence[Instance]) -> list[Occupancy]:
        return [self._table.occupancy(instance) for instance in instances]
