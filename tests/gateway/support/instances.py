"""Instances and their requests without a link: it records the messages to them."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from gateway.policy.cluster_view import ViewRules, view_of
from gateway.policy.placement import InstanceView
from gateway.response.session import Session
from gateway.routing.instance import Instance
from gateway.routing.route import Route, RouteTimeouts
from gateway.routing.route_table import RouteTable
from gateway.routing.worker_link import WorkerLink
from tests.gateway.support.scripted_worker import IDLE
from tests.gateway.support.sessions import make_session
from workers.messages import (
    PROTOCOL,
    Endpoint,
    StepStats,
    TokenRun,
    ToWorker,
    Welcome,
    answers_after,
)

BLOCK = 16
BLOCKS = 100
PROMPT = BLOCK  # one block


class Placed:
    """Instances and the routes on them, as the router keeps them."""

    def __init__(self, *instances: Instance) -> None:
        self.instances = {instance.instance_id: instance for instance in instances}
        self.table = RouteTable()

    def view(
        self, name: str, now: float, rules: ViewRules, at_boundary: Session | None = None
    ) -> InstanceView:
        """What placement sees of one of them."""
        here = self.table.occupancy(self.instances[name])
        return view_of(here, self.table.moves, rules, now, at_boundary)


class SilentLink:
    """A link that never delivers a message."""

    def __init__(self, instance_id: str) -> None:
        self.sent: list[ToWorker] = []
        self.last_heard_s = float("inf")  # never silent for long
        self.full = False
        self.welcome = Welcome(
            policy="slack",
            protocol=PROTOCOL,
            instance_id=instance_id,
            pid=1,
            model="m",
            max_model_len=10_000,
            block_size=BLOCK,
            kv_blocks_total=BLOCKS,
            engine="none",
            endpoint=Endpoint(engine_id=f"engine-{instance_id}", host="h", port=1),
        )

    def send(self, message: ToWorker) -> None:
        self.sent.append(message)


def make_instance(instance_id: str, *known: str) -> Instance:
    """An instance that can read the KV of the ``known`` ones."""
    instance = Instance(cast(WorkerLink, SilentLink(instance_id)))
    instance.readable = {f"engine-{name}" for name in known}
    return instance


def stats(used: int) -> StepStats:
    """Statistics with ``used`` blocks in use."""
    values = {name: getattr(IDLE, name) for name in IDLE.__struct_fields__}
    return StepStats(**(values | {"kv_blocks_used": used, "kv_blocks_total": BLOCKS}))


def add(
    table: RouteTable,
    instance_id: str,
    name: str,
    *,
    thoughts: int,
    answers: int | None = None,
    **fields: Any,
) -> Route:
    """A running request with a prompt of a block; with ``answers`` it is past its boundary."""
    session = make_session(**fields)
    session.response_id = name
    route = Route(session, RouteTimeouts(), Counter())
    route.submitted(instance_id, 0.0, with_ticket=False)
    route.accepted(0.0)
    table.add(route)
    table.hold(route)
    session.accepted(instance_id, PROMPT, reasoning=True)
    boundary = None if answers is None else thoughts - 1
    feed(route, thoughts, 0.0, boundary=boundary)
    feed(route, answers or 0, 0.0)
    return route


def run_of(route: Route, count: int, *, boundary: int | None = None, **fields: Any) -> TokenRun:
    """The next tokens of a request."""
    return TokenRun(
        request_id=route.wire_id,
        position=len(route.session.token_ids),
        token_ids=(9,) * count,
        texts=("x",) * count,
        turns=answers_after(boundary),
        **fields,
    )


def feed(route: Route, count: int, now: float, **fields: Any) -> None:
    """Give its session the next tokens."""
    route.session.tokens(run_of(route, count, **fields), now)
