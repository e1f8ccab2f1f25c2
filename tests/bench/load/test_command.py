"""Whole runs: in this process against a scripted server, and as a command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import pytest

from bench.load.command import main, plan_of, result_of
from bench.load.measure import run_result
from bench.load.plan import plan_requests, warmup_plan
from bench.load.runner import LoadRun
from tests.bench.support.flags import options
from tests.bench.support.scripted import Reply, ScriptedServer, good, stalls

ROOT = Path(__file__).parents[3]
AT_ONCE = ("--request-rate", "inf")
SLOW_READER = ("--tpot", "10")  # for whom nothing is late, however busy this machine is


async def figures(server: ScriptedServer, *flags: str) -> dict[str, Any]:
    chosen = options("--base-url", server.base_url, *flags)
    load = LoadRun(chosen, "scripted")
    await load.drive(plan_requests(chosen), warmup_plan(chosen))
    return result_of(load, chosen)


async def refuses(reply: Reply) -> None:
    await reply.send("error", status=429, error={"code": "overloaded", "message": "no room"})


async def drops(reply: Reply) -> None:
    await reply.begin()
    reply.socket.transport.abort()


async def test_a_run_of_sound_responses() -> None:
    async with ScriptedServer().running() as server:
        run = await figures(server, "--num-prompts=20", "--request-rate=200", *SLOW_READER)
    assert (run["completed"], run["failed"]) == (20, 0)
    assert run["output_tokens"] == 140
    assert run["qoe"]["p50"] == 1.0
    assert run["server_qoe"]["p50"] == 0.75
    assert run["qoe_client_server_max_diff"] == 0.25
    assert run["tpot_raw_s"]["p50"] == 0.02
    assert run["accuracy"] is not None
    for request in run["requests"]:
        assert request["lateness_s"] >= 0.0
        assert request["sent_s"] >= request["scheduled_s"]
        assert request["ttft_s"] <= request["e2e_s"]
        assert len(request["itl_s"]) == 2
    assert [len(body["input"]) for body in server.requests] == [1] * 20
    assert len({body["stream_id"] for body in server.requests}) == 20


async def test_failures_are_counted_with_their_reasons() -> None:
    scripts = (good, refuses, drops, refuses, good)
    async with ScriptedServer(*scripts).running() as server:
        run = await figures(server, "--num-prompts", "6", *AT_ONCE)
    assert (run["completed"], run["failed"]) == (3, 3)
    assert run["errors"]["error 429: overloaded: no room"] == 2
    assert sum(run["errors"].values()) == 3
    assert run["qoe"]["min"] == 0.0


async def test_after_a_lost_connection_later_requests_go_on() -> None:
    async with ScriptedServer(drops, good).running() as server:
        run = await figures(
            server, "--num-prompts=5", "--connections=1", "--max-concurrency=1", *AT_ONCE
        )
    assert (run["completed"], run["failed"]) == (4, 1)
    assert server.connections == 2


async def test_a_server_that_goes_away_fails_the_rest_with_a_reason() -> None:
    async def closes_the_shop(reply: Reply) -> None:
        reply.server.status = reply.server.status.SERVICE_UNAVAILABLE
        reply.socket.transport.abort()

    async with ScriptedServer(closes_the_shop).running() as server:
        run = await figures(server, "--num-prompts=3", "--max-concurrency=1", *AT_ONCE)
    assert run["failed"] == 3
    assert sum("refused with HTTP 503" in error for error in run["errors"]) == 1
    assert [request["sent_s"] is None for request in run["requests"]] == [False, True, True]


async def test_the_concurrency_is_bounded() -> None:
    running = most = 0

    async def counts(reply: Reply) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await reply.begin()
        await reply.received_by_client()  # lets others begin, if they may
        await reply.think()
        await reply.answer()
        running -= 1
        await reply.end()

    async with ScriptedServer(counts).running() as server:
        run = await figures(server, "--num-prompts=12", "--max-concurrency=3", *AT_ONCE)
    assert run["completed"] == 12
    assert most == 3
    assert server.most_open_connections == 3
    assert max(request["queued_s"] for request in run["requests"]) > 0


async def test_without_a_bound_the_loop_is_open() -> None:
    arrived = asyncio.Barrier(12)

    async def waits_for_all(reply: Reply) -> None:
        await arrived.wait()  # ends only if all twelve are in flight together
        await good(reply)

    async with ScriptedServer(waits_for_all).running() as server:
        run = await figures(server, "--num-prompts=12", *AT_ONCE)
    assert run["completed"] == 12
    assert server.most_open_connections == 12


async def test_shared_sockets_are_open_before_the_load() -> None:
    async with ScriptedServer().running() as server:
        run = await figures(server, "--num-prompts=1", "--connections=4", *AT_ONCE)
    assert run["completed"] == 1
    assert server.most_open_connections == server.connections == 4


async def test_sockets_are_shared_on_demand() -> None:
    arrived = asyncio.Barrier(12)

    async def waits_for_all(reply: Reply) -> None:
        await arrived.wait()
        await good(reply)

    async with ScriptedServer(waits_for_all).running() as server:
        run = await figures(server, "--num-prompts=12", "--connections=4", *AT_ONCE)
    assert run["completed"] == 12
    assert server.connections == 4


async def test_a_request_that_takes_too_long_is_cancelled() -> None:
    async with ScriptedServer(stalls).running() as server:
        run = await figures(server, "--num-prompts=1", "--timeout=1s", *AT_ONCE)
        reply = await server.stalled.get()
        assert await server.cancelled.get() == reply.id
    assert run["errors"] == {"timed out after 1 s": 1}


async def test_an_interrupted_run_keeps_what_it_has_and_cancels_the_rest() -> None:
    async with ScriptedServer(good, stalls).running() as server:
        chosen = options(
            "--base-url", server.base_url, "--num-prompts=9", "--max-concurrency=2", *AT_ONCE
        )
        load = LoadRun(chosen, "scripted")
        driving = asyncio.create_task(load.drive(plan_requests(chosen)))
        stalled = {(await server.stalled.get()).id for _ in range(2)}
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving
        assert {await server.cancelled.get() for _ in range(2)} == stalled
    run = run_result(load.results())
    assert (run["completed"], run["failed"], run["interrupted"]) == (1, 0, 8)
    assert server.open_connections == 0


async def test_forced_lengths_are_asked_for_and_checked() -> None:
    async with ScriptedServer().running() as server:
        lengths = ("--num-prompts=1", "--reasoning-len=4", *AT_ONCE)
        right = await figures(server, *lengths, "--answer-len=3")
        wrong = await figures(server, *lengths, "--answer-len=9")
    assert server.requests[0]["forced_lengths"] == {"reasoning_tokens": 4, "answer_tokens": 3}
    assert (right["completed"], right["accuracy"]) == (1, None)
    assert wrong["errors"] == {"lengths 4 + 3 tokens where 4 + 9 were forced": 1}


async def command(*flags: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load.command", *flags,
        stdout=PIPE, stderr=PIPE, cwd=ROOT, env={**os.environ, "PASCAL_API_KEY": "secret-key"},
    )  # fmt: skip


async def test_the_command_reports_and_saves(tmp_path: Path) -> None:
    async with ScriptedServer().running() as server:
        process = await command(
            "--base-url", server.base_url, "--num-prompts", "7", *AT_ONCE, *SLOW_READER,
            "--goodput", "qoe:0.99",
            "--metric-percentiles", "10,99", "--percentile-metrics", "ttft,tpot,qoe",
            "--ready-check-timeout", "5s",
            "--save-result", "--result-dir", str(tmp_path / "out"), "--result-filename", "r.json",
        )  # fmt: skip
        out, err = (text.decode() for text in await process.communicate())
    assert (process.returncode, err) == (0, "")
    assert server.requests[0]["model"] == "scripted"  # the first that the server lists
    assert set(server.authorization) == {"Bearer secret-key"}
    assert "requests: 7 completed, 0 failed, 0 incomplete, 0 interrupted" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["mean"] == ["mean", "p10", "p99"]
    assert rows["TTFT"][:2] == ["TTFT", "(ms)"]
    assert rows["QoE"][1:] != []
    assert "ITL" not in rows
    assert "E2E" not in rows
    assert "goodput (qoe:0.99):" in out
    assert "QoE measured here and by the server differs by at most 0.2500" in out
    saved_text = (tmp_path / "out" / "r.json").read_text()
    saved = json.loads(saved_text)
    assert "secret-key" not in saved_text
    assert (saved["completed"], saved["failed"], saved["model"]) == (7, 0, "scripted")
    for name in ("ttft_s", "ttfat_s", "tpot_s", "itl_s", "e2e_s", "qoe", "server_qoe"):
        assert {"mean", "p10", "p50", "p95", "p99"} <= set(saved[name])
    assert saved["config"]["num_prompts"] == 7
    assert len(saved["requests"]) == 7


async def test_the_command_fails_when_a_request_does() -> None:
    async with ScriptedServer(good, refuses).running() as server:
        process = await command("--base-url", server.base_url, "--num-prompts=3", *AT_ONCE)
        out, _ = (text.decode() for text in await process.communicate())
    assert process.returncode == 1
    assert "failed (2): error 429: overloaded: no room" in out


async def test_ctrl_c_reports_and_writes_what_was_measured(tmp_path: Path) -> None:
    async with ScriptedServer(good, stalls).running() as server:
        process = await command(
            "--base-url", server.base_url, "--num-prompts=3", *AT_ONCE,
            "--csv", str(tmp_path / "r.csv"), "--html", str(tmp_path / "r.html"),
            "--save-result", "--result-dir", str(tmp_path), "--result-filename", "r.json",
        )  # fmt: skip
        for _ in range(2):
            await server.stalled.get()
        process.send_signal(signal.SIGINT)
        out, err = (text.decode() for text in await process.communicate())
        assert server.cancelled.qsize() == 2
    assert (process.returncode, err) == (130, "")
    assert "requests: 1 completed, 0 failed, 0 incomplete, 2 interrupted" in out
    assert json.loads((tmp_path / "r.json").read_text())["interrupted"] == 2
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 4
    assert "</html>" in (tmp_path / "r.html").read_text()


async def test_lengths_are_not_forced_on_another_server() -> None:
    async with ScriptedServer().running() as server:
        server.owner = "somebody"
        lengths = ("--reasoning-len=4", "--answer-len=3")
        process = await command("--base-url", server.base_url, "--num-prompts=1", *lengths)
        _, err = (text.decode() for text in await process.communicate())
        assert process.returncode == 2
        assert "is not pascal-serve (its model is owned by 'somebody')" in err
        assert err.count("\n") == 1
        assert server.requests == []
        sent = await command("--base-url", server.base_url, "--num-prompts=1", *AT_ONCE)
        await sent.communicate()
    assert sent.returncode == 0
    assert "pacing" not in server.requests[0]


async def test_a_trace_is_replayed_with_prompts_of_about_its_lengths(tmp_path: Path) -> None:
    async def counts(reply: Reply) -> None:
        words = len(reply.body["input"][0]["content"].split())
        await reply.begin()
        await reply.think()
        await reply.answer()
        tokens = {"input_tokens": 9 + 2 * words, "output_tokens": 7}
        usage = tokens | {"output_tokens_details": {"reasoning_tokens": 4}}
        await reply.end(usage=usage)

    trace = tmp_path / "trace.csv"
    rows = ("t_s,prompt_tokens,reasoning_tokens,answer_tokens", "0,109,4,3", "0.2,1009,4,3")
    trace.write_text("\n".join(rows))
    async with ScriptedServer(counts).running() as server:
        chosen = options("--base-url", server.base_url, "--trace", str(trace), "--num-warmups=1")
        plan = plan_of(chosen)
        load = LoadRun(chosen, "scripted")
        await load.drive(plan.requests, plan.warmups)
        run = result_of(load, chosen)
    assert (run["completed"], run["failed"]) == (2, 0)
    assert [request["input_tokens"] for request in run["requests"]] == [109, 1009]
    assert [request["scheduled_s"] for request in run["requests"]] == pytest.approx([0.0, 0.2])
    assert len(server.requests) == 5  # two to learn from, a warm-up, the trace
    # The two probes begin alike.
    assert len({body["input"][0]["content"][:40] for body in server.requests}) == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--workload arena", "unknown workload 'arena'; did you mean arena-hard?"),
        ("--trace {tmp}", "{tmp}: has no reasoning lengths; choose a split"),
        ("--trace {tmp} --trace-split 4:1 --num-prompts 9", "--num-prompts 9: "),
    ],
)
def test_what_cannot_be_planned(
    flags: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("t_s,prompt_tokens,output_tokens\n0,5,5\n")
    assert main(flags.format(tmp=path).split()) == 2
    assert capsys.readouterr().err.startswith(f"pascal load: error: {message.format(tmp=path)}")


def test_a_workload_says_how_long_conversations_are() -> None:
    chosen = options("--workload=arena-hard", "--num-prompts=5", "--turns=2", "--request-rate=9")
    plan = plan_of(chosen)
    assert plan == plan_of(chosen)
    assert len(plan.requests) == 10
    lengths = {(p.prompt_tokens, p.forced) for p in plan.requests}
    assert len(lengths) == 10


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("--num-prompts none", 2, "argument --num-prompts: 'none' is not a whole number from 1"),
        ("--bogus 1", 2, "unrecognized arguments: --bogus"),
        ("--families astrology", 2, "unknown family 'astrology'; known are "),
        ("--prompt-file absent.txt", 2, "absent.txt: No such file or directory"),
        ("--save-result --result-dir /dev/null/x", 2, "--result-dir /dev/null/x/.write"),
        ("--answer-len 5", 2, "--reasoning-len and --answer-len go together"),
        ("--base-url http://127.0.0.1:9", 1, "http://127.0.0.1:9/v1/models: "),
        ("--base-url http://127.0.0.1:9 --model m", 1, "http://127.0.0.1:9/v1/models: "),
    ],
)
def test_what_cannot_be_done_is_one_line(
    flags: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        sys.exit(main(flags.split()))
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (code, "")
    assert err.startswith(f"pascal load: error: {message}")
    assert err.count("\n") == 1


def test_the_command_imports_neither_plots_nor_engines() -> None:
    code = (
        "import sys; from bench.load import command; "
        "print({'matplotlib', 'numpy', 'torch', 'vllm'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert ran.stdout == b"set()\n"
