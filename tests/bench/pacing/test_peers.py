"""The peers' measurement, with the back end itself as a peer; the real ones need downloads."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bench.pacing import peer_backend, peer_install, peer_servers, peers
from bench.pacing.peer_backend import Backend, event, framed
from bench.pacing.peer_client import LoadFailed, Readers, ResponseParser
from bench.pacing.peer_servers import Peer, Place
from bench.pacing.peers import Window, measure_peers, short, summary

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Type: text/event-stream\r\n\r\n"
DONE = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def request_body(number: int) -> dict[str, object]:
    return {"model": peer_backend.MODEL, "messages": [{"role": "user", "content": str(number)}]}


# ---- the parser


def test_events_are_counted_wherever_the_bytes_are_split() -> None:
    # A proxy may frame anew: here the second event lies in two parts, with a comment before it.
    text = b": a comment\n\n" + b'data: {"n":2}\r\n\r\n'
    body = event({"content": "data: "}) + framed(text[:20]) + framed(text[20:]) + DONE
    response = HEAD + body
    for first in range(len(response)):
        parser = ResponseParser()
        counts = [parser.feed(part) for part in (response[:first], response[first:])]
        assert (sum(counts), parser.ended) == (2, True), first
    parser = ResponseParser()
    assert sum(parser.feed(response[at : at + 1]) for at in range(len(response))) == 2
    assert parser.ended


def test_a_response_has_ended_only_with_its_last_byte() -> None:
    parser = ResponseParser()
    parser.feed((HEAD + DONE)[:-1])
    assert not parser.ended
    parser.feed(b"\n")
    assert parser.ended


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 429 Too Many\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n",
    ],
)
def test_what_is_no_stream_is_refused_with_its_text(head: bytes) -> None:
    with pytest.raises(LoadFailed, match="slow down"):
        ResponseParser().feed(head + b"slow down")


# ---- readers, back end and a proxy between them


@asynccontextmanager
async def serving(step_s: float) -> AsyncIterator[str]:
    server = await Backend(step_s).listen(0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def passing_on(url: str) -> AsyncIterator[str]:
    """A proxy that copies bytes."""
    port = int(url.rpartition(":")[2])
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        except OSError:
            pass  # the readers break their streams off
        finally:
            far_writer.close()
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_answer_of_the_back_end_is_a_chat_completion() -> None:
    async with serving(0.0001) as url, aiohttp.ClientSession() as session:
        body = {**request_body(0), "stream": True}
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            events = (await response.text()).split("\n\n")
        async with session.post(f"{url}/v1/chat/completions", json=request_body(0)) as response:
            assert response.status == 400  # it streams only
        async with session.get(f"{url}/v1/models") as response:
            assert (await response.json())["data"][0]["id"] == peer_backend.MODEL
    assert events[-2:] == ["data: [DONE]", ""]
    choices = [json.loads(one.removeprefix("data: "))["choices"][0] for one in events[:-2]]
    assert choices[0]["delta"]["role"] == "assistant"
    assert choices[-1]["finish_reason"] == "stop"
    assert 400 <= len(choices) - 2 <= 1200
    assert "".join(one["delta"]["content"] for one in choices[1:-1]).startswith("This text is ")


async def test_readers_count_what_a_proxy_passes_on_and_ask_again() -> None:
    numbers = set()

    def body(number: int) -> dict[str, object]:
        numbers.add(number)
        return request_body(number)

    async with serving(0.0005) as far, passing_on(far) as url, Readers(url, 4, body) as readers:
        await readers.all_begun(5.0)
        give_up_s = time.monotonic() + 20.0
        while len(numbers) < 6 and time.monotonic() < give_up_s:
            await readers.run(0.05)
        # Two answers of at least 400 chunks have ended, and each stream has its place in them.
        assert len(numbers) >= 6
        assert readers.chunks > 2 * 400


async def test_a_step_gives_each_stream_one_chunk() -> None:
    async with serving(0.02) as url, Readers(url, 8, request_body) as readers:
        await readers.all_begun(5.0)
        began_s, before = time.monotonic(), readers.chunks
        await readers.run(1.0)
        steps = (time.monotonic() - began_s) / 0.02
        # Late steps move those after them, so a busy machine can only lower the count.
        assert 8 <= readers.chunks - before <= 8 * (steps + 1)


async def test_a_server_that_closes_after_each_answer_is_asked_again() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream": true}')
        writer.write(HEAD + event({"content": "one"}) + DONE)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Readers(f"http://127.0.0.1:{port}", 2, request_body) as readers:
        give_up_s = time.monotonic() + 10.0
        while readers.chunks < 6 and time.monotonic() < give_up_s:
            await readers.run(0.01)
        assert readers.chunks >= 6


async def test_a_stream_that_breaks_off_is_a_failure() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream": true}')
        writer.write(HEAD + event({"content": "one"}))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Readers(f"http://127.0.0.1:{port}", 1, request_body) as readers:
        with pytest.raises(LoadFailed, match="broke off"):
            await readers.run(1.0)


# ---- processor time


def test_the_time_of_a_process_tree_is_that_of_its_processes() -> None:
    child = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    parent = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], stdin=sys.stdin)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = peer_servers.tree(process.pid)
        assert len(pids) == 2
        assert pids[0] == process.pid
        assert peer_servers.processor_s(pids) >= 0.29
        assert peer_servers.processor_s(pids[:1]) < peer_servers.processor_s(pids)
        core = min(os.sched_getaffinity(0))
        peer_servers.pin(pids[1], core)
        assert os.sched_getaffinity(pids[1]) == {core}
        process.communicate(b"\n")
    assert peer_servers.processor_s(pids) == 0.0


# ---- results


def test_a_result_is_the_median_of_the_turns() -> None:
    windows = [Window(10.0, 1000, own_s, 1.0) for own_s in (0.1, 0.3, 0.2)]
    result = summary(windows, "1.2")
    assert result["us_per_chunk"] == pytest.approx(200.0)
    assert result["us_per_chunk_least"] == pytest.approx(100.0)
    assert result["us_per_chunk_most"] == pytest.approx(300.0)
    assert (result["chunks"], result["chunks_s"], result["version"]) == (3000, 100.0, "1.2")
    assert result["own_busy"] == pytest.approx(0.02)
    assert "warning" not in result


def test_a_result_says_which_core_was_used_up() -> None:
    by_readers = summary([Window(10.0, 1000, 1.0, 9.5)], "1")
    by_peer = summary([Window(10.0, 1000, 9.5, 1.0)], "1")
    assert "readers" in str(by_readers["warning"])
    assert "late" in str(by_peer["warning"])


def test_a_reason_is_shown_by_its_first_and_last_line() -> None:
    assert short("it failed") == "it failed"
    assert short("it ended: a\n  trace\nthe reason\n") == "it ended: a ... the reason"


# ---- environments


def test_a_finished_environment_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = peer_install.cache_folder() / "peer"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "pascal-peer.txt").write_text(peer_install.stamp("peer==1"), encoding="utf-8")
    lines: list[str] = []
    assert peer_install.installed("peer", "peer==1", lines.append) == folder / "bin" / "python"
    assert not lines


def test_what_cannot_be_installed_has_a_reason_and_is_not_taken_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    missing = str(tmp_path / "missing.whl")
    folder = peer_install.cache_folder() / "peer"
    folder.mkdir(parents=True)
    (folder / "pascal-peer.txt").write_text(peer_install.stamp("an older one"), encoding="utf-8")
    lines: list[str] = []
    with pytest.raises(peer_install.InstallFailed, match=r"cannot install .*missing\.whl"):
        peer_install.installed("peer", missing, lines.append)
    assert len(lines) == 1
    assert not (folder / "pascal-peer.txt").exists()  # so the next call installs again


# ---- all of it


def _backend_as_peer(place: Place) -> list[str]:
    return ["-m", "bench.pacing.peer_backend", f"--port={place.port}", "--step-s=0.005"]


def _ends_at_once(place: Place) -> list[str]:
    return ["-c", "raise SystemExit('nothing works here')"]


def a_peer(name: str, command: object) -> Peer:
    return Peer(
        name=name,
        requirement="",
        distributions=("no-such-thing", "pascal-serve"),
        command=command,  # type: ignore[arg-type]
        ready="/health",
        step_s=1.0,
        request=request_body,
    )


def test_a_peer_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    others = set(peer_servers.tree(os.getpid()))  # servers of other tests

    def handler(number: int, frame: object) -> None:
        raise AssertionError("nobody sends it here")

    monkeypatch.setattr(peers, "_ROUNDS", 2)
    monkeypatch.setattr(peers, "_QUICK_ROUND_S", 0.4)
    monkeypatch.setattr(peers, "_SETTLE_S", 0.1)
    monkeypatch.setitem(peer_servers.PEERS, "broken", a_peer("broken", _ends_at_once))
    monkeypatch.setitem(peer_servers.PEERS, "direct", a_peer("direct", _backend_as_peer))
    cores = os.sched_getaffinity(0)
    lines: list[str] = []
    before = signal.signal(signal.SIGTERM, handler)
    try:
        results = measure_peers(True, only=("broken", "direct"), progress=lines.append)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(results) == ["broken", "direct"]
    assert "nothing works here" in str(results["broken"]["error"])
    direct = results["direct"]
    assert direct["streams"] == peer_servers.STREAMS
    assert float(direct["chunks"]) > 2 * peer_servers.STREAMS
    assert 0.0 < float(direct["us_per_chunk"]) < 1000.0
    assert direct["version"]
    assert os.sched_getaffinity(0) == cores
    assert any("round 2: direct" in line for line in lines)
    assert set(peer_servers.tree(os.getpid())) <= others, "a process was left"


def test_sigterm_ends_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    others = set(peer_servers.tree(os.getpid()))  # servers of other tests
    monkeypatch.setattr(peers, "_QUICK_ROUND_S", 60.0)
    monkeypatch.setattr(peers, "_SETTLE_S", 0.1)
    monkeypatch.setitem(peer_servers.PEERS, "direct", a_peer("direct", _backend_as_peer))
    # Far within the first turn; `measure_peers` handles the signal from its start on.
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))

    def start_timer(line: str) -> None:
        if line == "starting direct":
            timer.start()

    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        measure_peers(True, only=("direct",), progress=start_timer)
    assert time.monotonic() - began_s < 30.0
    assert set(peer_servers.tree(os.getpid())) <= others, "a process was left"


@pytest.mark.long
@pytest.mark.engine
@pytest.mark.timeout(1200)  # the first time, with the downloads
def test_all_peers_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    others = set(peer_servers.tree(os.getpid()))  # servers of other tests
    monkeypatch.setattr(peers, "_ROUNDS", 1)
    results = measure_peers(True)
    assert results.keys() == {"vllm", "vllm-router", "litellm", "pascal-serve"}
    for name, result in results.items():
        assert "error" not in result, (name, result)
        assert float(result["us_per_chunk"]) > 0.0
        assert result["version"]
    # Python costs more than Rust, and parsing every chunk more than passing it on.
    costs = {name: float(result["us_per_chunk"]) for name, result in results.items()}
    assert costs["vllm-router"] < costs["vllm"] < costs["litellm"], costs
    assert set(peer_servers.tree(os.getpid())) <= others, "a process was left"
