from __future__ import annotations

import io

from rich.console import Console

from bench.load.measure import run_result
from bench.load.report.terminal import Progress, print_report
from tests.bench.support.flags import options
from tests.bench.support.results import four_results


def printed(*flags: str, loop_lag_s: tuple[float, ...] = ()) -> str:
    chosen = options(*flags)
    run = run_result(
        four_results(),
        loop_lag_s=loop_lag_s,
        percentiles=chosen.metric_percentiles,
        goodput=chosen.goodput,
    )
    out = io.StringIO()
    print_report(run, chosen, Console(file=out, width=80))
    return out.getvalue()


def test_the_report() -> None:
    lines = printed("--goodput", "ttft:700", "qoe:0.8").splitlines()
    assert lines[0] == "requests: 1 completed, 1 failed, 1 incomplete, 1 interrupted"
    assert lines[1] == "8.00 s; 60 tokens in, 27 out; 3.38 tokens/s, 0.25 requests/s"
    assert lines[2] == "goodput (ttft:700 qoe:0.8): 0.12 requests/s"
    rows = [line.split() for line in lines]
    assert ["mean", "p50", "p95", "p99"] in rows
    assert ["TTFT", "(ms)", "800.00", "800.00", "980.00", "996.00"] in rows
    assert ["TPOT", "(ms)", "100.00", "100.00", "100.00", "100.00"] in rows
    assert ["raw,", "of", "the", "engine", "10.00", "10.00", "10.00", "10.00"] in rows
    assert ["QoE", "0.6111", "0.8333", "0.9833", "0.9967"] in rows
    assert ["of", "the", "server", "0.9000", "0.9000", "0.9900", "0.9980"] in rows
    assert "QoE measured here and by the server differs by at most 0.0333" in lines
    assert "QoE below 0.95: 2 requests" in lines
    assert "incomplete (1): max_output_tokens" in lines
    assert "failed (1): response failed: no message" in lines


def test_rows_and_columns_are_chosen() -> None:
    text = printed("--percentile-metrics", "itl", "--metric-percentiles", "99.9")
    assert "p99.9" in text
    assert "p50" not in text
    assert "ITL (ms)" in text
    assert "TTFT" not in text


def test_a_late_generator_warns() -> None:
    # Every request of these results was turned to 250 ms late.
    assert "warning: this generator cannot keep up: it is late by more than 10 ms" in printed()


def test_nothing_measured_is_a_dash() -> None:
    out = io.StringIO()
    print_report(run_result([]), options(), Console(file=out))
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert ["TTFT", "(ms)", "-", "-", "-", "-"] in rows
    assert "warning" not in out.getvalue()


def test_progress_shows_on_a_terminal_only() -> None:
    for terminal in (True, False):
        out = io.StringIO()
        with Progress(Console(file=out, force_terminal=terminal, width=100), 2) as progress:
            progress.began()
            progress.began()
            progress.ended("failed")
        assert ("1/2" in out.getvalue() and "1 in flight, 1 failed" in out.getvalue()) is terminal
