"""What a request asks of the model's thinking, and what the model cannot do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workers.support.formats import form_of, submit, user
from workers.errors import RequestRejected
from workers.formats.control import budgets_of
from workers.formats.form import Format, Request
from workers.messages import ChatMessage, Sampling, ToolCall, ToolChoice
from workers.policy.phase import Phase
from workers.requests.chat_template import ChatRenderer

TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
ANSWER = "{% if add_generation_prompt %}assistant: {% endif %}"
EFFORTS = (
    "{% if reasoning_effort is defined %}{% if reasoning_effort not in ['low', 'high'] %}"
    "{{ raise_exception('effort must be low or high') }}{% endif %}"
    "{{ reasoning_effort }}{% endif %}"
)
SWITCH = "{% if thinking is defined and not thinking %}/no_think{% endif %}"
TOOLS = "{% if tools %}{{ tools | tojson }}\n{% endif %}"
BUDGETS = ("low=20", "high=0")
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}


def asked(form: Format, **fields: Any) -> Request:
    return form.request(submit(user("Hi"), **fields))


def refused(form: Format, *messages: ChatMessage, **fields: Any) -> tuple[str | None, str]:
    with pytest.raises(RequestRejected) as caught:
        form.request(submit(*(messages or (user("Hi"),)), **fields))
    return caught.value.param, caught.value.message


@pytest.fixture(scope="module")
def plain() -> Format:
    return form_of(thinking_budgets=BUDGETS)


@pytest.fixture(scope="module")
def knowing() -> Format:
    return form_of(EFFORTS + SWITCH + TOOLS + TURNS + ANSWER, thinking_budgets=BUDGETS)


def test_effort_is_a_budget_where_the_template_knows_none(plain: Format) -> None:
    assert plain.facts.efforts == ()
    assert asked(plain, effort="low").control.budget == 20
    assert asked(plain, effort="high").control.budget is None
    assert asked(plain, effort="low", sampling=Sampling(thinking_budget=7)).control.budget == 7


def test_effort_is_the_switch_of_a_template_that_has_one(knowing: Format) -> None:
    assert knowing.facts.efforts == ("low", "high")
    control = asked(knowing, effort="low").control
    assert (control.options, control.budget) == ({"reasoning_effort": "low"}, None)
    own = asked(knowing, effort="low", template={"reasoning_effort": "high"}).control
    assert own.options == {"reasoning_effort": "high"}
    param, message = refused(knowing, effort="medium")
    assert param == "effort"
    assert "'low', 'high'" in message


def test_effort_without_a_budget_is_refused(plain: Format) -> None:
    param, message = refused(plain, effort="medium")
    assert param == "effort"
    assert "'low', 'high'" in message
    assert "none" in refused(form_of(), effort="low")[1]


def test_no_effort_switches_thinking_off(plain: Format, knowing: Format) -> None:
    assert asked(plain, effort="none").control.options == {"enable_thinking": False}
    assert asked(knowing, effort="none").control.options == {"thinking": False}
    assert ChatRenderer(knowing, 512).render(submit(user("Hi"), effort="none")).phase is (
        Phase.ANSWERING
    )
    unable = form_of(TURNS + ANSWER)
    assert refused(unable, effort="none")[0] == "effort"
    assert refused(unable, thinking=False)[0] == "thinking"
    assert asked(unable, thinking=True).control.options == {}


def test_a_model_that_does_not_think_cannot_be_made_to() -> None:
    silent = form_of(reasoning_parser="none")
    assert not silent.facts.thinks
    assert refused(silent, effort="low")[0] == "effort"
    assert refused(silent, thinking=True)[0] == "thinking"
    assert asked(silent, thinking=False).control.options == {}
    budget = asked(silent, sampling=Sampling(thinking_budget=7)).control.budget
    assert budget is None


def test_thoughts_that_only_text_ends_have_no_budget() -> None:
    granite = form_of(reasoning_parser="granite", tool_parser="none", thinking_budgets=BUDGETS)
    assert granite.reading.markers is not None
    assert granite.reading.markers.text_only
    assert refused(granite, sampling=Sampling(thinking_budget=7))[0] == "sampling.thinking_budget"
    assert refused(granite, effort="low")[0] == "effort"


def test_an_option_of_the_client_wins_over_the_switch(plain: Format) -> None:
    control = asked(plain, thinking=False, template={"enable_thinking": True}).control
    assert control.options == {"enable_thinking": True}


@pytest.mark.parametrize("name", ["tools", "chat_template", "add_generation_prompt", "_x", "foo"])
def test_options_that_are_not_the_clients_are_refused(plain: Format, name: str) -> None:
    assert refused(plain, template={name: 1})[0] == f"template.{name}"


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "clock", "description": 1}, "description"),
        ({"name": "clock", "parameters": "x"}, "parameters"),
    ],
)
def test_wrong_tools_are_named(knowing: Format, function: dict[str, Any], field: str) -> None:
    tools = (CLOCK, {"type": "function", "function": function})
    assert refused(knowing, tools=tools)[0] == f"tools[1].function.{field}"


def test_tools_that_are_no_functions(knowing: Format) -> None:
    assert refused(knowing, tools=({"type": "web_search"},))[0] == "tools[0].type"
    assert refused(knowing, tools=({"type": "function"},))[0] == "tools[0].function"
    assert refused(knowing, tools=(CLOCK, CLOCK))[0] == "tools[1].function.name"


def test_many_tools_are_fine_up_to_the_bound(knowing: Format) -> None:
    def tools(count: int) -> tuple[dict[str, Any], ...]:
        return tuple(
            {
                "type": "function",
                "function": {"name": f"tool_{i}", "parameters": {"type": "object"}},
            }
            for i in range(count)
        )

    assert len(asked(knowing, tools=tools(512)).tools) == 512
    assert refused(knowing, tools=tools(513))[0] == "tools"


def test_choice_of_tools(knowing: Format) -> None:
    assert refused(knowing, tool_choice=ToolChoice(mode="required"))[0] == "tool_choice"
    named = ToolChoice(mode="required", name="other")
    assert refused(knowing, tools=(CLOCK,), tool_choice=named)[0] == "tool_choice"
    none = asked(knowing, tools=(CLOCK,), tool_choice=ToolChoice(mode="none"))
    assert (none.tools, none.calls) == ((), False)


def test_a_template_that_knows_no_tools(plain: Format) -> None:
    untaught = form_of(TURNS + ANSWER)
    assert refused(untaught, tools=(CLOCK,)) == (
        "tools",
        "the model's chat template knows no tools",
    )


CALL = ToolCall(call_id="1", name="clock", arguments='{"zone": "UTC"}')


def assistant(*calls: ToolCall, **fields: Any) -> ChatMessage:
    return ChatMessage(role="assistant", content="", tool_calls=calls, **fields)


def result(call_id: str | None) -> ChatMessage:
    return ChatMessage(role="tool", content="12:00", tool_call_id=call_id)


def test_results_belong_to_calls(knowing: Format) -> None:
    knowing.request(submit(user("Hi"), assistant(CALL), result("1"), tools=(CLOCK,)))
    for wrong in ("2", None):
        param, message = refused(knowing, user("Hi"), assistant(CALL), result(wrong))
        assert param == "messages"
        assert "never made" in message
    assert "never made" in refused(knowing, user("Hi"), result("1"), assistant(CALL))[1]


@pytest.mark.parametrize("arguments", ["{", "no", "[1]", '"x"'])
def test_arguments_of_the_client_must_be_an_object(knowing: Format, arguments: str) -> None:
    call = ToolCall(call_id="1", name="clock", arguments=arguments)
    assert "JSON" in refused(knowing, user("Hi"), assistant(call))[1]


def test_thoughts_are_sent_back_as_the_model_wants_them() -> None:
    shows = TURNS.replace("m.content", "m.reasoning_content ~ m.content")
    thought = assistant(CALL, reasoning="I look")
    conversation = (user("Hi"), assistant(reasoning="first"), user("Time?"), thought, result("1"))

    def written(parser: str) -> str:
        form = form_of(shows + ANSWER, reasoning_parser=parser, tool_parser="none")
        request = form.request(submit(*conversation))
        return str(form.template.write(request.messages))

    assert "first" in written("qwen3")
    assert "I look" in written("qwen3")
    assert "first" not in written("deepseek_r1")
    assert "I look" not in written("deepseek_r1")


def test_budgets_are_words_and_tokens() -> None:
    assert budgets_of(BUDGETS) == {"low": 20, "high": 0}
    for wrong in ("low", "low=", "=3", "low=-1", "low=x"):
        with pytest.raises(ValueError, match="thinking_budgets"):
            budgets_of((wrong,))
