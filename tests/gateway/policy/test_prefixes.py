"""Hashes of the beginnings of conversations, and what each instance holds of them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.prefixes import MOST, HeldPrefixes, prefixes_of, without_nonce
from workers.messages import ChatMessage, ToolCall

USER = ChatMessage(role="user", content="What is 2 + 3?")
CALL = ToolCall(call_id="call_1", name="calculator", arguments='{"x": "2 + 3"}')
AGAIN = ToolCall(call_id="call_2", name=CALL.name, arguments=CALL.arguments)
OTHER = ToolCall(call_id="call_1", name=CALL.name, arguments="{}")
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "calculator"}}


def test_a_conversation_that_goes_on_begins_with_the_hashes_of_its_earlier_turns() -> None:
    first = prefixes_of((USER,))
    longer = prefixes_of((USER, ChatMessage(role="assistant", content="5"), USER))
    assert longer[:1] == first
    assert len(set(longer)) == 3
    assert all(0 <= one < 2**63 for one in longer)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        # What clients leave out or make anew, and most models are not shown.
        ({"reasoning": "I think."}, {"reasoning": None}, True),
        ({"tool_calls": (CALL,)}, {"tool_calls": (AGAIN,)}, True),
        ({"tool_calls": (CALL,)}, {"tool_calls": (OTHER,)}, False),
        ({"content": "5"}, {"content": "6"}, False),
        ({"role": "assistant"}, {"role": "user"}, False),
        ({"name": "a"}, {"name": "b"}, False),
    ],
)
def test_what_the_model_is_shown_counts(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    plain = {"role": "assistant", "content": "x"}
    first, second = (
        prefixes_of((USER, ChatMessage(**(plain | fields)))) for fields in (one, other)
    )
    assert (first == second) is same


def test_tools_and_options_of_the_template_count_from_the_first_message_on() -> None:
    plain = prefixes_of((USER,))
    assert len({plain, prefixes_of((USER,), (TOOL,)), prefixes_of((USER,), (), {"a": 1})}) == 3
    assert prefixes_of((USER,), (), {"a": 1, "b": 2}) == prefixes_of((USER,), (), {"b": 2, "a": 1})


def test_of_a_long_conversation_only_the_longest_beginnings_are_known() -> None:
    messages = [ChatMessage(role="user", content=str(number)) for number in range(3 * MOST)]
    hashes = prefixes_of(messages)
    assert len(hashes) == MOST
    assert hashes == prefixes_of(messages[:-1])[1:] + hashes[-1:]


BILLING = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch=36ee5;"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (BILLING + "\nYou are kind.\n", "You are kind.\n"),
        (BILLING + "\n\nYou = kind;", "You = kind;"),
        (BILLING + "You are kind; you=help;", "You are kind; you=help;"),  # joined by a proxy
        (BILLING.removesuffix(";") + "\nkind", "kind"),
        ("x-anthropic-billing-header: is a header; explain it.", None),
        (" " + BILLING, None),
        ("You are kind.\n" + BILLING, None),
        ("x-anthropic-billing-header:", None),
    ],
)
def test_only_the_billing_header_itself_is_left_out(text: str, left: str | None) -> None:
    for role, changes in (("system", True), ("developer", True), ("user", False)):
        messages = (ChatMessage(role=role, content=text), USER)
        first, *rest = without_nonce(messages, optional=True)
        assert first.content == (text if left is None or not changes else left)
        assert rest == [USER]


def test_a_system_prompt_of_nothing_else_goes_if_it_may_be_missing() -> None:
    messages = (ChatMessage(role="system", content=BILLING), USER)
    assert without_nonce(messages, optional=True) == (USER,)
    empty, _ = without_nonce(messages, optional=False)
    assert empty.content == ""
    assert without_nonce((), optional=True) == ()


def test_the_longest_prefix_that_is_held_counts() -> None:
    held = HeldPrefixes()
    held.told({1: 100, 2: 150})
    assert [held.tokens_of(prefixes) for prefixes in ((1,), (1, 2, 3), (7, 8), ())] == [
        100,
        150,
        0,
        0,
    ]
    held.told({2: 0})
    assert held.tokens_of((1, 2, 3)) == 100


def test_what_was_sent_is_expected_until_the_worker_has_told() -> None:
    held = HeldPrefixes()
    held.expect((1, 2), 90)
    assert held.tokens_of((1, 2, 3)) == 90
    assert held.tokens_of((1,)) == 0
    held.told({2: 120})
    assert held.tokens_of((1, 2)) == 120
    held.expect((1, 2), 5)  # an estimate does not replace what is known
    assert held.tokens_of((1, 2)) == 120
    held.told({2: 0})
    assert held.tokens_of((1, 2)) == 0


def test_what_is_expected_and_never_told_is_bounded() -> None:
    held = HeldPrefixes()
    for prefix in range(5000):
        held.expect((prefix,), 10)
    assert held.tokens_of((0,)) == 0
    assert held.tokens_of((4999,)) == 10
    assert len(held._expected) < 2000
