"""Named workloads: means, ratios and bursts against their sources."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from itertools import islice, pairwise, takewhile
from math import inf, nan
from pathlib import Path

import pytest

from bench.workloads.arrivals import Arrival, gamma, poisson
from bench.workloads.describe import describe, main
from bench.workloads.distributions import Distribution, Quantiles
from bench.workloads.lengths import ARENA_HARD, Lengths, SharedLengths
from bench.workloads.named import NAMES, Workload, WorkloadError, named, of_trace, workload_of
from bench.workloads.servegen import deepseek_r1

TRACE = [Arrival(2.0 * turn, Lengths(10 + turn, 20, 30)) for turn in range(50)]


def drawn(name: str, count: int = 30_000) -> list[Lengths]:
    rng = random.Random(11)
    lengths = named(name).lengths
    return [lengths.draw(rng) for _ in range(count)]


def means(found: list[Lengths]) -> tuple[float, float, float]:
    return (
        statistics.fmean(lengths.prompt for lengths in found),
        statistics.fmean(lengths.reasoning for lengths in found),
        statistics.fmean(lengths.answer for lengths in found),
    )


@pytest.mark.parametrize(
    ("name", "prompt", "reasoning", "answer"),
    [
        # The paper's means; prompts of the benchmarks' own questions.
        ("alpacaeval", 35.9, 558, 566),
        ("arena-hard", 98.5, 950, 824),
    ],
)
def test_means_of_the_paper(name: str, prompt: float, reasoning: float, answer: float) -> None:
    found = means(drawn(name))
    assert found[0] == pytest.approx(prompt, rel=0.07)
    assert found[1:] == pytest.approx((reasoning, answer), rel=0.025)


def test_reasoning_heavy_is_half_arena_hard_and_half_hard_problems() -> None:
    """Arena-Hard's ratio of reasoning to answer exceeds 4 for one request in 25 of its own."""
    found = drawn("reasoning-heavy")
    heavy = [of for of in found if of.answer > 16 and of.reasoning / of.answer >= 3.9]
    arena = drawn("arena-hard")
    also = sum(of.reasoning / of.answer >= 3.9 for of in arena) / len(arena)
    assert len(heavy) / len(found) == pytest.approx(0.5 + 0.5 * also, abs=0.02)
    expected = 0.5 * 950 + 0.25 * 2200 + 0.25 * 6000 * 0.98  # cut off at 15000 tokens
    assert means(found)[1] == pytest.approx(expected, rel=0.03)


def mean_of(law: Distribution) -> float:
    assert isinstance(law, Quantiles)
    return sum(
        (high - low) * (a + b) / 2
        for (low, a), (high, b) in pairwise(zip(law.shares, law.values, strict=True))
    )


def mean_over_clients(mean: Callable[[SharedLengths], float]) -> float:
    """Exact means over all requests, without random numbers."""
    total = requests = 0.0
    for client in deepseek_r1().clients:
        for window in client.windows:
            assert isinstance(window.lengths, SharedLengths)
            total += window.rate * mean(window.lengths)
            requests += window.rate
    return total / requests


def test_servegen_r1_has_the_means_that_were_published() -> None:
    """Expected are the means of the published distributions, weighted by the published rates."""
    prompt = mean_over_clients(lambda of: mean_of(of.prompt))
    reasoning = mean_over_clients(lambda of: mean_of(of.output) * mean_of(of.share))
    answer = mean_over_clients(lambda of: mean_of(of.output) * (1 - mean_of(of.share)))
    assert (prompt, reasoning, answer) == pytest.approx((691.8, 562.0, 234.6), rel=0.03)
    # Prompts have a long tail: this many requests do not show their mean.
    assert means(drawn("servegen-r1"))[1:] == pytest.approx((reasoning, answer), rel=0.04)


def test_servegen_r1_comes_in_bursts() -> None:
    """An independent sample of these windows has a CV of 1.27 and a dispersion of 5.8 in 10 s."""
    found = describe(until(named("servegen-r1"), 1200.0))
    assert found.rate == pytest.approx(39.4, rel=0.04)
    assert found.gap_cv == pytest.approx(1.25, abs=0.06)
    dispersion = found.dispersion[10.0]
    assert dispersion is not None
    assert dispersion > 3.5
    assert 25 <= found.clients <= 28  # some send hardly anything
    slower = describe(until(named("servegen-r1"), 2400.0, rate=4.0))
    assert slower.rate == pytest.approx(4.0, rel=0.1)
    assert slower.gap_cv is not None
    assert slower.gap_cv > 1.15


