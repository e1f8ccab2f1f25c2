"""Tools: the template writes Qwen3's format, the tokenizer keeps any JSON, tasks are consistent."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import jinja2
import jinja2.meta
import pytest
from tokenizers import Tokenizer

from models import judge
from models.conversation import (
    Conversation,
    add_turn,
    calls_text,
    draw_talk,
    draw_tool_talk,
    system_turn,
    think,
)
from models.dialogue import IM_END, IM_START, draw_example
from models.problems import is_correct
from models.tokenizer import BASE_SIZE, CHAT_TEMPLATE, VOCAB_SIZE, build
from models.tools import KINDS, Task, Toolset, draw_task, draw_toolset, kinds_of
from models.tools.goals import evaluate, shown

TEMPLATE_BEFORE_TOOLS = """\
{%- for message in messages %}
{%- set content = message['content'] if message['content'] is string else '' %}
{%- if message['role'] == 'assistant' and '</think>' in content %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""
SINGLE = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
JSONS = (
    '{"a": [1, 2.5, -3e9], "b": {"c": null, "d": "x\\n\\"y\\" é漢🎉"}}',
    '{"name": "f", "arguments": {"text": "a\\\\b", "n": 5, "deep": {"list": ["x", "y"]}}}',
    '[{"name": "f", "parameters": {}}]',
    '{\n  "city":"Paris",\n\t"days":[ 1,2 ,3 ] , "ok":true }',
    '{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}',
    '"},"}}"]}}}, "', '", "arguments": {"', '{"": ""}', '": "": ": "', "{}{}[]", '""""',
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build()


@cache
def _compiled(template: str) -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(template)


def _render(template: str, messages: list[dict[str, Any]], **options: object) -> str:
    options = {"add_generation_prompt": True, **options}
    return str(_compiled(template).render(messages=messages, **options))


def _tasks(kind: str, count: int, seed: int = 3) -> list[tuple[Toolset, Task]]:
    return judge.draw_plays(kind, count, seed)


def _messages(task: Task, thoughts: bool) -> list[dict[str, Any]]:
    """The turns of a task as a client sends them back."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": task.question}]
    for step in task.steps:
        messages.append({"role": "assistant", "content": None, "tool_calls": []})
        if thoughts:
            messages[-1]["reasoning"] = "\n".join(step.thinking)
        for i, call in enumerate(step.calls):
            function = {"name": call.name, "arguments": dict(call.arguments)}
            entry = {"id": f"c{i}", "type": "function", "function": function}
            messages[-1]["tool_calls"].append(entry)
        messages += [
            {"role": "tool", "tool_call_id": f"c{i}", "content": call.result}
            for i, call in enumerate(step.calls)
        ]
    return messages


def test_the_template_without_tools_is_what_it_was() -> None:
    rng = random.Random(1)
    roles, texts = (
        ("system", "user", "assistant"),
        ("a", "", "<think>\nx\n</think>\n\nb", "</think>"),
    )
    for _ in range(300):
        messages = [
            {"role": rng.choice(roles), "content": rng.choice((*texts, None))}
            for _ in range(rng.randint(1, 6))
        ]
        for options in ({}, {"enable_thinking": False}, {"add_generation_prompt": False}):
            assert _render(CHAT_TEMPLATE, messages, **options) == _render(
                TEMPLATE_BEFORE_TOOLS, messages, **options
            )
            assert _render(CHAT_TEMPLATE, messages, tools=[], **options) == _render(
                TEMPLATE_BEFORE_TOOLS, messages, **options
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [True, False])
def test_the_template_writes_the_training_format(kind: str, kept: bool) -> None:
    for toolset, task in _tasks(kind, 12):
        definitions = [tool.definition() for tool in toolset.tools]
        messages = _messages(task, kept)
        prompt = _render(CHAT_TEMPLATE, messages, tools=definitions)
        talk = Conversation()
        talk.read(system_turn(None, toolset))
        add_turn(talk, task, last=True, kept=kept)
        last = max(s.branch for s in talk.segments)
        seen = "".join(s.text for s in talk.segments if s.branch in (0, last))
        answer = think(task.thinking) + task.answer + IM_END
        assert prompt + answer == seen
        messages += [
            {"role": "assistant", "content": task.answer},
            {"role": "user", "content": "x"},
        ]
        again = _render(CHAT_TEMPLATE, messages, tools=definitions)
        assert "</think>" not in again, "the thoughts of earlier turns are dropped"


def test_the_system_prompt_stands_before_the_tools() -> None:
    toolset, task = _tasks("calculator", 1)[0]
    messages = [{"role": "system", "content": "Be brief."}, *_messages(task, True)]
    prompt = _render(CHAT_TEMPLATE, messages, tools=[t.definition() for t in toolset.tools])
    assert prompt.startswith(system_turn("Be brief.", toolset))
    assert prompt.count("<think>") == len(task.steps)


def test_what_a_definition_has_besides_does_not_reach_the_prompt() -> None:
    """Clients and vLLM add fields such as `strict` or `defer_loading`."""
    toolset, task = _tasks("converter", 1)[0]
    plain = [tool.definition() for tool in toolset.tools]
    rich = json.loads(json.dumps(plain))
    for tool in rich:
        tool["defer_loading"] = None
        tool["function"] = {"strict": True, **tool["function"]}
        schema = tool["function"]["parameters"]
        schema["properties"] = {
            name: dict(sorted({"title": name, **value}.items()))
            for name, value in schema["properties"].items()
        }
        tool["function"]["parameters"] = dict(sorted(schema.items())) | {
            "additionalProperties": False,
            "$schema": "x",
        }
    messages = _messages(task, True)
    assert _render(CHAT_TEMPLATE, messages, tools=rich) == _render(
        CHAT_TEMPLATE, messages, tools=plain
    )
    listed = {"type": "array", "items": {"type": "string"}}
    rich[0]["function"]["parameters"]["properties"] = {"names": listed, "n": {"enum": [1, 2]}}
    prompt = _render(CHAT_TEMPLATE, messages, tools=rich)
    assert f'{{"names": {json.dumps(listed)}, "n": {{"enum": [1, 2]}}}}, "required"' in prompt
    bare = [{"type": "function", "function": {"name": "f"}}]
    assert '"name": "f", "description": "", "parameters": {}}}' in _render(
        CHAT_TEMPLATE, messages, tools=bare
    )


def test_any_json_survives_the_tokenizer(tokenizer: Tokenizer) -> None:
    rng = random.Random(4)
    alphabet = '{}[]":, \\n\n\tabc09.-truefalse"": '
    made_up = [
        "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 40))) for _ in range(2000)
    ]
    definitions = [
        json.dumps(tool.definition(), indent=rng.choice((None, None, 2)))
        for _ in range(50)
        for tool in draw_toolset(rng).tools
    ]
    for text in (*JSONS, *made_up, *definitions):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_any_tool_talk_survives_the_tokenizer(tokenizer: Tokenizer) -> None:
    """In one piece and in segments, with the same ids: training sees what serving sees."""
    rng = random.Random(5)
    for i in range(60):
        talk = draw_tool_talk(rng, 3) if i % 2 else draw_talk(rng, 5)
        pieces = [tokenizer.encode(s.text).ids for s in talk.segments if s.branch == 0]
        whole = tokenizer.encode(talk.main_line()).ids
        assert [i for ids in pieces for i in ids] == whole
        assert tokenizer.decode(whole, skip_special_tokens=False) == talk.main_line()


def test_tags_are_single_and_stay_in_the_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    for tag in SINGLE:
        ids = tokenizer.encode(tag).ids
        assert ids == [tokenizer.token_to_id(tag)]
        assert ids[0] >= BASE_SIZE
        assert tokenizer.decode(ids, skip_special_tokens=True) == tag


def test_a_definition_is_short(tokenizer: Tokenizer) -> None:
    rng = random.Random(6)
    lengths = [
        len(tokenizer.encode(system_turn(None, toolset)).ids) / len(toolset.tools)
        for toolset in (draw_toolset(rng) for _ in range(100))
    ]
    assert sum(lengths) / len(lengths) < 60


def test_quoted_words_outside_of_json_stay_letters(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode('"letter"').tokens == ['"', *"letter", '"']
    assert tokenizer.encode('is "time".').tokens == ["is", 'Ġ"', *"time", '".']
    assert tokenizer.encode('{"time": 5}').tokens == ['{"', "time", '":', "Ġ5", "}"]


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_are_right_and_held_out(kind: str) -> None:
    for toolset, task in _tasks(kind, 40):
        problem = task.as_problem()
        assert is_correct(problem, task.answer), task
        assert not is_correct(problem, "No idea.")
        assert bool(task.steps) == (kind != "decline")
        for step in task.steps:
            text = think(step.thinking) + calls_text(step.calls)
            assert judge.right_calls(text, step.calls)
            assert judge.closed(text, finished=True)
            for call in step.calls:
                tool = next(tool for tool in toolset.tools if tool.name == call.name)
                names = {p.name for p in tool.parameters}
                required = {p.name for p in tool.parameters if p.required}
                assert required <= set(call.arguments) <= names


def test_calculations_against_python() -> None:
    for _, task in _tasks("chain", 30):
        for step in task.steps:
            for call in step.calls:
                if "expression" in call.arguments and call.result.lstrip("-").isdigit():
                    value = evaluate(str(call.arguments["expression"]))
                    assert call.result == shown(value)


def test_evaluate_refuses_what_is_no_calculation() -> None:
    assert shown(evaluate("12 * (3 + 4)")) == "84"
    assert shown(evaluate("sqrt(144)")) == "12"
    with pytest.raises(ValueError, match="not an arithmetic expression"):
        evaluate("__import__('os')")


def test_same_random_state_gives_the_same_task() -> None:
    def draw() -> list[Task]:
        rng = random.Random(9)
        toolset = draw_toolset(rng)
        return [draw_task(rng, toolset, kind, "train") for kind in kinds_of(toolset)]

    before = random.getstate()
    assert draw() == draw()
    assert random.getstate() == before


def test_names_are_unique_and_roles_are_not_doubled() -> None:
    rng = random.Random(10)
    for _ in range(500):
        tools = draw_toolset(rng).tools
        assert 1 <= len(tools) <= 10
        assert len({tool.name for tool in tools}) == len(tools)


def test_judging_calls() -> None:
    _, task = next((s, t) for s, t in _tasks("parallel", 5))
    calls = task.steps[0].calls
    text = think(("x",)) + calls_text(calls)
    assert judge.right_calls(text, calls)
    assert not judge.right_calls(text, calls[:1])
    assert not judge.right_calls(text.replace("</tool_call>", ""), calls)
    assert not judge.right_calls(text.replace('{"name"', '{"nome"'), calls)
    assert not judge.right_calls(text + "and more", calls)
    assert judge.right_calls("<think>\n<tool_call>\n</think>\n\nno", ())


def test_a_model_that_does_everything_right_scores_full_marks() -> None:
    plays = {kind: judge.draw_plays(kind, 6, 1) for kind in KINDS}
    known = {}
    for pairs in plays.values():
        for toolset, task in pairs:
            for kept in (True, False):
                talk = Conversation()
                talk.read(system_turn(None, toolset))
                add_turn(talk, task, last=True, kept=kept)
                for i, segment in enumerate(talk.segments):
                    if segment.learn:
                        before = [s for s in talk.segments[:i] if s.branch in (0, segment.branch)]
                        prompt = "".join(s.text for s in before)
                        known[prompt] = segment.text.removesuffix(IM_END)
    rows = judge.all_tools(lambda prompts: [(known[p], True) for p in prompts], 6, 1)
    assert [(r.correct, r.calls, r.well_formed) for r in rows] == [(1.0, 1.0, 1.0)] * len(rows)
    silly = judge.all_tools(
        lambda prompts: [("<think>\n</think>\n\nhm", True) for _ in prompts], 6, 1
    )
    assert [r.correct for r in silly] == [0.0] * len(rows)


def test_conversations_keep_their_turns() -> None:
    prompts: list[str] = []

    def complete(asked: list[str]) -> list[tuple[str, bool]]:
        prompts.extend(asked)
        return [("<think>\nx\n</think>\n\nI can add, I am tiny.", True) for _ in asked]

    rows = judge.conversations(complete, 2, 1)
    assert prompts[-1].count(f"{IM_START}user\n") == judge.TURNS
    assert prompts[-1].count("</think>") == 0
    assert rows[0].name == "turns 1 to 5"
    assert rows[-1].problems == 2 * judge.TURNS
    assert len(judge.table(rows, "conversations").splitlines()) == len(rows) + 2


def test_single_turns_keep_their_ids_but_for_roles(tokenizer: Tokenizer) -> None:
    rng = random.Random(12)
    for _ in range(100):
        example = draw_example(rng)
        ids = tokenizer.encode(example.completion).ids
        assert sum(i >= BASE_SIZE for i in ids) <= 3


def test_the_template_takes_no_options_but_its_own() -> None:
    tree = jinja2.Environment().parse(CHAT_TEMPLATE)
    known = {"messages", "tools", "add_generation_prompt", "enable_thinking"}
    assert jinja2.meta.find_undeclared_variables(tree) == known
