"""Request bodies: accepted fields, and refusals that name the field."""

from typing import Any

import pytest

from gateway.config import PacingConfig
from gateway.schemas.bodies import ChatBody, ResponsesBody, parse_body, parse_json_object
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import Generation, default_targets, from_chat, from_responses
from workers.messages import ChatMessage, ForcedLengths

DEFAULTS = default_targets(PacingConfig(), {})


def responses(**fields: Any) -> Generation:
    return from_responses(parse_body(fields, ResponsesBody), (), DEFAULTS)


def chat(**fields: Any) -> Generation:
    return from_chat(parse_body(fields, ChatBody), DEFAULTS)


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
        ({"input": "x", "pacing": {"tpots": 1}}, "pacing"),
        ({"input": "x", "pacing": "fast"}, "pacing"),
        ({"input": "x", "inputs": 1}, "inputs"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "function_call"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"input": "x", "forced_lengths": {"reasoning_tokens": 1}}, "forced_lengths"),
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
        ({"messages": [{"role": "user", "content": "x"}], "n": 2}, "n"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": -5}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens"),
        (
            {"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 0},
            "max_completion_tokens",
        ),
        ({"messages": [{"role": "user", "content": "x"}], "logprobs": True}, "logprobs"),
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


def test_worker_fields_get_the_names_of_the_api() -> None:
    whole = responses(input="x")
    assert whole.public_param("messages") == "input"
    assert whole.public_param("sampling.max_tokens") == "max_output_tokens"
    assert whole.public_param("sampling.top_p") == "top_p"
    completion = chat(messages=[{"role": "user", "content": "x"}])
    assert completion.public_param("messages") == "messages"
    assert completion.public_param("sampling.max_tokens") == "max_completion_tokens"
