from __future__ import annotations

import random
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import models
from bench.load.agents.sized import TOOLS, SizedAgent, sized_agents
from bench.load.options import OptionError
from bench.load.prompt_filler import Fit
from bench.load.record import Call, Item, ResponseRecord
from bench.workloads.agents import AgentTask
from bench.workloads.lengths import Lengths, Round
from tests.bench.support.flags import options
from tests.bench.support.results import record_of
from workers.emulation.calls import call_of_length
from workers.messages import ToolChoice

MODEL = Path(models.__file__).parent / "tiny-reasoner"
ROUNDS = (
    Round(Lengths(1000, 30, 0, 40), 2.0),
    Round(Lengths(200, 20, 5, 50), 3.0),
    Round(Lengths(100, 10, 80), 0.0),
)


def agent() -> SizedAgent:
    made = SizedAgent(4, AgentTask(7.0, ROUNDS), count(10), "seed")
    made.fit(Fit(200.0, 1.25), Fit(10.0, 1.25))
    return made


def calling(*arguments: str, **fields: Any) -> ResponseRecord:
    """The record of a response that ended at 11.0."""
    record = record_of((), **fields)
    for number, text in enumerate(arguments):
        call = Call(Item("function_call", call_id=f"call_{number}", name="run"))
        call.deltas.append(text)
        record.calls.append(call)
    return record


def test_a_task_from_its_first_turn_to_the_answer() -> None:
    made = agent()
    first = made.first()
    assert (first.index, first.conversation, first.turn, first.results) == (10, 4, 0, ())
    assert len(first.prompt.messages[0].content.split()) == 640  # 1000 tokens less 200
    assert first.forced is not None
    assert first.forced.body() == {"reasoning_tokens": 30, "answer_tokens": 0, "call_tokens": 40}
    second = made.after(calling("{}"))
    assert second is not None
    assert (second.due_s, second.planned.index, second.planned.turn) == (13.0, 11, 1)
    assert second.planned.prompt.messages == ()
    (result,) = second.planned.results
    assert (result.call_id, len(result.text.split())) == ("call_0", 152)
    last = made.after(calling("{}", "{}"))
    assert last is not None
    assert last.due_s == 14.0
    assert [len(result.text.split()) for result in last.planned.results] == [32, 32]
    assert last.planned.forced is not None
    assert last.planned.forced.body() == {"reasoning_tokens": 10, "answer_tokens": 80}
    assert made.after(record_of()) is None
    assert (made.outcome, made.turns, made.tools_s, made.left) == ("answered", 3, 5.0, 0)


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        (record_of(), "answered_early"),
        (record_of(status="failed"), "failed"),
        (calling("{}", status="incomplete"), "incomplete"),
        (calling("{}", '{"a": '), "failed"),
        (calling("[1]"), "failed"),
        (calling(""), "failed"),
    ],
)
def test_a_task_that_ends_early(record: ResponseRecord, outcome: str) -> None:
    made = agent()
    made.first()
    assert made.after(record) is None
    assert (made.outcome, made.left) == (outcome, 2)
    assert (record.outcome == "failed") is (outcome == "failed")


def test_wrong_arguments_are_named() -> None:
    record = calling('{"a": ')
    made = agent()
    made.first()
    made.after(record)
    assert record.failure == "the arguments of the call of 'run' are no JSON object"


def test_a_model_that_does_not_stop_calling_is_stopped() -> None:
    made = agent()
    made.first()
    turns = 1
    while made.after(calling("{}")) is not None:
        turns += 1
    assert (made.outcome, turns) == ("too_many_turns", 3)


def test_a_task_that_has_not_ended_is_interrupted() -> None:
    made = agent()
    made.first()
    assert made.outcome == "interrupted"


def test_tasks_are_drawn_from_the_seed() -> None:
    flags = ("--workload=agent", "--num-prompts=5", "--request-rate=3")
    first, again = sized_agents(options(*flags)), sized_agents(options(*flags))
    for made, other in zip(first, again, strict=True):
        for one in (made, other):
            one.fit(Fit(0.0, 1.0), Fit(0.0, 1.0))
        assert (made.at_s, made.expected_turns) == (other.at_s, other.expected_turns)
        assert made.first().prompt == other.first().prompt
    assert len({made.at_s for made in first}) == 5
    with pytest.raises(OptionError, match="--workload agent: rate must be above 0 and burstiness"):
        sized_agents(options(*flags, "--burstiness=0.0001"))


def test_the_shortest_call_of_the_workload_is_long_enough_for_each_tool() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    for tool in TOOLS:
        choice = ToolChoice(name=tool["function"]["name"])
        for tokens in (20, 21, 400):
            call = call_of_length(tokens, TOOLS, choice, encode, random.Random(1))
            assert len(call) == tokens
