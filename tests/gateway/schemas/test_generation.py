"""Request bodies: accepted fields, and refusals that name the field."""

from typing import Any

import pytest

from gateway.config import PacingConfig
from gateway.schemas.bodies import ChatBody, ResponsesBody, parse_body, parse_json_object
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import Generation, default_targets, from_chat, from_responses
from workers.messages import ChatMessage, ForcedLengths

DEFAULTS = default_targets(PacingConfig(), {})
USER = {"role": "user", "content": "x"}
ADD = {"type": "function", "name": "add"}


def responses(**fields: Any) -> Generation:
    return from_responses(parse_body(fields, ResponsesBody), (), DEFAULTS)


def chat(**fields: Any) -> Generation:
    return from_chat(parse_body(fields, ChatBody), DEFAULTS)


def forced(answer: int, call: int = 0) -> dict[str, int]:
    return {"reasoning_tokens": 3, "answer_tokens": answer, "call_tokens": call}


def test_a_string_is_one_user_message() -> None:
    assert responses(input="hi").messages == (ChatMessage(role="user", content="hi"),)


def test_instructions_history_and_turns_come_in_this_order() -> None:
    body = parse_body(
        {
            "instructions": "Be brief.",
            "input": [
                {"role": "developer", "content": "d"},
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            ],
        },
        ResponsesBody,
    )
    history = (ChatMessage(role="user", content="before"),)
    generation = from_responses(body, history, DEFAULTS)
    assert [(m.role, m.content) for m in generation.messages] == [
        ("system", "Be brief."),
        ("user", "before"),
        ("system", "d"),
        ("user", "a"),
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": "x", "max_output_tokens": -2}, "max_output_tokens"),
        ({"input": "x", "reasoning": {"max_tokens": 0}}, "reasoning.max_tokens"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "max_output_tokens": "9"}, "max_output_tokens"),
        ({"input": "x", "temperature": 3}, "temperature"),
        ({"input": "x", "temperature": float("nan")}, "temperature"),
        ({"input": "x", "top_p": 0}, "top_p"),
        ({"input": "x", "stop": ["a", 3]}, "stop[1]"),
        ({"input": "x", "stop": ["a"] * 65}, "stop"),
        ({"input": "x", "pacing": {"tpot_s": 0}}, "pacing.tpot_s"),
        ({"input": "x", "pacing": {"tpot_s": 1e-320}}, "pacing.tpot_s"),
        ({"input": "x", "pacing": {"tpots": 1}}, "pacing.tpots"),
        ({"input": "x", "pacing": "fast"}, "pacing"),
        ({"input": "x", "inputs": 1}, "inputs"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "item_reference", "id": "rs_1"}]}, "input[0].type"),
        ({"input": [{"type": ["message"]}]}, "input[0].type"),
        ({"input": [5]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "background": True, "store": False}, "store"),
        ({"input": "x", "background": "yes"}, "background"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        (
            {"input": "x", "forced_lengths": {"reasoning_tokens": 1}},
            "forced_lengths.answer_tokens",
        ),
        ({"input": "x", "forced_lengths": forced(0)}, "forced_lengths.answer_tokens"),
        ({"input": "x", "forced_lengths": forced(1, -1)}, "forced_lengths.call_tokens"),
        ({"input": "x", "forced_lengths": forced(1, 40)}, "forced_lengths.call_tokens"),
        (
            {"input": "x", "tools": [ADD], "tool_choice": "none", "forced_lengths": forced(1, 40)},
            "forced_lengths.call_tokens",
        ),
        (
            {
                "input": "x",
                "tools": [ADD],
                "text": {"format": {"type": "json_object"}},
                "forced_lengths": forced(1, 40),
            },
            "forced_lengths.call_tokens",
        ),
        ({"input": "x", "include": ["everything"]}, "include[0]"),
        ({"input": "x", "top_logprobs": 2}, "top_logprobs"),
        ({"input": "x", "n": 2}, "n"),
        ({"input": "x", "reasoning": {"effort": ""}}, "reasoning.effort"),
    ],
)
def test_a_wrong_responses_body_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        responses(**fields)
    assert caught.value.param == param
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": -5}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens"),
        (
            {"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 0},
            "max_completion_tokens",
        ),
        ({"messages": [USER], "n": 0}, "n"),
        ({"messages": [USER], "n": 17}, "n"),
        ({"messages": [USER], "top_logprobs": 2}, "top_logprobs"),
        ({"messages": [USER], "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": [USER], "logit_bias": {"the": 1}}, "logit_bias"),
        ({"messages": [USER], "logit_bias": {"-1": 1}}, "logit_bias"),
        ({"messages": [USER], "logit_bias": {"1": 101}}, "logit_bias"),
        ({"messages": [USER], "stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"messages": [USER], "min_tokens": -1}, "min_tokens"),
        ({"messages": [USER], "min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"messages": [USER], "thinking_token_budget": 0}, "thinking_token_budget"),
        ({"messages": [USER], "reasoning": {"exclude": True}}, "reasoning.exclude"),
        ({"messages": [USER], "modalities": ["audio"]}, "modalities"),
        ({"messages": [USER], "skip_special_tokens": False}, "skip_special_tokens"),
        (
            {"messages": [USER], "chat_template_kwargs": {"messages": []}},
            "chat_template_kwargs.messages",
        ),
        (
            {"messages": [USER], "chat_template_kwargs": {"enable_thinking": "no"}},
            "chat_template_kwargs.enable_thinking",
        ),
    ],
)
def test_a_wrong_chat_body_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    assert caught.value.param == param


def test_a_name_of_a_megabyte_is_neither_compared_nor_repeated() -> None:
    with pytest.raises(InvalidRequest) as caught:
        responses(**{"input": "x", "y" * 1_000_000: 1})
    assert len(caught.value.message) < 200
    assert caught.value.param == "y" * 64


def test_a_misspelt_field_is_corrected() -> None:
    with pytest.raises(InvalidRequest, match="Did you mean 'max_output_tokens'"):
        responses(input="x", max_output_token=5)


@pytest.mark.parametrize("text", ["{", "[1]", "3", "\xff", "[" * 100_000, ""])
def test_what_is_not_a_json_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_json_object(text)


def test_pacing() -> None:
    assert responses(input="x").targets == DEFAULTS
    assert not responses(input="x", pacing=False).targets.paced
    custom = responses(input="x", pacing={"tpot_s": 0.05}).targets
    assert (custom.tpot_s, custom.ttfat_s, custom.paced) == (0.05, DEFAULTS.ttfat_s, True)


def test_headers_set_targets_and_are_checked() -> None:
    targets = default_targets(PacingConfig(), {"x-slo-tpot-ms": "50", "x-slo-ttft-ms": "2000"})
    assert (targets.tpot_s, targets.ttft_s) == (0.05, 2.0)
    with pytest.raises(InvalidRequest) as caught:
        default_targets(PacingConfig(), {"x-slo-tpot-ms": "-1"})
    assert caught.value.param == "x-slo-tpot-ms"


def test_thinking_can_be_switched_off_in_two_ways() -> None:
    assert responses(input="x").thinking is None
    assert responses(input="x", reasoning={"effort": "none"}).thinking is False
    assert responses(input="x", chat_template_kwargs={"enable_thinking": False}).thinking is False


def test_the_switch_wins_over_the_effort() -> None:
    for fields in (
        {"chat_template_kwargs": {"enable_thinking": True}, "enable_thinking": False},
        {"enable_thinking": True, "reasoning": {"enabled": False}},
        {"reasoning": {"enabled": True}},
    ):
        generation = chat(messages=[USER], reasoning_effort="none", **fields)
        assert (generation.thinking, generation.effort) == (True, None)
    off = chat(messages=[USER], reasoning_effort="high", enable_thinking=False)
    assert (off.thinking, off.effort) == (False, "high")


def test_any_effort_and_any_option_of_the_template_reach_the_worker() -> None:
    generation = responses(
        input="x",
        reasoning={"effort": "xhigh"},
        chat_template_kwargs={"enable_thinking": True, "thinking_mode": "on", "keep": {"a": [1]}},
    )
    assert (generation.thinking, generation.effort) == (True, "xhigh")
    assert generation.template == {"thinking_mode": "on", "keep": {"a": [1]}}
    assert chat(messages=[USER], reasoning={"effort": "low"}).effort == "low"
    both = chat(messages=[USER], reasoning={"effort": "low"}, reasoning_effort="max")
    assert both.effort == "max"


def test_the_smaller_of_two_budgets_holds() -> None:
    def budget(**fields: Any) -> int | None:
        return responses(input="x", **fields).sampling.thinking_budget

    assert budget() is None
    assert budget(thinking_token_budget=-1) is None
    assert budget(thinking_token_budget=9) == 9
    assert budget(thinking_token_budget=9, reasoning={"max_tokens": 4}) == 4
    assert budget(thinking_token_budget=9, reasoning={"max_tokens": -1}) == 9


def test_what_vllm_knows_of_sampling_is_carried_over() -> None:
    sampling = chat(
        messages=[USER],
        logit_bias={"5": -100, "007": 2.5},
        min_tokens=3,
        stop_token_ids=[7, 8],
        logprobs=True,
        top_logprobs=2,
    ).sampling
    assert sampling.logit_bias == {5: -100.0, 7: 2.5}
    assert (sampling.min_tokens, sampling.stop_token_ids) == (3, (7, 8))
    assert sampling.logprobs == 2


def test_log_probabilities_are_asked_for_in_two_ways() -> None:
    include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    assert responses(input="x", top_logprobs=0).sampling.logprobs is None
    assert responses(input="x", include=include[1:]).sampling.logprobs is None
    assert responses(input="x", include=include).sampling.logprobs == 0
    assert responses(input="x", include=include, top_logprobs=5).sampling.logprobs == 5
    assert chat(messages=[USER], logprobs=False).sampling.logprobs is None
    assert chat(messages=[USER], logprobs=True).sampling.logprobs == 0


def test_choices() -> None:
    assert chat(messages=[USER]).choices == 1
    assert chat(messages=[USER], n=16).choices == 16


def test_sampling_and_forced_lengths_are_carried_over() -> None:
    generation = chat(
        messages=[{"role": "user", "content": "x"}],
        max_tokens=9,
        stop="end",
        seed=4,
        forced_lengths={"reasoning_tokens": 3, "answer_tokens": 5},
    )
    assert generation.sampling.max_tokens == 9
    assert generation.sampling.stop == ("end",)
    assert generation.sampling.seed == 4
    assert generation.forced_lengths == ForcedLengths(reasoning_tokens=3, answer_tokens=5)


def test_a_call_can_be_forced() -> None:
    asked = ForcedLengths(reasoning_tokens=3, answer_tokens=0, call_tokens=40)
    tools = [{"type": "function", "function": {"name": "add"}}]
    in_chat = chat(messages=[USER], tools=tools, forced_lengths=forced(0, 40))
    assert in_chat.forced_lengths == asked
    assert responses(input="x", tools=[ADD], forced_lengths=forced(0, 40)).forced_lengths == asked
