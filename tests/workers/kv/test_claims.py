"""Both ends of the side channel, and how the reading end uses the answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import zmq
from vllm.distributed.kv_transfer.kv_connector.v1.nixl import NixlPullConnectorWorker
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata import GET_META_MSG

from workers.kv import claims
from workers.kv.claims import ClaimClient, ClaimDesk
from workers.kv.pull import MigrationWorker, _fits
from workers.kv.tickets import TicketBook
from workers.messages import Endpoint

HOST = "127.0.0.1"


@pytest.fixture
def book() -> TicketBook:
    return TicketBook(100.0)


@pytest.fixture
def port(book: TicketBook) -> Iterator[int]:
    with serving(book) as port:
        yield port


@contextmanager
def serving(book: TicketBook) -> Iterator[int]:
    """Run a desk that answers claims; yield its port."""
    desk = ClaimDesk(HOST, book)
    stop = threading.Event()
    thread = threading.Thread(target=desk.serve, args=({(0, 0): b"who I am"}, stop))
    thread.start()
    try:
        yield desk.port
    finally:
        stop.set()
        thread.join()


def test_a_claim_is_answered_with_the_time_that_is_left(book: TicketBook, port: int) -> None:
    client = ClaimClient()
    client.greet(HOST, port)
    before = time.monotonic()
    book.give("t", 1, time.perf_counter() + 100.0)
    until = client.claim(HOST, port, "t", "b")
    assert until is not None
    # The reader counts from when it asked, so its end is never later than the holder's.
    assert before + 99.0 < until <= time.monotonic() + 100.0
    assert client.claim(HOST, port, "t", "c") is None
    assert client.claim(HOST, port, "unknown", "c") is None


class SlowWay(TicketBook):
    """Time passes between claim and answer, both before and after the answer is made."""

    def __init__(self) -> None:
        super().__init__(100.0)
        self.now_s = 1000.0

    def claim(self, ticket: str, reader: str, now: float) -> float | None:
        left_s = super().claim(ticket, reader, now + 20.0)
        self.now_s += 50.0
        return left_s


def test_a_claim_is_counted_from_the_question_however_late_the_answer_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = SlowWay()
    clock = SimpleNamespace(monotonic=lambda: way.now_s, perf_counter=lambda: way.now_s)
    monkeypatch.setattr(claims, "time", clock)
    way.give("t", 1, 1100.0)  # the memory is held until then, by this one clock
    with serving(way) as port:
        until = ClaimClient().claim(HOST, port, "t", "b")
    # 80 s were left when the answer was made. From the answer on they would end at 1130, when the
    # memory may already belong to another request.
    assert until == 1080.0


def test_the_handshake_of_vllm_goes_on_and_nonsense_does_no_harm(
    book: TicketBook, port: int
) -> None:
    channel: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    channel.connect(f"tcp://{HOST}:{port}")
    for message in (b"nonsense", msgspec.msgpack.encode((GET_META_MSG, 7, 7)), b""):
        channel.send_multipart([b"", message])
    book.give("t", 1, time.perf_counter() + 100.0)
    for claim in ((b"something", "t", "b"), (b"claim", "t", None), (b"claim", 1, "b")):
        channel.send_multipart([b"", msgspec.msgpack.encode(claim)])
    for parts in ([b"one"], [b"", b"two", b"three"]):
        channel.send_multipart(parts)
    for nonsense in (b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\x93\xc0\xc0\xc0"):
        # Nested too deeply, too short for its length, empty.
        channel.send_multipart([b"", nonsense])
    channel.send_multipart([b"", msgspec.msgpack.encode((GET_META_MSG, 0, 0))])
    _, answer, clock = channel.recv_multipart()
    assert answer == b"who I am"
    assert msgspec.msgpack.decode(clock) <= time.perf_counter()
    channel.close(0)
    assert ClaimClient().claim(HOST, port, "t", "c") is not None  # it is not claimed


def test_who_is_gone_or_hangs_is_left_alone_for_a_while() -> None:
    client = ClaimClient()
    with socket.create_server((HOST, 0)) as hanging:
        port = hanging.getsockname()[1]
        with pytest.raises(OSError, match="does not answer"):
            client.greet(HOST, port)
        with pytest.raises(OSError, match="did not answer lately"):
            client.greet(HOST, port)
    with pytest.raises(OSError, match=r"does not answer: .*refused"):
        ClaimClient().greet(HOST, port)


@pytest.mark.parametrize("answer", ["soon", b"\xc1", b"\x91" * 100_000, None])
def test_an_answer_that_makes_no_sense_is_none(answer: object) -> None:
    channel: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    channel.setsockopt(zmq.LINGER, 0)
    port = channel.bind_to_random_port(f"tcp://{HOST}")

    def serve() -> None:
        identity, _, _ = channel.recv_multipart()
        message = answer if isinstance(answer, bytes) else msgspec.msgpack.encode(answer)
        channel.send_multipart([identity, b"", message])

    thread = threading.Thread(target=serve)
    thread.start()
    client = ClaimClient()
    if answer is None:
        assert client.claim(HOST, port, "t", "b") is None
    else:
        with pytest.raises(OSError, match="does not answer"):
            client.claim(HOST, port, "t", "b")
        assert not client._sockets  # a new one for the next question
    thread.join()
    channel.close()


class FragileNixl:
    """NIXL whose peer is about to die."""

    def make_connection(self, agent: str) -> None:
        raise RuntimeError(f"NIXL_ERR_REMOTE_DISCONNECT: {agent}")


def reader(**parts: Any) -> Any:
    worker: Any = object.__new__(MigrationWorker)
    worker.engine_id = "e"
    worker._meetings = {}
    worker._remote_agents = {}
    worker._recving_metadata = {}
    worker._claims = SimpleNamespace(greet=lambda *_: None)
    worker._in_background = done
    worker.world_size = 1
    worker.nixl_wrapper = FragileNixl()
    vars(worker).update(parts)
    return worker


def done(work: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(work())
    return future


@pytest.mark.parametrize("when", ["handshake", "connection"])
def test_a_peer_that_dies_in_the_middle_of_meeting_is_an_answer(when: str) -> None:
    def handshake(*_: object) -> None:
        if when == "handshake":
            raise RuntimeError("NIXL_ERR_BACKEND")
        worker._remote_agents["f"] = {(0, 0): "agent"}

    worker = reader(_ensure_handshake=handshake)
    peer = Endpoint(engine_id="f", host=HOST, port=1)
    assert worker.meet(peer) is None
    answer = worker.meet(peer)
    expected = "NIXL_ERR_BACKEND" if when == "handshake" else "NIXL_ERR_REMOTE_DISCONNECT: agent"
    assert answer == f"RuntimeError: {expected}"
    assert worker._meetings == {}  # it can be asked for again


def test_a_read_that_cannot_begin_fails_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise KeyError("no handle for blocks of this size")

    monkeypatch.setattr(NixlPullConnectorWorker, "_read_blocks_for_req", read)
    failed: list[str] = []
    worker = reader(
        _until={"r": time.monotonic() + 100.0},
        _recv_failures=set(),
        _handle_failed_transfer=lambda request_id, *_: failed.append(request_id),
        _log_failure=lambda *_, **__: None,
    )
    worker._read_blocks_for_req("r", SimpleNamespace(remote=object()))
    assert failed == ["r"]


def test_a_message_of_a_peer_that_is_none_does_not_end_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def notifications(_: object) -> set[str]:
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr(NixlPullConnectorWorker, "_get_new_notifs", notifications)
    assert reader()._get_new_notifs() == set()


def test_what_arrives_when_the_memory_is_no_longer_held_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def arrived(_self: object, _transfers: object) -> tuple[set[str], set[str]]:
        return {"early", "late", "broken"}, {"broken"}

    monkeypatch.setattr(NixlPullConnectorWorker, "_pop_done_transfers", arrived)
    worker: Any = object.__new__(MigrationWorker)
    now = time.monotonic()
    worker._until = {"early": now + 100.0, "late": now - 0.001, "broken": now + 100.0}
    worker._recving_metadata = {}
    worker.engine_id = "e"
    assert worker._pop_done_transfers({}) == ({"early", "late", "broken"}, {"late", "broken"})


def test_blocks_that_do_not_pair_are_not_read() -> None:
    assert _fits(([1, 2],), ([3, 4],))
    assert _fits(([1], []), ([3, 4], []))
    assert not _fits(([1, 2],), ([3],))
    assert not _fits(([1], [2]), ([3],))
