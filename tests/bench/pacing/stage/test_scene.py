"""The real gateway between scripted workers and readers that only count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from bench.pacing.stage.frames import (
    ANSWER,
    ANSWER_TEXT,
    THINK,
    THOUGHT_TEXT,
    TRANSPORTS,
    Transport,
    marks_per_token,
    on_the_wire,
)
from bench.pacing.stage.machine import Cores, Usage, allow_streams, rss_bytes
from bench.pacing.stage.scene import Gateway, Scene, gateway_scene
from bench.pacing.stage.talk import Helper
from bench.reporting.errors import BenchmarkError


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    with gateway_scene(Cores(None, None), 16) as running:
        yield running


@pytest.fixture(scope="module")
def bare() -> Iterator[tuple[Helper, Helper, int]]:
    """The bare server, readers, and the server's port."""
    with (
        Helper("the bare server", "bench.pacing.stage.bare_server") as server,
        Helper("the readers", "bench.pacing.stage.readers") as readers,
    ):
        yield server, readers, server.ask("start")


def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def drive(stage: Scene, roles: list[str]) -> int:
    """A few steps; :return: the number of tokens that readers should get."""
    sent = stage.workers.ask("drive", roles=roles, batch=2, period_s=0.02, lead=2, seconds=0.1)
    return int(sent["tokens"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_readers_count_every_token_once(stage: Scene, transport: Transport) -> None:
    roles = [THINK, ANSWER, ANSWER]
    pace = {"tpot_s": 0.001}
    stage.readers.ask("open", port=stage.port, transport=transport, roles=roles, pace=pace)
    wanted = drive(stage, [THINK, ANSWER]) - 2  # without the two ends of thinking
    until(lambda: stage.readers.ask("count")["tokens"] >= wanted)
    count = stage.readers.ask("count")
    assert (count["tokens"], count["lost"]) == (wanted, 0)
    samples = stage.readers.ask("samples")
    assert set(samples) == {THINK, ANSWER}
    stage.readers.ask("close")
    stage.workers.ask("forget")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("how", ["send", "write"])
def test_the_bare_server_sends_the_same_frames_either_way(
    bare: tuple[Helper, Helper, int], transport: Transport, how: str
) -> None:
    server, readers, port = bare
    readers.ask("open", port=port, transport=transport, roles=[THINK, ANSWER])
    thought = THOUGHT_TEXT * marks_per_token(transport, THINK)
    payloads = {THINK: "x" * 150 + thought, ANSWER: "x" * 200 + ANSWER_TEXT}
    before = readers.ask("count")
    sent = server.ask(
        "release", how=how, transport=transport, payloads=payloads, seconds=0.1, period_s=0.01
    )
    assert sent == 20  # ten periods of two streams
    wanted_bytes = sum(len(on_the_wire(transport, text.encode())) for text in payloads.values())
    until(lambda: readers.ask("count")["bytes"] - before["bytes"] == 10 * wanted_bytes)
    assert readers.ask("samples") == payloads
    readers.ask("close")


def test_a_refused_stream_is_an_error_with_the_servers_words(stage: Scene) -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)refused.*tpot_s"):
        stage.readers.ask(
            "open", port=stage.port, transport="ws", roles=[ANSWER], pace={"tpot_s": -1}
        )
    stage.readers.ask("close")


def test_requests_that_nobody_made_are_an_error(stage: Scene) -> None:
    with pytest.raises(BenchmarkError, match="no request has one of the roles nobody"):
        drive(stage, ["nobody"])


def test_the_kernel_tells_cpu_time_and_memory(stage: Scene) -> None:
    before = Usage.of(stage.server.pid)
    assert isinstance(stage.server, Gateway)
    stage.server.get("/metrics")
    after = Usage.of(stage.server.pid)
    assert after.cpu_s > before.cpu_s
    assert 0 < after.share_since(before) < 2
    assert rss_bytes(stage.server.pid) > 10_000_000


def test_too_many_streams_are_refused_with_the_limit() -> None:
    with pytest.raises(BenchmarkError, match=r"--streams"):
        allow_streams(2**40)
