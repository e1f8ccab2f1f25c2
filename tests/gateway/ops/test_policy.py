"""A switch of the policy is told to viewers, in the figures and on the charts."""

from __future__ import annotations

from pathlib import Path

from gateway.app import make_app
from gateway.ops.hub import Hub
from gateway.ops.socket import HUB
from tests.gateway.ops.test_socket import frames_until, gateway
from tests.gateway.support.scripted_service import serving
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
