"""A switch of the policy is told to viewers, in the figures and on the charts."""

from __future__ import annotations

from pathlib import Path

from gateway.app import make_app
from gateway.ops.hub import Hub
from gateway.ops.socket import HUB
from gateway.policy.placement import BOUNDARY_RULES
from tests.gateway.ops.test_socket import frames_until, gateway
from tests.gateway.support.scene import check_whole, play
from tests.gateway.support.scripted_service import ended, serving
from workers.policy.settings import POLICY_NAMES


async def test_a_switch_is_a_note_and_holds_in_hello_and_metrics(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path) as (client, service, worker, _),
        client.ws_connect("/admin/ops") as socket,
    ):
        hello = (await frames_until(socket, "hello"))[-1]
        assert hello["policies"] == list(POLICY_NAMES)
        before = hello["policy"]
        there = service.cluster.instances["worker-0"].policy
        other = next(name for name in POLICY_NAMES if name not in (before, there))
        async with client.post("/admin/policy", json={"policy": other}) as answer:
            assert answer.status == 200
        assert worker.policies == [other]
        note = (await frames_until(socket, "note"))[-1]
        assert note["text"] == f"policy {before} → {other}"
        assert (await frames_until(socket, "second"))[-1]["policy"] == other
        assert f'policy="{other}"' in service.metrics.render().decode()
        async with client.ws_connect("/admin/ops") as another:
            late = (await frames_until(another, "hello"))[-1]
            assert late["policy"] == other
            assert [one["text"] for one in late["notes"]] == [note["text"]]


async def test_a_gateway_without_the_route_offers_no_policies(tmp_path: Path) -> None:
    async with serving(tmp_path, "worker-0") as (service, _):
        assert Hub(service)._policies == []
        assert make_app(service)[HUB]._policies == list(POLICY_NAMES)


async def test_the_boundary_rule_changes_at_once_and_is_told(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path) as (client, service, _, _),
        client.ws_connect("/admin/ops") as socket,
    ):
        hello = (await frames_until(socket, "hello"))[-1]
        before = hello["boundary"]
        assert hello["boundaries"] == list(BOUNDARY_RULES)
        async with client.get("/admin/placement") as answer:
            assert await answer.json() == {
                "boundary": before,
                "configured": before,
                "boundaries": list(BOUNDARY_RULES),
            }
        async with client.post("/admin/placement", json={"boundary": "off"}) as answer:
            assert answer.status == 200
            described = await answer.json()
        assert (described["boundary"], described["configured"]) == ("off", before)
        assert service.cluster.router.chooser.rules.boundary == "off"
        note = (await frames_until(socket, "note"))[-1]
        assert note["text"] == f"boundary {before} → off"
        assert note["choice"] is True
        assert (await frames_until(socket, "second"))[-1]["boundary"] == "off"
        assert 'boundary="off"' in service.metrics.render().decode()
        for wrong, param in (
            ({"boundary": "sometimes"}, "boundary"),
            ({}, "boundary"),
            ({"boundary": "off", "new": "pascal"}, "new"),
        ):
            async with client.post("/admin/placement", json=wrong) as answer:
                assert answer.status == 400
                assert (await answer.json())["error"]["param"] == param
        assert service.cluster.boundary.rule == "off"


async def test_the_new_rule_decides_at_the_next_boundary(tmp_path: Path) -> None:
    async with play(tmp_path, "a", "b") as playing:
        boundary = playing.cluster.boundary
        moving = boundary.rule
        for rule, moves in ((moving, 1), ("off", 0), (moving, 1)):
            boundary.set(rule)
            session = await playing.start()
            await ended(session)
            check_whole(playing, session)
            assert session.migrations == moves, rule
