"""The real gateway between scripted workers and readers that only count."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bench.pacing.frames import ANSWER, THINK, TRANSPORTS, Transport
from bench.pacing.machine import Cores, Usage, allow_streams, rss_bytes
from bench.pacing.processes import Scene, scene
from bench.reporting.errors import BenchmarkError


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    with scene(Cores(None, None), 16) as running:
        yield running


def drive(stage: Scene, roles: list[str]) -> int:
    """A few steps; :return: the number of tokens that readers should get."""
    sent = stage.workers.ask("drive", roles=roles, batch=2, period_s=0.02, lead=2, seconds=0.1)
    return int(sent["tokens"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_readers_count_every_token_once(stage: Scene, transport: Transport) -> None:
    roles = [THINK, ANSWER, ANSWER]
    pace = {"tpot_s": 0.001}
    stage.readers.ask("open", port=stage.gateway.port, transport=transport, roles=roles, pace=pace)
    wanted = drive(stage, [THINK, ANSWER]) - 2  # without the two ends of thinking
    deadline = time.monotonic() + 10
    while (count := stage.readers.ask("count"))["tokens"] < wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (count["tokens"], count["lost"]) == (wanted, 0)
    samples = stage.readers.ask("samples")
    assert set(samples) == {THINK, ANSWER}
    stage.readers.ask("close")
    stage.workers.ask("forget")


def test_a_refused_stream_is_an_error_with_the_servers_words(stage: Scene) -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)refused.*tpot_s"):
        stage.readers.ask(
            "open", port=stage.gateway.port, transport="ws", roles=[ANSWER], pace={"tpot_s": -1}
        )
    stage.readers.ask("close")


def test_requests_that_nobody_made_are_an_error(stage: Scene) -> None:
    with pytest.raises(BenchmarkError, match="no request has one of the roles nobody"):
        drive(stage, ["nobody"])


def test_the_kernel_tells_cpu_time_and_memory(stage: Scene) -> None:
    before = Usage.of(stage.gateway.pid)
    stage.gateway.get("/metrics")
    after = Usage.of(stage.gateway.pid)
    assert after.cpu_s > before.cpu_s
    assert 0 < after.share_since(before) < 2
    assert rss_bytes(stage.gateway.pid) > 10_000_000


def test_too_many_streams_are_refused_with_the_limit() -> None:
    with pytest.raises(BenchmarkError, match=r"--streams"):
        allow_streams(2**40)
