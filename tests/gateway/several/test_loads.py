"""What gateways that share their workers know of each other, and that they decide as one would."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.policy.capacity import Engine, supply_of
from gateway.policy.cluster_view import Placer, ViewRules
from gateway.policy.placement import PAPER, Rules
from gateway.routing.loads import EVERY_S
from tests.gateway.support.instances import Placed, add, make_instance, stats
from tests.gateway.support.scripted_service import scene, start, until
from workers.messages import Load, OtherLoads, TellLoad

NAMES = ("a", "b", "c")


def _grow(placed: Placed, name: str, rng: random.Random) -> None:
    """Add a request. After 5 s, a reader of less than about 50 tokens waits."""
    instance = rng.choice(NAMES)
    thoughts = rng.randrange(1, 1200)
    answers = rng.choice([None, rng.randrange(20, 900)])
    add(placed.table, instance, name, thoughts=thoughts, answers=answers)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rules", [Rules(), PAPER])
def test_two_gateways_see_together_what_one_would_see(seed: int, rules: Rules) -> None:
    """The same requests, all at one gateway or shared among two, lead to the same decision."""
    view_rules = ViewRules(quantum_tokens=300, demotion_tokens=1000)
    all_, first, second = (Placed(*map(make_instance, NAMES)) for _ in range(3))
    kinds, owners = random.Random(seed), random.Random(-seed)
    for index in range(30):
        state = kinds.getstate()
        _grow(all_, f"r{index}", kinds)
        kinds.setstate(state)
        _grow(owners.choice([first, second]), f"r{index}", kinds)
    used = {name: kinds.randrange(100) for name in NAMES}
    for placed in (all_, first, second):
        for name, instance in placed.instances.items():
            instance.report(stats(used[name]), 0.0)
    other = Placer(rules, view_rules)
    for name in NAMES:
        here = second.table.occupancy(second.instances[name])
        first.instances[name].others = other.load(here, second.table.moves, 5.0)
    views = [all_.view(name, 5.0, view_rules) for name in NAMES]
    assert [first.view(name, 5.0, view_rules) for name in NAMES] == views
    occupancies = [
        [placed.table.occupancy(placed.instances[name]) for name in NAMES]
        for placed in (all_, first)
    ]
    alone, shared = (Placer(rules, view_rules).place_new(each, (), 5.0) for each in occupancies)
    assert alone == shared
    session = next(iter(first.table.by_response.values())).session
    in_all = all_.table.by_response[session.response_id].session
    at = all_.table.by_response[session.response_id].holder
    targets = [
        Placer(rules, view_rules).place_at_boundary(
            request,
            next(one for one in each if one.instance_id == at),
            [one for one in each if one.instance_id != at],
            (),
            5.0,
            unnoticed_s=0.25,
        )
        for request, each in zip((in_all, session), occupancies, strict=True)
    ]
    assert targets[0] == targets[1]


async def test_a_gateway_tells_its_load_while_another_one_is_there(tmp_path: Path) -> None:
    async with scene(tmp_path, "a") as stage, asyncio.timeout(20):
        worker = stage.workers["a"]
        await start(stage.service, worker)
        assert worker.unread() == 0  # alone: it tells nobody
        await worker.say(OtherLoads(gateways=1, load=Load(requests=3, kv_blocks=40)))
        told = await worker.received()
        assert isinstance(told, TellLoad)
        assert told.load.requests == 1
        assert told.load.kv_blocks >= 1
        await asyncio.sleep(3 * EVERY_S)
        assert worker.unread() == 0  # nothing has changed
        await start(stage.service, worker)
        told = await worker.received()
        assert isinstance(told, TellLoad)
        assert told.load.requests == 2
        engine = stage.service.cluster.engines(8)[0]
        assert (engine.others, engine.others_kv_tokens) == (3, 40 * 16)
        await worker.say(OtherLoads(gateways=0, load=Load()))
        await start(stage.service, worker)
        await asyncio.sleep(2 * EVERY_S)
        assert worker.unread() == 0
        assert stage.service.cluster.engines(8)[0].others == 0


async def test_a_new_request_goes_where_other_gateways_have_less(tmp_path: Path) -> None:
    async with scene(tmp_path, "a", "b") as stage, asyncio.timeout(20):
        crowd = Load(requests=5, kv_blocks=50)
        for name, there in (("a", crowd), ("b", Load())):
            await stage.workers[name].say(OtherLoads(gateways=1, load=there))
        instances = stage.service.cluster.instances.values()
        await until(lambda: all(one.others is not None for one in instances))
        assert (await start(stage.service, stage.workers["b"]))[0].in_engine


def test_what_other_gateways_have_is_not_supplied() -> None:
    engine = Engine(kv_tokens=1000, places=10, longest=4096, step_s=0.05)
    shared = replace(engine, others=6, others_kv_tokens=300, others_thinking=2)
    assert supply_of([engine], 1.0).kv_tokens == 1000
    supply = supply_of([shared, engine], 1.0)
    assert supply.kv_tokens == 1700
    assert supply.places == pytest.approx(20 - 2 - 4 * 0.5)
    full = replace(engine, others=60, others_kv_tokens=3000, others_thinking=60)
    assert supply_of([full], 1.0).places == supply_of([full], 1.0).kv_tokens == 0
