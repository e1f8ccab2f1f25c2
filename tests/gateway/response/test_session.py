"""A session's events, text and measurements, for all that an engine and a reader can do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.response.lifecycle import State
from gateway.schemas.errors import InvalidRequest, Unavailable
from tests.gateway.support.sessions import (
    ScriptedWorker,
    events_of,
    make_session,
    run_to_end,
    types_of,
)


def thinking_session(answer: tuple[str, ...] = ("It ", "is ", "4."), **fields: Any) -> Any:
    """Reasons from 1.0 to 2.0, then has the whole answer at 2.1."""
    session = make_session(**fields)
    worker = ScriptedWorker(session)
    worker.say("", "Add ", now=1.0)
    worker.say("them.", "", now=2.0, boundary=True)
    worker.say("", *answer, now=2.1)
    return session, worker


def final(session: Any) -> dict[str, Any]:
    return events_of(session)[-1]["response"]  # type: ignore[no-any-return]


def test_events_come_in_the_order_of_the_protocol() -> None:
    session, worker = thinking_session()
    worker.finish(now=2.2)
    run_to_end(session)
    assert types_of(session) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events_of(session)] == list(range(18))


def test_thoughts_pass_at_once_and_the_answer_at_the_pace() -> None:
    session, worker = thinking_session()
    worker.finish(now=2.15)
    assert session.reasoning_text == "Add them."
    assert session.answer_text == "It "  # the first at once, the others 0.1 s apart
    assert session.next_release_s() == pytest.approx(2.2)
    session.release(2.2)
    assert session.answer_text == "It is "
    assert run_to_end(session) == pytest.approx(2.3)
    assert final(session)["status"] == "completed"


def test_a_late_timer_does_not_delay_the_tokens_after_it() -> None:
    session, worker = thinking_session(("a", "b", "c", "d"))
    worker.finish(now=2.1)
    session.release(2.25)  # the token of 2.2, 50 ms late
    assert session.next_release_s() == pytest.approx(2.3)


def test_unpaced_tokens_pass_at_once() -> None:
    session, worker = thinking_session(pacing=False)
    worker.finish(now=2.2)
    assert session.answer_text == "It is 4."
    assert session.state is State.DONE


def test_figures_and_usage_of_a_whole_response() -> None:
    session, worker = thinking_session()
    worker.finish(now=2.2, preemptions=2, cached_tokens=5)
    run_to_end(session)
    response = final(session)
    assert response["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 16,
    }
    timing = response["timing"]
    assert timing["reasoning_s"] == 1.0
    assert timing["raw"] == {"ttft_s": 2.1, "ttfat_s": 0.1, "tpot_s": 0.0, "e2e_s": 2.1}
    assert timing["paced"] == {"ttft_s": 2.1, "ttfat_s": 0.1, "tpot_s": 0.1, "e2e_s": 2.3}
    assert response["qoe"]["qoe"] == 1.0
    assert response["qoe"]["qoe_ttfat"] == 1.0
    assert response["qoe"]["qoe_e2e"] == 1.0  # the first token came before the 10 s of the target
    assert response["preemptions"] == 2
    assert response["instance"] == "worker-0"


def test_a_starved_reader_lowers_qoe_and_counts_an_underrun() -> None:
    session = make_session()
    worker = ScriptedWorker(session, reasoning=False)
    worker.say("a", now=1.0)
    worker.say("b", now=2.0)  # due at 1.1
    worker.finish(now=2.0)
    run_to_end(session)
    response = final(session)
    assert response["underruns"] == 1
    # u = 0, 1; e = 0, .1; horizon 1.1: 1 - .9 / (2 * 1.1 - 4 * .1 / 2)
    assert response["qoe"]["qoe"] == pytest.approx(0.55)
    assert response["qoe"]["qoe_ttfat"] is None


def test_a_character_of_several_tokens_is_one_delta_that_says_so() -> None:
    session = make_session()
    worker = ScriptedWorker(session, reasoning=False)
    worker.say("a", "", "", "é", "b", now=1.0)
    worker.finish(now=1.0)
    run_to_end(session)
    deltas = [event for event in events_of(session) if event["type"].endswith("text.delta")]
    assert [(event["delta"], event.get("tokens", 1)) for event in deltas] == [
        ("a", 1),
        ("é", 3),
        ("b", 1),
    ]
    assert final(session)["timing"]["paced"]["tpot_s"] == pytest.approx(0.1)


def test_raw_tpot_counts_the_tokens_of_a_character() -> None:
    session = make_session()
    worker = ScriptedWorker(session, reasoning=False)
    worker.say("a", now=1.0)
    worker.say("", "", "é", now=1.3)
    worker.finish(now=1.3)
    run_to_end(session)
    assert final(session)["timing"]["raw"]["tpot_s"] == pytest.approx(0.1)


def test_no_boundary_at_all_is_incomplete() -> None:
    session = make_session()
    worker = ScriptedWorker(session)
    worker.say("hm", now=1.0)
    worker.finish(now=2.0)
    response = final(session)
    assert (response["status"], response["incomplete_details"]) == (
        "incomplete",
        {"reason": "no_answer"},
    )
    assert [item["type"] for item in response["output"]] == ["reasoning"]
    assert response["phase"] == "reasoning"
    assert types_of(session)[-1] == "incomplete"


def test_a_bound_on_tokens_is_named_as_the_reason() -> None:
    session, worker = thinking_session(max_output_tokens=7)
    worker.finish(now=2.2, reason="length")
    run_to_end(session)
    response = final(session)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][1]["status"] == "incomplete"


def test_forced_lengths_are_no_early_end() -> None:
    session, worker = thinking_session(forced_lengths={"reasoning_tokens": 4, "answer_tokens": 3})
    worker.finish(now=2.2, reason="length")
    run_to_end(session)
    assert final(session)["status"] == "completed"


@pytest.mark.parametrize(("tokens", "status"), [(5, "completed"), (6, "incomplete")])
def test_a_forced_call_counts(tokens: int, status: str) -> None:
    lengths = {"reasoning_tokens": 2, "answer_tokens": 1, "call_tokens": tokens}
    tool = {"type": "function", "name": "add"}
    session, worker = thinking_session(tools=[tool], forced_lengths=lengths)
    assert session.output_tokens == 8
    worker.finish(now=2.2, reason="length")
    run_to_end(session)
    assert final(session)["status"] == status


def test_cancel_waits_for_the_engine_and_shows_nothing_more() -> None:
    session, worker = thinking_session()
    assert session.cancel(2.15) is True
    session.release(5.0)
    assert session.next_release_s() is None
    worker.say("lost", now=2.2)
    worker.finish(now=2.3, reason="cancelled")
    response = final(session)
    assert response["incomplete_details"] == {"reason": "cancelled"}
    assert response["output"][1]["content"][0]["text"] == "It " == session.answer_text
    assert session.cancel(2.4) is False


def test_tokens_that_come_after_the_cancel_are_not_kept_for_the_reader() -> None:
    session, worker = thinking_session(answer=("It ",))
    held = session.delivery.buffered_tokens
    session.cancel(2.2)
    worker.say("is ", "4.", now=2.3)
    assert session.delivery.buffered_tokens == held
    assert len(session.token_ids) == 8  # but the token log has them


def test_cancel_while_only_the_buffer_runs_is_immediate() -> None:
    session, worker = thinking_session()
    worker.finish(now=2.2)
    assert not session.in_engine
    assert session.cancel(2.25) is False
    assert final(session)["incomplete_details"] == {"reason": "cancelled"}


def test_a_failure_sends_what_is_buffered_first() -> None:
    session, _ = thinking_session()
    session.fail(Unavailable("gone", code="instance_lost"), 2.2)
    response = final(session)
    assert session.answer_text == "It is 4."
    assert response["status"] == "failed"
    assert response["error"] == {"code": "instance_lost", "message": "gone"}
    assert response["qoe"] == {"qoe": 0.0, "qoe_ttfat": 0.0, "qoe_e2e": 0.0}
    assert types_of(session)[-1] == "failed"


def test_an_instance_that_is_lost_while_it_cancels_leaves_a_cancelled_response() -> None:
    session, _ = thinking_session()
    session.cancel(2.15)
    session.fail(Unavailable("gone", code="instance_lost"), 2.2)
    assert final(session)["incomplete_details"] == {"reason": "cancelled"}


def test_a_cut_sends_what_is_buffered_and_is_a_failure() -> None:
    session, worker = thinking_session()
    assert session.cut_short(Unavailable("bye", code="draining"), 2.15) is True
    worker.finish(now=2.2, reason="cancelled")
    response = final(session)
    assert (response["status"], response["error"]["code"]) == ("failed", "draining")
    assert session.answer_text == "It is 4."


def test_who_wanted_no_more_before_the_cut_has_cancelled() -> None:
    session, worker = thinking_session()
    session.cancel(2.15)
    session.cut_short(Unavailable("bye", code="draining"), 2.16)
    worker.finish(now=2.2, reason="cancelled")
    assert final(session)["incomplete_details"] == {"reason": "cancelled"}


def test_what_comes_after_the_end_changes_nothing() -> None:
    session, worker = thinking_session()
    session.fail(Unavailable("gone", code="instance_lost"), 2.2)
    known, text = session.token_ids[:], session.answer_text
    worker.say("more", now=2.3)
    worker.finish(now=2.4)
    assert (session.token_ids, session.answer_text) == (known, text)
    assert final(session)["status"] == "failed"


def test_usage_is_told_at_the_end_alone() -> None:
    session, _ = thinking_session()
    assert session.response_object()["usage"] is None


def test_memory_grows_with_tokens_and_text() -> None:
    session, worker = thinking_session()
    before = session.size_bytes
    worker.say("", "x" * 5000, now=2.2)
    session.fail(Unavailable("gone", code="instance_lost"), 2.3)
    assert session.size_bytes >= before + 5000 + 2 * 4
    assert make_session(input="y" * 9000).size_bytes >= make_session().size_bytes + 8900


def test_a_pause_ends_once_by_its_reader_or_by_itself() -> None:
    session, _ = thinking_session()
    session.set_pace(None, True, 2.2, longest_pause_s=10.0)
    session.set_pace(None, True, 5.0, longest_pause_s=10.0)  # does not prolong it
    assert session.pause_ends_s == 12.2
    session.set_pace(0.05, None, 6.0, longest_pause_s=10.0)
    assert session.pause_ends_s == 12.2
    session.set_pace(None, False, 7.0, longest_pause_s=10.0)
    assert session.pause_ends_s is None


def test_pause_and_pace_change_mid_stream() -> None:
    session, worker = thinking_session(("a", "b", "c", "d"))
    worker.finish(now=2.1)
    session.set_pace(None, True, 2.15, 60.0)
    assert session.next_release_s() is None
    session.release(9.0)
    assert session.answer_text == "a"
    # Half a token was still to wait: 0.1 s at the new pace.
    session.set_pace(0.2, False, 10.0, 60.0)
    assert session.next_release_s() == pytest.approx(10.1)
    run_to_end(session)
    assert session.answer_text == "abcd"
    assert final(session)["qoe"]["qoe"] == 1.0  # the pause was the reader's own


def test_an_unpaced_stream_can_be_paused_and_paced() -> None:
    session = make_session(pacing=False)
    worker = ScriptedWorker(session, reasoning=False)
    worker.say("a", now=1.0)
    session.set_pace(None, True, 1.0, 60.0)
    worker.say("b", "c", now=1.1)
    assert session.answer_text == "a"
    session.set_pace(0.5, False, 2.0, 60.0)
    assert session.pace.paced
    session.release(2.0)
    assert session.answer_text == "a"  # one token was read at 1.0; the next is due a pace later
    worker.finish(now=2.1)
    assert run_to_end(session) == pytest.approx(3.0)
    assert session.answer_text == "abc"


def test_resume_positions_are_checked() -> None:
    session, worker = thinking_session()
    session.check_resume(-1)
    last = session.log.next_sequence - 1
    session.check_resume(last)
    for wrong in (-2, last + 1):
        with pytest.raises(InvalidRequest) as caught:
            session.check_resume(wrong)
        assert caught.value.param == "starting_after"
    worker.finish(now=2.2)
    run_to_end(session)
    with pytest.raises(InvalidRequest) as caught:
        session.check_resume(session.log.next_sequence - 1)
    assert caught.value.code == "nothing_to_resume"


@given(
    thoughts=st.lists(st.sampled_from(["", "x", " y", "é"]), max_size=8),
    answer=st.lists(st.sampled_from(["", "a", "b ", "𝄞"]), max_size=12),
    gaps=st.lists(st.floats(0, 0.5), min_size=13, max_size=13),
    end=st.sampled_from(["stop", "length", "cancelled", "error"]),
    paced=st.booleans(),
)
def test_deltas_always_join_to_the_final_text(
    thoughts: list[str], answer: list[str], gaps: list[float], end: Any, paced: bool
) -> None:
    session = make_session(pacing=None if paced else False)
    worker = ScriptedWorker(session)
    now = 1.0
    worker.say(*thoughts, "", now=now, boundary=True)
    for text, gap in zip(answer, gaps, strict=False):
        now += gap
        session.release(now)
        worker.say(text, now=now)
    if end == "cancelled":
        session.cancel(now)
    worker.finish(now=now, reason=end)
    run_to_end(session)
    assert session.finished
    events = events_of(session)
    joined = {"reasoning": "", "output": ""}
    for event in events:
        if event["type"].endswith("_text.delta"):
            joined[event["type"].split(".")[1].removesuffix("_text")] += event["delta"]
    texts = {item["type"]: item["content"][0]["text"] for item in final(session)["output"]}
    assert joined["reasoning"] == texts.get("reasoning", "") == "".join(thoughts)
    assert joined["output"] == texts.get("message", "")
    if end in ("stop", "length"):
        assert joined["output"] == "".join(answer)
    terminal = [
        e for e in events if e["type"].split(".")[1] in ("completed", "incomplete", "failed")
    ]
    assert len(terminal) == 1
    assert terminal[0] is events[-1]