def test_servegen_r1_s_clients_differ_in_their_shares_of_reasoning() -> None:
    by_client: dict[str | None, list[float]] = {}
    for arrival in islice(named("servegen-r1").arrivals(None, 2), 20_000):
        of = arrival.lengths
        by_client.setdefault(arrival.client, []).append(of.reasoning / (of.reasoning + of.answer))
    shares = [statistics.fmean(found) for found in by_client.values() if len(found) > 100]
    assert max(shares) - min(shares) > 0.3
    every = [share for found in by_client.values() for share in found]
    assert statistics.fmean(every) == pytest.approx(0.71, abs=0.03)  # of the published sample


def test_azure_conv_has_the_trace_s_means_and_r1_s_share() -> None:
    found = drawn("azure-conv")
    prompt, reasoning, answer = means(found)
    assert prompt == pytest.approx(1154.7, rel=0.02)
    assert reasoning + answer == pytest.approx(211.1, rel=0.02)
    assert reasoning / (reasoning + answer) == pytest.approx(0.70, abs=0.02)


def until(workload: Workload, end_s: float, rate: float | None = None) -> list[Arrival]:
    return list(takewhile(lambda a: a.at_s < end_s, workload.arrivals(rate, 1)))


@pytest.mark.parametrize("name", NAMES)
def test_every_name(name: str) -> None:
    workload = named(name)
    assert workload.name == name
    assert not workload.finite
    assert workload.description
    first, again = (list(islice(workload.arrivals(8.0, "a"), 4000)) for _ in range(2))
    assert first == again
    assert first != list(islice(workload.arrivals(8.0, "b"), 4000))
    assert len(first) / first[-1].at_s == pytest.approx(8.0, rel=0.12)
    for arrival in first:
        of = arrival.lengths
        assert min(of.prompt, of.reasoning, of.answer + of.call) >= 1
        assert of.reasoning + of.answer <= workload.lengths.longest_output
    at_once = list(islice(workload.arrivals(inf, 0), 50))
    assert {arrival.at_s for arrival in at_once} == {0.0}


def test_arena_hard_is_what_results_were_measured_with() -> None:
    found = named("arena-hard").arrivals(4.4, 3)
    assert list(islice(found, 100)) == list(islice(poisson(4.4, ARENA_HARD, 3), 100))
    bursts = named("arena-hard").arrivals(4.4, 3, burstiness=0.3)
    assert list(islice(bursts, 100)) == list(islice(gamma(4.4, 0.3, ARENA_HARD, 3), 100))


def test_a_trace_as_a_workload() -> None:
    workload = of_trace("mine", TRACE, "of a file")
    assert workload.finite
    assert workload.rate == pytest.approx(0.5)
    assert list(workload.arrivals(None, 0)) == TRACE
    fast = list(workload.arrivals(5.0, 0))
    assert [a.at_s for a in fast] == pytest.approx([a.at_s / 10 for a in TRACE])
    assert next(workload.arrivals(5.0, 1)).lengths != TRACE[0].lengths
    rng = random.Random(0)
    assert {workload.lengths.draw(rng) for _ in range(1000)} == {a.lengths for a in TRACE}
    assert workload.lengths.longest_output == 50


@pytest.mark.parametrize(
    ("workload", "rate", "burstiness", "message"),
    [
        (named("alpacaeval"), None, 1.0, "alpacaeval has no rate of its own"),
        (named("alpacaeval"), 0.0, 1.0, "rate 0 is not 1e-09 per second or more"),
        (named("servegen-r1"), nan, 1.0, "rate nan is not 1e-09 per second"),
        (named("alpacaeval"), 1.0, 0.0, "burstiness 0 is not 0.001 or more"),
        (named("servegen-r1"), 1.0, 0.5, "servegen-r1 has bursts of its own: burstiness 0.5"),
        (of_trace("t", TRACE, ""), 1.0, 2.0, "t has bursts of its own"),
        (of_trace("t", TRACE[:1] * 3, ""), 1.0, 1.0, "t: all requests of the trace come at once"),
    ],
)
def test_what_cannot_be_had_is_said_at_once(
    workload: Workload, rate: float | None, burstiness: float, message: str
) -> None:
    with pytest.raises(WorkloadError, match=message):
        workload.arrivals(rate, 0, burstiness=burstiness)


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"'arenahard'; did you mean arena-hard\?"):
        named("arenahard")
    with pytest.raises(WorkloadError, match=r"'zzz'; known are alpaca.*; and no file has"):
        workload_of("zzz")
    with pytest.raises(WorkloadError, match="t has no requests"):
        of_trace("t", [], "")
    assert workload_of("azure-conv").name == "azure-conv"


