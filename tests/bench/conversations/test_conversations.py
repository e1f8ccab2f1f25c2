"""The benchmark of conversations: its client on the real APIs, and its results."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.conversations.command import compare, print_results, spread_of, summary, verdicts
from bench.conversations.talk import APIS, Shape, Turn, TurnFailed, talk, text_of
from tests.gateway.support.scripted_engine import ANSWER, Actor
from tests.gateway.wires.test_sessions import gateway
from workers.messages import Submit

SHAPE = Shape(turns=3, first_tokens=40, last_tokens=200, think_s=(0.0, 0.0))


@pytest.mark.parametrize("api", APIS)
async def test_each_turn_goes_on_with_the_whole_conversation(tmp_path: Path, api: str) -> None:
    async with gateway(tmp_path) as (client, built):
        actors = [Actor(worker, set()) for worker in built.workers.values()]
        acting = [asyncio.create_task(actor.run()) for actor in actors]
        seen: list[Turn] = []
        url = str(client._base_url).rstrip("/")
        try:
            await talk(client, url, api, SHAPE, 3.0, random.Random(1), seen)
        finally:
            for task in acting:
                task.cancel()
            await asyncio.wait(acting)
        submits: list[Submit] = sorted(
            (submit for actor in actors for submit in actor.submits),
            key=lambda submit: len(submit.messages),
        )
        assert [len(submit.messages) for submit in submits] == [1, 3, 5]
        first, _, last = (submit.messages for submit in submits)
        assert last[0] == first[0]
        assert [message.content for message in last[1::2]] == [ANSWER, ANSWER]
        lengths = [len(message.content) for message in last[::2]]
        assert lengths == pytest.approx([120, 60, 60], abs=10)
        assert [(turn.api, turn.turn) for turn in seen] == [(api, number) for number in range(3)]
        assert {turn.prompt_tokens for turn in seen} == {20}  # as scripted workers count
        assert all(turn.first_s >= 0 and turn.instance in ("a", "b") for turn in seen)


async def test_a_refused_turn_says_why(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (client, built):
        for name in list(built.workers):
            await built.lose(name)
        url = str(client._base_url).rstrip("/")
        with pytest.raises(TurnFailed, match="503"):
            await talk(client, url, "chat", SHAPE, 3.0, random.Random(1), [])


def test_a_text_has_its_length_and_no_other_conversation_has_it() -> None:
    one, other = (text_of(500, random.Random(seed)) for seed in (1, 2))
    assert abs(len(one) - 500) < 20
    assert one[:40] != other[:40]


def test_the_prompt_grows_to_its_last_length() -> None:
    shape = Shape()
    said = [shape.said_tokens(turn) for turn in range(shape.turns)]
    assert said[0] == 2000
    in_all = sum(said) + shape.answer_tokens * (shape.turns - 1)
    assert in_all == pytest.approx(30_000, rel=0.01)


def phase(found: float, first_s: float, *busy_s: float) -> dict[str, Any]:
    turns = [
        Turn("chat", 0, 1000, 0, 9.0, "a"),  # no first turn counts
        Turn("chat", 1, 1000, round(1000 * found), first_s, "a"),
        Turn("messages", 1, 1000, round(1000 * found), first_s, "b"),
    ]
    return summary(turns, {str(place): one for place, one in enumerate(busy_s)})


def run_of(found: float, first_s: float, busiest: float) -> dict[str, Any]:
    run: dict[str, Any] = {
        "affinity": phase(found, first_s, 10, busiest),
        "blind": phase(0.1, 1.0, 10, 10),
        "one": phase(0.92, 0.3, 20),
    }
    for result in run.values():
        result["starved"] = 0.0
    return {**run, "compared": compare(run)}


def test_the_goals_are_about_later_turns() -> None:
    run = run_of(0.9, 0.2, 11)
    assert run["affinity"]["found_by_api"] == {"chat": 0.9, "responses": None, "messages": 0.9}
    compared = run["compared"]
    assert compared == pytest.approx(
        {
            "found": 0.9 / 0.92,
            "wait": 0.2,
            "busiest": 11 / 10.5,
            **{f"found_{api}": 0.9 / 0.92 for api in ("chat", "messages")},
            **{f"wait_{api}": 0.2 for api in ("chat", "messages")},
        }
    )
    assert all(verdicts(spread_of([compared])).values())
    for name, bad in (("found", 0.94), ("wait", 0.31), ("busiest", 1.11)):
        assert verdicts(spread_of([compared | {name: bad}])) == {
            one: one != name for one in ("found", "wait", "busiest")
        }


def test_medians_over_runs_are_compared_with_the_goals() -> None:
    runs = [run_of(*of) for of in ((0.5, 0.9, 30), (0.9, 0.2, 11), (0.91, 0.21, 11.5))]
    spread = spread_of([run["compared"] for run in runs])
    assert spread["found"] == pytest.approx(
        {"median": 0.9 / 0.92, "least": 0.5 / 0.92, "most": 0.91 / 0.92}
    )
    assert all(verdicts(spread).values())
    assert not all(verdicts(spread_of([run["compared"] for run in runs[:2]])).values())
    console = Console(width=160, record=True)
    print_results({"runs": runs, "compared": spread}, console)
    text = console.export_text()
    assert "90.00 (50.00 to 91.00)" in text
    assert "0.210 (0.200 to 0.900)" in text
    assert "all goals are met" in text
