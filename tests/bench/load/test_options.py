from __future__ import annotations

import json

import pytest

from bench.load.options import OptionError
from tests.bench.support.flags import options


def test_defaults_are_an_open_loop_of_paced_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PASCAL_API_KEY", raising=False)
    defaults = options()
    assert defaults.ws_url == "ws://127.0.0.1:8080/v1/responses"
    assert (defaults.num_prompts, defaults.request_rate, defaults.burstiness) == (40, 2.0, 1.0)
    assert (defaults.max_concurrency, defaults.connections, defaults.api_key) == (None,) * 3
    assert (defaults.tpot_s, defaults.pacing, defaults.timeout_s) == (0.1, True, 120.0)
    assert defaults.percentile_metrics == ("ttft", "ttfat", "tpot", "itl", "e2el", "qoe")
    assert defaults.metric_percentiles == (50.0, 95.0, 99.0)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://h:1/", "ws://h:1/v1/responses"),
        ("https://h", "wss://h/v1/responses"),
        ("http://h:1/v1", "ws://h:1/v1/responses"),
        ("http://h/api", "ws://h/api/v1/responses"),
    ],
)
def test_the_websocket_url(given: str, url: str) -> None:
    assert options("--base-url", given).ws_url == url


def test_the_key_comes_from_flag_or_environment_and_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PASCAL_API_KEY", "from-environment")
    assert options().api_key == "from-environment"
    assert options("--api-key", "from-flag").api_key == "from-flag"
    recorded = json.dumps(options("--request-rate", "inf").config(), allow_nan=False)
    assert "from-environment" not in recorded
    assert '"request_rate": "inf"' in recorded


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("500ms", 0.5), ("2m", 120.0), ("7", 7.0), ("1.5s", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert options("--timeout", text).timeout_s == pytest.approx(seconds)


def test_runs_of_agents() -> None:
    chosen = options("--families=clock,chain", "--tool-time=1s-2s")
    assert (chosen.agents, chosen.forces_lengths) == (True, False)
    assert chosen.config()["tool_time"] == "1s-2s"
    assert chosen.percentile_metrics[-6:] == (
        "task", "to-answer", "model", "tools", "call", "turns",
    )  # fmt: skip
    assert options("--workload=agent").agents
    assert not options("--workload=arena-hard").agents
    assert not options("--families=sums").agents


def test_goodput_as_in_vllm() -> None:
    assert options("--goodput", "ttft:500", "qoe:0.95").goodput == {"ttft": 500.0, "qoe": 0.95}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num-prompts 0", "'0' is not a whole number from 1"),
        ("--num-prompts x", "'x' is not a whole number from 1"),
        ("--request-rate 0", "'0' is not a positive number"),
        ("--request-rate nan", "'nan' is not a positive number"),
        ("--burstiness=-1", "'-1' is not a positive number"),
        ("--tpot inf", "'inf' is not a finite number"),
        ("--timeout soon", "'soon' is not a duration"),
        ("--base-url localhost:80", "'localhost:80' is not of the form http://HOST:PORT"),
        ("--base-url http://me:secret@h", "pass a key with --api-key"),
        ("--percentile-metrics ttft,speed", "unknown metric 'speed'; known are ttft, ttfat"),
        ("--metric-percentiles 50,101", "'50,101' is not a list of percentiles"),
        ("--goodput itl:5", "'itl:5' does not begin with one of ttft"),
        ("--goodput ttft:fast", "'fast' is not a positive number"),
        ("--reasoning-len 5-", "'5-' is neither N, nor LOW-HIGH, nor MEAN:SD"),
        ("--reasoning-len 9-5", "'9-5' ends before it begins"),
        ("--answer-len 0", "'0' is below one token"),
        ("--turns 0", "'0' is below one turn"),
        ("--think-time soon", "'soon' is not a duration"),
        ("--num-warmups=-1", "'-1' is not a whole number from 1"),
        ("--api grpc", "invalid choice: 'grpc'"),
    ],
)
def test_a_bad_flag_is_named(flags: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options(*flags.split())
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {flags.split('=')[0].split()[0]}" in last
    assert message in last


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--reasoning-len 5", "--reasoning-len and --answer-len go together"),
        ("--answer-len 5", "--reasoning-len and --answer-len go together"),
        ("--prompt-file x --families sums", "--families has no effect on --prompt-file"),
        ("--timeout 0s", "--timeout must be above 0"),
        ("--workload arena-hard --trace x", "--workload and --trace both define the arrivals"),
        (
            "--workload arena-hard --reasoning-len 5 --answer-len 5",
            "--workload defines the lengths",
        ),
        ("--trace x --families addition", "--trace defines the length of prompts"),
        ("--trace x --burstiness 2", "--burstiness has no effect on --trace"),
        ("--trace x --turns 2", "--turns has no effect on --trace"),
        ("--trace-format azure", "--trace-format has no effect without --trace"),
        ("--trace-split none", "--trace-split has no effect without --trace"),
        ("--think-time 2s", "--think-time has no effect without --turns"),
        ("--connections 2 --api chat-sse", "it has no effect on --api chat-sse"),
        ("--no-extensions --reasoning-len 5 --answer-len 5", "--reasoning-len forces lengths"),
        ("--no-extensions --workload agent", "--workload forces lengths"),
        ("--workload agent --turns 3", "--turns has no effect on --workload agent"),
        ("--workload agent --tool-time 3s", ": --workload agent has times of its own"),
        ("--workload agent --families clock", "--workload defines the length of prompts"),
        ("--workload agent --answer-len 5 --reasoning-len 5", "--workload defines the lengths"),
        ("--families clock --turns 3", "--turns has no effect on --families clock"),
        ("--families clock,sums", "--families: clock need tools and sums do not: make two runs"),
        ("--families clock --reasoning-len 5 --answer-len 5", "--families clock is judged by"),
        ("--tool-time 3s", "--tool-time has no effect without --families that need tools"),
        ("--percentile-metrics ttft,task", "--percentile-metrics task has no effect without"),
    ],
)
def test_flags_that_do_not_fit_together(flags: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        options(*flags.split())