def test_files_as_workloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trace = tmp_path / "some.csv"
    trace.write_text("t_s,prompt_tokens,output_tokens\n0,5,50\n1,5,0\n2,6,60\n")
    workload = workload_of("some.csv", split="4:1")
    assert "2 requests of some.csv (plain), outputs split by 4:1, 1 without" in workload.description
    assert [a.lengths for a in workload.trace] == [Lengths(5, 40, 10), Lengths(6, 48, 12)]
    table = tmp_path / "clients.csv"
    table.write_text("client,window_start_s,rate_rps,family,shape\n7,0,2.5,Gamma,0.5\n")
    clients = workload_of("clients.csv")
    assert clients.rate == 2.5
    assert {a.client for a in islice(clients.arrivals(None, 0), 20)} == {"7"}
    # A name is a name, whatever files there are.
    (tmp_path / "arena-hard").write_text("")
    assert workload_of("arena-hard").lengths is ARENA_HARD


def test_figures() -> None:
    found = describe(TRACE)
    assert (found.requests, found.span_s, found.clients) == (50, 98.0, 0)
    assert found.rate == pytest.approx(0.5)
    assert found.gap_cv == 0
    assert found.dispersion == {1.0: pytest.approx(0.5), 10.0: 0.0}
    prompt = found.lengths["prompt"]
    assert (prompt.mean, prompt.least, prompt.most) == (34.5, 10, 59)
    assert prompt.quantiles == pytest.approx((10.49, 14.9, 34.5, 54.1, 56.55, 58.51))
    assert found.lengths["output"].mean == 50
    alone = describe(TRACE[:1])
    assert (alone.rate, alone.gap_cv, alone.dispersion) == (None, None, {1.0: None, 10.0: None})
    with pytest.raises(ValueError, match="no requests"):
        describe([])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arena-hard", "--rate", "4", "--count", "500", "--seed", "2"]) == 0
    printed = capsys.readouterr().out
    assert "500 requests over" in printed
    assert "reasoning" in printed
    trace = tmp_path / "trace.csv"
    trace.write_text("t_s,prompt_tokens,reasoning_tokens,answer_tokens\n0,1,2,3\n4,5,6,7\n")
    assert main([str(trace)]) == 0
    assert "2 requests over 4.0 s, 0.25 per second" in capsys.readouterr().out
    assert main(["arena-hard", "--rate", "1e-9", "--count", "20", "--burstiness", "0.001"]) == 0
    capsys.readouterr()
    assert main(["servegen-r1", "--between", "79200-79800", "--count", "100"]) == 0
    assert "79200-79800 s" in capsys.readouterr().out
    for argv, message in (
        (["alpacaeva"], "did you mean alpacaeval?"),
        ([str(trace), "--format", "azure"], "trace.csv: is not a trace of format azure"),
        (["arena-hard", "--between", "0-60"], "--between: arena-hard has no clients"),
        (["servegen-r1", "--between", "0-60"], "--between: 0-60 is not part of 79200-80400 s"),
        (["servegen-r1", "--burstiness", "3"], "has bursts of its own"),
        (["alpacaeval", "--split", "x"], "unknown split 'x'"),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("workload: ")
        assert error.count("\n") == 1
        assert message in error
    for flag in (
        "--rate=0",
        "--rate=x",
        "--count=0",
        "--count=1.5",
        "--between=5",
        "--burstiness=nan",
    ):
        with pytest.raises(SystemExit) as caught:
            main(["arena-hard", flag])
        assert caught.value.code == 2
        assert f"argument {flag.split('=')[0]}: " in capsys.readouterr().err
