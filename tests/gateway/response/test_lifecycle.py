"""The transition table, and the page that shows it."""

import lifecycle_diagrams
import pytest

from gateway.response.lifecycle import FINAL, TRANSITIONS, Event, IllegalTransition, State, advance
from gateway.routing.route import Stage


def test_a_thinking_request_runs_through_all_states() -> None:
    state = State.QUEUED
    seen = [state]
    for event in (Event.REASONING_BEGAN, Event.TO_ANSWERING, Event.GENERATED, Event.DELIVERED):
        state = advance(TRANSITIONS, state, event)
        seen.append(state)
    assert seen == [
        State.QUEUED,
        State.REASONING,
        State.ANSWERING,
        State.DELIVERING,
        State.DONE,
    ]


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL])
def test_every_running_state_can_be_cancelled_and_can_fail(state: State) -> None:
    assert advance(TRANSITIONS, state, Event.CANCEL) is State.CANCELLED
    assert advance(TRANSITIONS, state, Event.FAIL) is State.FAILED


@pytest.mark.parametrize("state", [state for state in State if state in FINAL])
@pytest.mark.parametrize("event", list(Event))
def test_nothing_leaves_a_final_state(state: State, event: Event) -> None:
    with pytest.raises(IllegalTransition) as caught:
        advance(TRANSITIONS, state, event)
    assert (caught.value.state, caught.value.event) == (state, event)


def test_every_state_can_be_reached() -> None:
    assert {State.QUEUED, *TRANSITIONS.values()} == set(State)


def test_delivery_cannot_end_before_generation() -> None:
    with pytest.raises(IllegalTransition):
        advance(TRANSITIONS, State.ANSWERING, Event.DELIVERED)


def test_the_page_shows_both_tables_as_they_are() -> None:
    page = lifecycle_diagrams.PAGE.read_text()
    assert lifecycle_diagrams.rendered(page) == page, "run python scripts/lifecycle_diagrams.py"
    for word in (*State, *Stage):
        assert f"`{word.name}`" in page
