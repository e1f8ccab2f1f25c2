"""The worker's end of the link over a real socket, with a service that the test breaks."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import unix_connect
from websockets.frames import CloseCode

from tests.workers.support.harness import Gateway
from workers.errors import WorkerError
from workers.link import Link, check_free, listening
from workers.messages import (
    PROTOCOL,
    Accepted,
    Cancel,
    Endpoint,
    Finish,
    HandOver,
    Heartbeat,
    Hello,
    MeetPeer,
    Pace,
    PeerMet,
    PolicySet,
    Rejected,
    SetPace,
    SetPolicy,
    StepStats,
    Submit,
    TokenRun,
    Welcome,
    encode,
)
from workers.messages import PhaseCounts as Counts
from workers.requests.gateways import Gateway as Connected
from workers.requests.gateways import Gateways

STATS = StepStats(
    reasoning=Counts(),
    answering=Counts(),
    kv_blocks_used=0,
    kv_blocks_total=8,
    preemptions_total=0,
    steps_total=0,
)
WELCOME = Welcome(
    policy="slack",
    protocol=PROTOCOL,
    instance_id="w",
    pid=1,
    model="m",
    max_model_len=8,
    block_size=1,
    kv_blocks_total=8,
    engine="none",
)
PEER = Endpoint(engine_id="f", host="127.0.0.1", port=9)
HALF = "\ud800"  # half a character: no JSON can hold it


class BrokenService:
    """A service that raises at every message, and at every second heartbeat."""

    def __init__(self) -> None:
        self.gateways = Gateways(lambda: None, lambda: None, time.monotonic)
        self.left = asyncio.Event()  # set when a gateway has gone
        self.beats = 0
        self.paces: list[str] = []

    def connect(self, gateway: Connected) -> None:
        self.gateways.add(gateway)

    def disconnect(self, gateway: Connected) -> None:
        self.gateways.remove(gateway)
        self.left.set()

    @property
    def one(self) -> Connected:
        """The only gateway."""
        (gateway,) = self.gateways
        return gateway

    def heartbeat(self, gateway: Connected) -> None:
        self.beats += 1
        if self.beats % 2:
            raise RuntimeError("no figures")
        self.gateways.heartbeat(gateway, Heartbeat(since_step_s=0.0, stats=STATS))

    def submit(self, gateway: Connected, message: Submit) -> None:
        raise RuntimeError(message.request_id)

    def cancel(self, gateway: Connected, request_id: str) -> None:
        raise RuntimeError(request_id)

    hand_over = cancel

    def meet_peer(self, gateway: Connected, peer: Endpoint) -> None:
        raise RuntimeError(peer.host)

    def set_pace(self, gateway: Connected, request_id: str, pace: Pace) -> None:
        self.paces.append(request_id)
        raise RuntimeError(request_id)

    policy = None

    def set_policy(self, gateway: Connected, policy: str) -> None:
        raise RuntimeError(policy)

    def policy_set(self, gateway: Connected, policy: str, error: str | None) -> None:
        self.gateways.policy_set(PolicySet(policy=policy, error=error), gateway)

    def not_met(self, gateway: Connected, peer: Endpoint, reason: str) -> None:
        gateway.send(PeerMet(engine_id=peer.engine_id, error=reason))

    def fail(self, gateway: Connected, request_id: str, message: str) -> None:
        gateway.send(Rejected(request_id=request_id, code="internal_error", message=message))


@pytest.fixture
def service() -> BrokenService:
    return BrokenService()


@pytest.fixture
async def gateway(tmp_path: Path, service: BrokenService) -> AsyncIterator[Gateway]:
    path = tmp_path / "w.sock"
    link = Link(service, WELCOME, None, 0.01)  # type: ignore[arg-type]
    async with listening(f"unix:{path}", link), Gateway(path, None) as connected:
        yield connected


async def test_a_message_that_makes_the_service_raise_is_answered_and_the_link_goes_on(
    gateway: Gateway, service: BrokenService
) -> None:
    async with asyncio.timeout(10):
        await gateway.submit("a")
        await gateway.send(Cancel(request_id="b"))
        await gateway.send(HandOver(request_id="c"))
        await gateway.send(SetPace(request_id="d", pace=Pace(tau_s=0.1)))
        await gateway.send(MeetPeer(peer=PEER))
        await gateway.wait(lambda: "f" in gateway.met)
        await gateway.send(SetPolicy(policy="rr"))
        await gateway.wait(lambda: "rr" in gateway.policies)
        await gateway.wait(lambda: len(gateway.heartbeats) > 1)
    assert {answer.code for answer in gateway.rejected.values()} == {"internal_error"}
    assert set(gateway.rejected) == {"a", "b", "c"}
    assert (service.paces, gateway.met["f"].error) == (["d"], "RuntimeError")
    assert gateway.policies["rr"].error == "RuntimeError"


async def test_what_cannot_be_sent_ends_one_request(
    gateway: Gateway, service: BrokenService
) -> None:
    connected = service.one
    outbox = connected.outbox
    good = TokenRun(request_id="a", position=0, token_ids=(1,), texts=("x",))
    bad = TokenRun(request_id="b", position=0, token_ids=(1,), texts=(HALF,))
    last = TokenRun(
        request_id="c", position=0, token_ids=(1,), texts=(HALF,), finish=Finish(reason="stop")
    )
    async with asyncio.timeout(10):
        outbox.put(Rejected(request_id="x", code="c", message=HALF))
        outbox.put(PeerMet(engine_id="f", error=HALF))
        outbox.put(PolicySet(policy="rr", error=HALF))
        outbox.put_step((bad,), STATS)
        connected.wake()
        await gateway.wait(lambda: {"x", "b"} <= set(gateway.rejected))
        assert gateway.met["f"].error
        assert gateway.policies["rr"].error
        for request_id in "ac":
            accepted = Accepted(request_id=request_id, prompt_tokens=1, reasoning=True)
            gateway.accepted[request_id] = accepted
            gateway._known[request_id] = 0
        outbox.put_step((good, last), STATS)
        connected.wake()
        await gateway.started("a")
        ended = await gateway.finished("c")
        assert ended.finish is not None
        assert ended.finish.reason == "error"


@pytest.mark.parametrize("greeted", [False, True])
async def test_a_frame_that_is_too_deep_closes_its_connection_and_not_the_worker(
    tmp_path: Path, service: BrokenService, greeted: bool
) -> None:
    path = tmp_path / "w.sock"
    hello = encode(Hello(protocol=PROTOCOL, gateway="test"))
    link = Link(service, WELCOME, None, 10.0)  # type: ignore[arg-type]
    async with listening(f"unix:{path}", link), asyncio.timeout(10):
        async with unix_connect(str(path), compression=None) as socket:
            if greeted:
                await socket.send(hello)
                await socket.recv()
            await socket.send(hello[:-1] + b',"x":' + b"[" * 100_000)
            await socket.wait_closed()
            assert socket.close_code == CloseCode.INVALID_DATA
        async with Gateway(path, None):
            pass  # it welcomes the next


async def test_a_gateway_that_connects_again_replaces_its_earlier_connection(
    gateway: Gateway, service: BrokenService, tmp_path: Path
) -> None:
    first = service.one
    async with asyncio.timeout(10), Gateway(tmp_path / "w.sock", None) as again:
        await gateway.closed()
        assert service.one is not first
        await again.wait(lambda: len(again.heartbeats) > 1)
    assert gateway.close_code == CloseCode.SERVICE_RESTART


async def test_a_gateway_that_is_cut_gets_the_reason(
    gateway: Gateway, service: BrokenService
) -> None:
    service.one.cut("too slow")
    async with asyncio.timeout(10):
        await gateway.closed()
        await service.left.wait()
    assert gateway.close_code == CloseCode.TRY_AGAIN_LATER
    assert list(service.gateways) == []


async def test_only_so_many_gateways_are_served(
    tmp_path: Path, service: BrokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.link.MOST_GATEWAYS", 2)
    path = tmp_path / "w.sock"
    link = Link(service, WELCOME, None, 10.0)  # type: ignore[arg-type]
    async with listening(f"unix:{path}", link), AsyncExitStack() as stack, asyncio.timeout(10):
        for name in ("one", "two"):
            await stack.enter_async_context(Gateway(path, None, name=name))
        async with unix_connect(str(path), compression=None) as socket:
            await socket.send(encode(Hello(protocol=PROTOCOL, gateway="three")))
            await socket.wait_closed()
            assert socket.close_code == CloseCode.TRY_AGAIN_LATER
        async with Gateway(path, None, name="one"):  # it is one of them
            assert len(list(service.gateways)) == 2


def test_an_address_that_is_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            WorkerError, match=f"cannot listen on 127.0.0.1:{port}: Address already"
        ):
            check_free(f"tcp://127.0.0.1:{port}")
    check_free(f"tcp://127.0.0.1:{port}")
    path = tmp_path / "w.sock"
    check_free(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        with pytest.raises(WorkerError, match=f"another process listens on {path}"):
            check_free(f"unix:{path}")
    check_free(f"unix:{path}")  # the file alone is no process
    with pytest.raises(WorkerError, match="at most 107 bytes"):
        check_free(f"unix:{tmp_path}/{'x' * 107}")
    with pytest.raises(WorkerError, match="does not exist"):
        check_free(f"unix:{tmp_path}/none/w.sock")
