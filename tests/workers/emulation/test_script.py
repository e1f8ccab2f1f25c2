"""Scripts of emulated devices: lengths, positions and text."""

from __future__ import annotations

import json
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from workers.emulation.script import (
    ANSWER,
    ANSWER_LENGTHS,
    REASONING_LENGTHS,
    THOUGHT,
    Words,
    script_facts,
    script_of,
)
from workers.messages import Structure, ToolChoice
from workers.policy.phase import Markers, Phase
from workers.requests.segments import Detokenizer

START, END, EOS = 3, 4, 2


def encode(text: str) -> list[int]:
    """One token for each character."""
    return [100 + ord(character) for character in text]


WORDS = Words(
    tuple(range(10, 17)),
    tuple(range(20, 25)),
    Markers.of_thoughts(START, END),
    EOS,
    encode,
)
PROMPT = [1, 5, 6, 7]


def output(told: dict[str, Any], prompt: list[int], tokens: int, seed: int = 0) -> list[int]:
    script = script_of(WORDS, prompt, told, seed)
    return [script.token(index) for index in range(tokens)]


def told_of(reasoning: int, answer: int, phase: str = "reasoning") -> dict[str, Any]:
    return {"phase": phase, "forced_reasoning": reasoning, "forced_answer": answer}


def test_forced_lengths_open_and_close_the_thoughts_and_never_end_the_turn() -> None:
    assert output(told_of(5, 4), PROMPT, 9) == [START, 10, 11, 12, END, 20, 21, 22, 23]
    assert output(told_of(1, 2), PROMPT, 3) == [END, 20, 21]
    assert output(told_of(0, 7, "answering"), PROMPT, 7) == [20, 21, 22, 23, 24, 20, 21]


@given(
    reasoning=st.integers(0, 30),
    answer=st.integers(1, 30),
    known=st.integers(0, 59),
    forced=st.booleans(),
    budget=st.one_of(st.none(), st.integers(1, 40)),
)
def test_what_goes_on_elsewhere_goes_on_with_the_same_tokens(
    reasoning: int, answer: int, known: int, forced: bool, budget: int | None
) -> None:
    phase = "reasoning" if reasoning else "answering"
    told: dict[str, Any] = told_of(reasoning, answer, phase) if forced else {"phase": phase}
    if budget is not None and not forced:
        told["thinking_budget"] = budget
    whole = output(told, PROMPT, 60)
    so_far = whole[:known]
    rest = dict(told)
    if known:
        rest["known_tokens"] = known
    thinking = reasoning > 0 and END not in so_far
    rest["phase"] = "reasoning" if thinking else "answering"
    if forced:
        rest["forced_reasoning"] = reasoning - known if thinking else 0
    elif budget is not None:
        rest["thinking_budget"] = budget - known
        if not thinking:
            del rest["thinking_budget"]
    assert output(rest, PROMPT + so_far, 60 - known) == whole[known:]


def test_drawn_lengths_depend_on_seed_and_prompt_alone() -> None:
    def lengths(prompt: list[int], seed: int) -> tuple[int, int]:
        script = script_of(WORDS, prompt, {"phase": "reasoning"}, seed)
        assert script.tail_at is not None
        return script.reasoning, script.tail_at

    assert lengths(PROMPT, 0) == lengths(PROMPT, 0)
    assert len({lengths(PROMPT, 0), lengths(PROMPT, 1), lengths([*PROMPT, 8], 0)}) == 3


def test_a_drawn_answer_ends_the_turn_and_a_budget_cuts_the_thoughts() -> None:
    script = script_of(WORDS, PROMPT, {"phase": "reasoning", "thinking_budget": 6}, 0)
    assert script.reasoning == 6
    assert script.tail_at is not None
    tokens = [script.token(index) for index in range(script.tail_at + 1)]
    assert tokens.index(END) == 5
    assert tokens.index(EOS) == len(tokens) - 1


def test_no_thoughts_where_they_are_switched_off_or_the_model_has_none() -> None:
    assert script_of(WORDS, PROMPT, {"phase": "answering"}, 0).reasoning == 0
    silent = Words(WORDS.thought, WORDS.answer, None, EOS, WORDS.encode)
    assert script_of(silent, PROMPT, {}, 0).reasoning == 0


