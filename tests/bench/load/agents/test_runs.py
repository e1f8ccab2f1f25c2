"""Whole runs of agents: against scripted servers, and against real engines."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.load.agents.agent import Agent
from bench.load.agents.sized import TOOLS, SizedAgent
from bench.load.command import Plan, plan_of, result_of
from bench.load.report import agent_plots, compare
from bench.load.report.files import prepare_outputs, write_outputs
from bench.load.report.html import report_page
from bench.load.report.terminal import print_report
from bench.load.runner import LoadRun
from bench.load.transport.interface import ServerError
from bench.workloads.agents import AgentTask
from bench.workloads.lengths import Lengths, Round
from tests.bench.load.report.test_html import Page
from tests.bench.support.flags import options
from tests.bench.support.scripted import Reply, ScriptedServer, stalls
from tests.support.server import Server

SLOW_READER = ("--tpot", "10")  # for whom nothing is late, however busy this machine is
TWO_CALLS = (
    Round(Lengths(700, 6, 0, 30), 0.2),
    Round(Lengths(60, 5, 3, 25), 0.1),
    Round(Lengths(40, 4, 12), 0.0),
)


async def figures(agents: Sequence[Agent], base_url: str, *flags: str) -> dict[str, Any]:
    chosen = options("--base-url", base_url, "--workload=agent", *SLOW_READER, *flags)
    load = LoadRun(chosen, "tiny-reasoner")
    await load.drive((), agents=agents)
    head = {"date": "2026-02-11T10:00:00+00:00", "model": "m", "config": chosen.config()}
    sent = {"turns_not_sent": load.turns_not_sent}
    return head | sent | result_of(load, chosen, agents)


def tasks(number: int = 1, rounds: tuple[Round, ...] = TWO_CALLS) -> list[SizedAgent]:
    indices = count()
    return [SizedAgent(n, AgentTask(0.0, rounds), indices, f"{n}") for n in range(number)]


async def counts(reply: Reply) -> None:
    """Answer a probe: 200 tokens of tools, and two tokens a word."""
    words = len(reply.body["input"][0]["content"].split())
    tokens = 9 + 2 * words + (200 if "tools" in reply.body else 0)
    await reply.begin()
    await reply.think()
    await reply.answer()
    await reply.end(usage=usage(reply) | {"input_tokens": tokens})


def usage(reply: Reply) -> dict[str, Any]:
    """The usage of a response that kept to its lengths."""
    forced = reply.body["forced_lengths"]
    return {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": sum(forced.values()),
        "output_tokens_details": {"reasoning_tokens": forced["reasoning_tokens"]},
    }


async def works(reply: Reply) -> None:
    """Do what the lengths ask for: call a tool, or answer."""
    if reply.body["forced_lengths"].get("call_tokens"):
        await reply.call(("run", '{"command": "ls"}'), usage=usage(reply))
    else:
        await answers(reply)


PROBES = (counts,) * 4


async def test_a_task_against_a_scripted_server() -> None:
    async with ScriptedServer(*PROBES, works).running() as server:
        run = await figures(tasks(), server.base_url)
    first, second, third = server.requests[4:]
    assert len(first["input"][0]["content"].split()) == round((700 - 209) / 2)
    assert first["forced_lengths"]["call_tokens"] == 30
    names = [tool["name"] for tool in first["tools"]]
    assert names == [tool["function"]["name"] for tool in TOOLS]
    assert first["tools"] == third["tools"]
    (result,) = second["input"]
    assert (result["type"], result["call_id"]) == ("function_call_output", "resp_5-call-0")
    assert len(result["output"].split()) == round((60 - 9) / 2)
    assert second["previous_response_id"] == "resp_5"
    assert "call_tokens" not in third["forced_lengths"]

    agents = run["agents"]
    (task,) = agents["tasks"]
    assert (task["outcome"], task["turns"], task["calls"]) == ("answered", 3, 2)
    assert (run["completed"], run["failed"], agents["answered"]) == (3, 0, 1)
    assert task["tools_s"] == pytest.approx(0.3)
    turns = run["requests"]
    for before, after, tool_s in zip(turns, turns[1:], (0.2, 0.1), strict=False):
        assert after["scheduled_s"] == pytest.approx(before["ended_s"] + tool_s)
        assert before["ttft_s"] is before["qoe"] is None
        assert before["call_s"] <= before["e2e_s"]
    assert task["e2e_s"] >= task["model_s"] + task["tools_s"]
    assert task["e2e_s"] == pytest.approx(turns[-1]["ended_s"] - turns[0]["sent_s"])
    answer_s = turns[-1]["sent_s"] + turns[-1]["ttft_s"] - turns[0]["sent_s"]
    assert task["to_answer_s"] == pytest.approx(answer_s)
    assert run["qoe"]["min"] == run["qoe"]["max"] == 1.0  # of the answer alone
    assert run["e2e_s"]["min"] == run["e2e_s"]["max"] == turns[-1]["e2e_s"]
    assert run["ttft_s"]["min"] == run["ttft_s"]["max"] == turns[-1]["ttft_s"]
    assert agents["cached_share"] == 0.6
    assert [turn["requests"] for turn in run["by_turn"]] == [1, 1, 1]


async def refuses(reply: Reply) -> None:
    await reply.send("error", status=429, error={"code": "overloaded", "message": "no room"})


async def writes_no_json(reply: Reply) -> None:
    await reply.call(("run", '{"command": '), usage=usage(reply))


async def answers(reply: Reply) -> None:
    await reply.begin()
    await reply.think()
    await reply.answer()
    await reply.end(usage=usage(reply))


@pytest.mark.parametrize(
    ("script", "outcome", "errors"),
    [
        (refuses, "failed", {"error 429: overloaded: no room": 1}),
        (writes_no_json, "failed", {"the arguments of the call of 'run' are no JSON object": 1}),
        (answers, "answered_early", {}),
    ],
)
async def test_a_turn_that_goes_wrong_ends_its_task(
    script: Any, outcome: str, errors: dict[str, int]
) -> None:
    async with ScriptedServer(*PROBES, works, script).running() as server:
        run = await figures(tasks(), server.base_url)
    (task,) = run["agents"]["tasks"]
    assert (task["outcome"], task["turns"], run["agents"][outcome]) == (outcome, 2, 1)
    assert run["errors"] == errors
    assert run["turns_not_sent"] == len(errors)
    assert run["agents"]["e2e_s"]["mean"] == (None if errors else task["e2e_s"])


async def test_a_timeout_and_an_interrupt_end_a_task() -> None:
    async with ScriptedServer(*PROBES, works, stalls).running() as server:
        run = await figures(tasks(), server.base_url, "--timeout=1s")
        assert run["errors"] == {"timed out after 1 s": 1}
        assert run["agents"]["failed"] == 1
    async with ScriptedServer(*PROBES, works, stalls).running() as server:
        made = tasks()
        chosen = options("--base-url", server.base_url, "--workload=agent")
        load = LoadRun(chosen, "scripted")
        driving = asyncio.create_task(load.drive((), agents=made))
        await server.stalled.get()
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving
    run = result_of(load, chosen, made)
    assert (run["agents"]["interrupted"], run["interrupted"], run["completed"]) == (1, 1, 1)


async def test_warm_ups_are_first_turns_and_not_measured() -> None:
    async with ScriptedServer(*PROBES, works).running() as server:
        chosen = options("--base-url", server.base_url, "--workload=agent")
        load = LoadRun(chosen, "scripted")
        made = tasks()
        await load.drive((), agents=made, warmup_agents=tasks(2))
        run = result_of(load, chosen, made)
    assert (run["completed"], len(server.requests)) == (3, 4 + 2 + 3)
    async with ScriptedServer(*PROBES, refuses).running() as server:
        chosen = options("--base-url", server.base_url, "--workload=agent")
        with pytest.raises(ServerError, match="every warm-up request failed"):
            await LoadRun(chosen, "m").drive((), agents=tasks(), warmup_agents=tasks(2))


async def test_reports(tmp_path: Path) -> None:
    scripts = (*PROBES, works, works, works, works, answers)
    async with ScriptedServer(*scripts).running() as server:
        run = await figures(tasks(2), server.base_url, "--max-concurrency=1")
    out = io.StringIO()
    chosen = options("--workload=agent", "--csv", str(tmp_path / "r.csv"))
    prepare_outputs(chosen)
    print_report(run, chosen, Console(file=out, width=100))
    rows = [line.split() for line in out.getvalue().splitlines()]
    line = next(text for text in out.getvalue().splitlines() if text.startswith("tasks:"))
    ended = f"{run['agents']['answered']} answered"
    assert line.startswith(f"tasks: {ended}")
    assert line.endswith("of their input was in the KV cache")
    assert ["tasks", "mean", "p50", "p95", "p99"] in rows
    assert ["end", "to", "end", "(s)"] in [row[:4] for row in rows]
    alone = io.StringIO()
    only = options("--workload=agent", "--percentile-metrics=turns")
    print_report(run, only, Console(file=alone, width=100))
    assert "TTFT (ms)" not in alone.getvalue()

    assert write_outputs(chosen, run) == [tmp_path / "r.csv", tmp_path / "r.tasks.csv"]
    written = list(csv.DictReader((tmp_path / "r.tasks.csv").open(newline="")))
    assert [row["outcome"] for row in written] == [t["outcome"] for t in run["agents"]["tasks"]]
    page = Page(report_page(run))
    assert "Tasks of agents" in page.text
    assert "Turns and tools" in page.text
    for turns in ([r for r in run["requests"] if r["conversation"] == n] for n in range(2)):
        spans = agent_plots.spans(turns)
        assert [label for label, _, _ in spans[:2]] == ["turn that calls", "tool"]
        assert spans[-1][0] == "answer"
        for before, after in pairwise(spans):
            assert after[1] == before[2]

    (tmp_path / "a.json").write_text(json.dumps(run))
    (tmp_path / "b.json").write_text(json.dumps(run))
    compared = compare.rows(compare.read_results([tmp_path / "a.json", tmp_path / "b.json"]))
    (row,) = (row for row in compared if row.label == "task, end to end (s) mean")
    assert row.values == (run["agents"]["e2e_s"]["mean"],) * 2


def test_what_a_plan_expects() -> None:
    plan = plan_of(options("--workload=agent", "--num-prompts=7", "--num-warmups=2"))
    assert (len(plan.agents), len(plan.warmup_agents), plan.most_in_flight) == (7, 2, 7)
    assert plan.size == sum(agent.expected_turns for agent in plan.agents) >= 21
    problems = plan_of(options("--families=chain", "--num-prompts=4"))
    assert {agent.family for agent in problems.agents} == {"chain"}
    assert Plan().size == 0


# ---- real engines


@pytest.mark.engine
@pytest.mark.parametrize("api", ["responses-ws", "responses-sse", "chat-sse"])
async def test_real_engines_call_tools_of_given_lengths(server: Server, api: str) -> None:
    run = await figures(tasks(2), server.url, f"--api={api}", "--no-pacing")
    assert (run["errors"], run["agents"]["answered"]) == ({}, 2)
    for task in range(2):
        turns = [r for r in run["requests"] if r["conversation"] == task]
        assert [turn["calls"] for turn in turns] == [1, 1, 0]
        assert [turn["output_tokens"] for turn in turns] == [36, 33, 16]
        # Prompts grow as planned: by what the model wrote, and by the result.
        expected = 0
        for turn, of in zip(turns, TWO_CALLS, strict=True):
            expected += of.lengths.prompt
            assert turn["input_tokens"] == pytest.approx(expected, rel=0.06)
            expected += of.lengths.output


@pytest.mark.engine
async def test_the_model_solves_problems_with_tools(server: Server) -> None:
    flags = ("--families=calculator,converter,chain", "--num-prompts=4", "--request-rate=inf")
    chosen = options("--base-url", server.url, "--api=chat-sse", "--no-pacing", *flags)
    load = LoadRun(chosen, "tiny-reasoner")
    plan = plan_of(chosen)
    await load.drive((), agents=plan.agents)
    run = result_of(load, chosen, plan.agents)
    assert run["failed"] == 0
    assert run["agents"]["calls"] >= 4
    # It is right in nine of ten. That three of four are wrong happens once in 300 times.
    right = [task["correct"] for task in run["agents"]["tasks"]]
    assert sum(answer is True for answer in right) >= 2
    assert run["accuracy"] == sum(map(bool, right)) / len([r for r in right if r is not None])
