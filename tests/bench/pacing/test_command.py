"""``pascal bench pacing``, with hardly any streams: every section runs and reports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.pacing import collection, held, memory, per_token
from pascal.main import main

TINY = held.Case(streams=8, spread_s=0.1, tokens=18)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extents of a second or two."""
    extents: dict[ModuleType, Any] = {
        per_token: per_token.Extent(
            streams=12,
            rounds=1,
            window_s=0.3,
            warm_s=0.2,
            transports=("ws",),
            all_cases=(),
        ),
        held: held.Extent(many=TINY, together=None),
        # More than what the warm-up leaves free, so that the memory grows.
        memory: memory.Extent(idle=160, responses=120, tokens=20, steady_s=0.05),
        collection: collection.Work(sessions=4, tokens=50),
    }
    for module, extent in extents.items():
        monkeypatch.setattr(module, "QUICK", extent)


def run(tmp_path: Path, *flags: str) -> dict[str, Any]:
    path = tmp_path / "results.json"
    assert main(["bench", "pacing", "--quick", "--json", str(path), *flags]) == 0
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def test_the_cost_of_a_token_beside_a_bare_send_and_a_bare_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run(tmp_path, "--only", "per_token,gc")
    costs = results["per_token_us"]["ws"]
    assert min(costs[case] for case in ("path", "prototype", "send", "write")) > 0
    assert costs["path_over_send"] == pytest.approx(costs["path"] / costs["send"])
    # 12 streams at 10 tokens/s each
    assert costs["tokens_s"] == pytest.approx(120, rel=0.5)
    assert results["gc"]["sessions"] == 4
    assert results["peers"] == {}
    printed = capsys.readouterr().out
    assert "path / send" in printed
    assert "Full garbage collection" in printed


def test_readers_are_held_and_the_prototype_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(tmp_path, "--only", "held", "--streams", "10")["held"]
    for side in (result, result["prototype"]):
        assert side["streams"] == 10
        assert side["tokens"] == 10 * TINY.tokens
        assert side["incomplete"] == 0
        assert sum(side["histogram_ms"].values()) == side["tokens"]
        assert 0 <= side["late_p99_ms"] <= side["late_max_ms"]
        assert 0 < side["cpu_share"] < 1.1
        assert 0 < side["qoe_min"] <= 1
    # The gateway's own count of releases; the first token of each stream is not late by a timer.
    assert sum(result["own_histogram_s"].values()) > 0
    assert "prototype" in capsys.readouterr().out


def test_memory_is_told_by_what_holds_it(tmp_path: Path) -> None:
    found = run(tmp_path, "--only", "memory")["memory"]
    for key in ("idle_stream_bytes", "finished_response_bytes"):
        assert found[key] > 0
    assert {"buffered_token_bytes", "kept_token_bytes"} <= found.keys()


def test_peers_come_from_their_own_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peers: Any = ModuleType("bench.pacing.peers")
    found = {"x": {"us_per_chunk": 12.5}, "y": {"error": "it is not there"}}
    peers.measure_peers = lambda quick, progress: found if quick else {}
    peers.table = lambda results: "a table of " + ", ".join(results)
    monkeypatch.setitem(sys.modules, "bench.pacing.peers", peers)
    results = run(tmp_path, "--only", "gc", "--peers")
    assert results["peers"] == found
    assert "a table of x, y" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--only", "speed"], "'speed' is not one of per_token, held, memory, gc"),
        (["--streams", "0"], "not a whole number above 0"),
    ],
)
def test_wrong_flags_are_refused(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "pacing", *flags])
    assert words in capsys.readouterr().err


def test_too_few_streams_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "pacing", "--streams", "2"]) == 2
    assert "at least 8" in capsys.readouterr().err
