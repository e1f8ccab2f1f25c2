"""The reasons why a run fails, and its printout."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from tests.soak.clients.stream import Tally
from tests.soak.growth.observations import Observations, Values
from tests.soak.growth.report import Report, judge_all, show, write
from tests.soak.run import differences, errors_of

STEADY: Values = {"gateway rss": 1e8, "gateway fds": 50, "pascal_sessions": 100}


def report_of(growing: str | None, per_sample: float = 1.0) -> Report:
    """A report of 100 samples, one per 5 s, with 10 responses each; one series may grow."""
    observations = Observations()
    for number in range(100):
        sample = STEADY | {"pascal_responses_total": 10.0 * number}
        if growing is not None:
            sample[growing] += per_sample * number
        observations.add(5.0 * number, sample)
    report = Report(Tally(), observations, warm_up_s=100.0)
    judge_all(report, set())
    return report


def test_a_steady_run_passes() -> None:
    assert report_of(None).failures == []


def test_a_series_that_grows_is_named_with_its_slopes() -> None:
    report = report_of("pascal_sessions")
    assert report.failures == ["sessions grows by +720 per hour"]
    assert report.per_1000["sessions"] == 100  # 1 in 10 responses


def test_growth_during_the_warm_up_does_not_count() -> None:
    observations = Observations()
    for number in range(100):
        observations.add(5.0 * number, STEADY | {"gateway fds": 50.0 + min(number, 20) * 10})
    report = Report(Tally(), observations, warm_up_s=100.0)
    judge_all(report, set())
    assert report.failures == []


def test_missing_metrics_and_killed_workers_are_named_and_not_judged() -> None:
    observations = Observations()
    for number in range(30):
        observations.add(float(number), STEADY | {"worker-1 rss": 1e8 + 1e6 * number})
    report = Report(Tally(), observations, warm_up_s=0.0)
    judge_all(report, {"worker-1"})
    assert report.not_judged["tasks"] == "not exported: pascal_asyncio_tasks"
    assert "started again" in report.not_judged["worker-1 rss"]
    assert report.failures == []


def test_everything_is_shown_and_written(tmp_path: Path) -> None:
    report = report_of("gateway fds")
    report.tally.wrong("a reader waits")
    report.left_behind = ["pascal_sessions 3"]
    output = io.StringIO()
    show(report, Console(file=output, width=200))
    text = output.getvalue()
    for line in (
        "FAILED: gateway fds grows by +720 per hour",
        "FAILED: left behind: pascal_sessions 3",
        "FAILED: 1 broken promises to readers",
        "a reader waits",
        "not judged: tasks: not exported: pascal_asyncio_tasks",
        "soak: failed",
    ):
        assert line in text
    write(report, tmp_path / "soak.json")
    document = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
    assert document["passed"] is False
    assert len(document["series"]["gateway fds"]) == 100


def test_more_than_before_is_left_behind() -> None:
    before = {"gateway fds": 20.0, "pascal_asyncio_tasks": 9.0, "pascal_sessions": 0.0}
    assert differences(before, before) == []
    after = {"gateway fds": 21.0, "pascal_asyncio_tasks": 9.0, "pascal_kv_blocks_used": 4.0}
    assert differences(before, after) == ["pascal_kv_blocks_used 4", "gateway fds 21, 20 before"]


def test_errors_in_a_log_are_counted_and_malformed_requests_are_not() -> None:
    error = json.dumps({"level": "error", "event": "event_failed"})
    bad_body = {"level": "error", "event": "Unhandled exception", "kind": "RequestPayloadError"}
    lines = [
        "Ready after 3 s.",
        json.dumps({"level": "warning", "event": "request_refused"}),
        json.dumps({"level": "error", "event": "event_failed", "timestamp": "2026-01-01"}),
        error,
        json.dumps(bad_body),
        json.dumps({"level": "error", "event": "worker_failed", "reason": "was killed by SIGKILL"}),
        "Error handling request from 127.0.0.1",
        "Traceback (most recent call last):",
        '  File "web_protocol.py", line 446, in data_received',
        "aiohttp.http_exceptions.BadHttpMessage: 400, message:",
        "Task exception was never retrieved",
        "Traceback (most recent call last):",
        '  File "service.py", line 1, in _drop',
        "KeyError: 'resp_1'",
    ]
    assert errors_of("\n".join(lines)) == [(error, 2), ("KeyError: 'resp_1'", 1)]
