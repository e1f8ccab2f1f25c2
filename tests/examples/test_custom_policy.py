"""The policy of the example decides as it says, and names of policies lead to functions."""

from __future__ import annotations

import pytest

from workers.checked import SettingError
from workers.policy.decide import decide, policy_function
from workers.policy.phase import Phase
from workers.policy.settings import PolicySettings, check_policy
from workers.policy.view import Memory, RequestView

NAME = "examples.custom_policy:shortest_prompt"


def waiting(name: str, arrival: int, tokens: int) -> RequestView:
    return RequestView(
        request_id=name,
        phase=Phase.REASONING,
        arrival=arrival,
        running=False,
        blocks_held=0,
        blocks_needed=tokens // 16,
        tokens_needed=tokens,
    )


def test_the_shortest_prompt_goes_first_and_nothing_is_preempted() -> None:
    running = RequestView(
        request_id="running",
        phase=Phase.REASONING,
        arrival=3,
        running=True,
        blocks_held=90,
        blocks_needed=90,
    )
    requests = [
        waiting("long", 0, 640),
        waiting("short", 1, 32),
        waiting("medium", 2, 160),
        running,
    ]
    memory = Memory(free_blocks=12, free_slots=8, step_tokens=2048)
    decision = decide(PolicySettings(policy=NAME), requests, memory, now=0.0)
    assert decision.order == ("running", "short", "medium", "long")
    assert decision.admit == ("short", "medium")
    assert decision.preempt == ()


@pytest.mark.parametrize("name", ["shortest", ":f", "module:", "a.b", "a b:f", "a:b:c"])
def test_what_is_neither_a_policy_nor_a_function_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown scheduling policy"):
        check_policy(name)


def test_a_function_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"policy 'examples\.nothing:here': No module named"):
        policy_function("examples.nothing:here")
    with pytest.raises(SettingError, match="has no attribute 'nothing'"):
        policy_function("examples.custom_policy:nothing")
    with pytest.raises(SettingError, match="is not a function"):
        policy_function("workers.policy.settings:BASELINES")