def test_drawn_lengths_have_their_means() -> None:
    rng = random.Random(1)
    for lengths in (REASONING_LENGTHS, ANSWER_LENGTHS):
        mean = statistics.mean(lengths.draw(rng) for _ in range(20_000))
        assert mean == pytest.approx(lengths.mean, rel=0.05)


def test_texts_read_well_wherever_they_repeat(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    markers = Markers.of_vocabulary(vocabulary)
    assert markers is not None
    words = Words.of(
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        markers,
        vocabulary["<|im_end|>"],
    )
    reasoning, answer = 3 * len(words.thought) + 2, 3 * len(words.answer)
    script = script_of(words, PROMPT, told_of(reasoning, answer), 0)
    detokenizer = Detokenizer(
        lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)),
        markers,
        Phase.REASONING,
    )
    texts = [
        text
        for index in range(reasoning + answer)
        for text in detokenizer.push([script.token(index)]).texts
    ]
    assert "".join(texts[:reasoning]) == 3 * THOUGHT
    assert "".join(texts[reasoning:]) == 3 * ANSWER


# ---- calls, and answers of a given form

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
]
MUST_CALL = ToolChoice(mode="required", parallel=False)


def text_of(told: dict[str, Any], seed: int = 0) -> str:
    """What a script writes after its thoughts."""
    script = script_of(WORDS, PROMPT, told, seed)
    tokens: list[int] = []
    while (token_id := script.token(script.reasoning + len(tokens))) != EOS:
        tokens.append(token_id)
    return "".join(chr(token_id - 100) for token_id in tokens if token_id >= 100)


def test_a_request_with_tools_calls_them_after_its_thoughts_and_ends() -> None:
    told = {"phase": "reasoning", **script_facts(TOOLS, MUST_CALL, None)}
    call = json.loads(text_of(told).removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    assert call["name"] == "add"


def test_an_answer_has_the_form_that_was_asked_for() -> None:
    schema = {"type": "object", "properties": {"a": {"const": 3}}, "required": ["a"]}
    for value in (schema, json.dumps(schema)):
        told = script_facts((), None, Structure(kind="json", value=value))
        assert json.loads(text_of(told)) == {"a": 3}
    assert isinstance(json.loads(text_of(script_facts((), None, JSON_OBJECT))), dict)
    choice = Structure(kind="choice", value=["yes", "no"])
    assert text_of(script_facts((), None, choice)) in ("yes", "no")
    assert text_of(script_facts((), None, Structure(kind="regex", value="a+"))) == ""  # words


JSON_OBJECT = Structure(kind="json_object")


def test_a_schema_of_calls_is_the_answer_of_a_request_that_must_call() -> None:
    schema = {"type": "array", "items": {"const": {"name": "add"}}, "minItems": 1, "maxItems": 1}
    told = script_facts(TOOLS, MUST_CALL, Structure(kind="json", value=schema))
    assert json.loads(text_of(told)) == [{"name": "add"}]


@given(
    reasoning=st.integers(0, 9),
    answer=st.integers(0, 9),
    known=st.integers(0, 25),
    call=st.booleans(),
)
def test_a_forced_call_goes_on_elsewhere_with_the_same_tokens(
    reasoning: int, answer: int, known: int, call: bool
) -> None:
    ids = [70, 71, 72, 73, 74] if call else []
    phase = "reasoning" if reasoning else "answering"
    told = told_of(reasoning, answer, phase) | ({"forced_call": ids} if call else {})
    whole = output(told, PROMPT, 26)
    assert whole[reasoning + answer :][: len(ids)] == ids
    thinks = known < reasoning
    left = max(0, answer - max(0, known - reasoning))
    rest: dict[str, Any] = {
        "phase": "reasoning" if thinks else "answering",
        "forced_reasoning": reasoning - known if thinks else 0,
        "forced_answer": left,
        "known_tokens": known,
    }
    if call:
        done = max(0, known - reasoning - answer)
        if done >= len(ids):
            return  # it had ended
        rest["forced_call"] = ids[done:]
    total = reasoning + answer + len(ids) if call else 26
    assert output(rest, PROMPT + whole[:known], total - known) == whole[known:total]
