"""Admission: which responses count against which limit, until when, and what is told to others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import Admission
from gateway.config import LimitsConfig
from gateway.policy.capacity import Engine
from gateway.response.session import Session
from gateway.schemas.errors import Overloaded
from tests.gateway.support.sessions import ScriptedWorker, make_session

STEP_S = 1.0
PROMPT_TOKENS = 108
ENGINE = Engine(kv_tokens=1200, places=64, longest=4096, running=4, step_s=STEP_S)


def admission(engines: int = 10, readers: int = 10, user: int = 10) -> Admission:
    limits = LimitsConfig(max_requests=engines, max_readers=readers, max_requests_per_user=user)
    return Admission(limits)


def refused(counts: Admission, response_id: str, user: str = "") -> Overloaded:
    with pytest.raises(Overloaded) as caught:
        counts.admit(response_id, user)
    return caught.value


def test_engines_are_full_until_a_response_is_generated() -> None:
    counts = admission(engines=1)
    counts.admit("a", "")
    error = refused(counts, "b")
    assert error.code == "server_overloaded"
    assert "limits.max_requests" in error.message
    counts.update("a", in_engine=False, followed=True)
    counts.admit("b", "")
    assert counts.in_engines == 1


def test_the_gateway_is_full_of_responses_that_are_still_read() -> None:
    counts = admission(engines=1, readers=2)
    for name in ("a", "b"):
        counts.admit(name, "")
        counts.update(name, in_engine=False, followed=True)
    error = refused(counts, "c")
    assert error.code == "server_overloaded"
    assert "limits.max_readers" in error.message
    counts.remove("a")
    counts.admit("c", "")


def test_a_user_is_at_the_limit_while_engines_work_or_a_client_reads() -> None:
    counts = admission(user=1)
    counts.admit("a", "ann")
    counts.admit("b", "bob")
    counts.update("a", in_engine=True, followed=False)  # its client left; the engine goes on
    error = refused(counts, "c", "ann")
    assert error.code == "rate_limit_exceeded"
    counts.update("a", in_engine=False, followed=True)
    refused(counts, "c", "ann")
    counts.update("a", in_engine=False, followed=False)
    counts.admit("c", "ann")
    counts.update("a", in_engine=False, followed=True)  # its client is back
    counts.remove("c")
    refused(counts, "d", "ann")
    counts.remove("a")
    counts.admit("d", "ann")


def test_nobody_without_a_key_or_a_user_is_counted() -> None:
    counts = admission(user=1)
    for name in ("a", "b", "c"):
        counts.admit(name, "")


def test_all_counts_return_to_the_start_whatever_is_said_twice() -> None:
    counts = admission()
    for name in ("a", "b"):
        counts.admit(name, "ann")
    for _ in range(2):
        counts.update("a", in_engine=False, followed=False)
        counts.update("b", in_engine=False, followed=True)
        counts.remove("a")
        counts.remove("b")
        counts.update("a", in_engine=True, followed=True)  # of one that has ended
    assert (counts.in_engines, counts._admitted, counts._of_user) == (0, {}, {})


# ---- what engines can generate in time


class Gateway:
    """Admission, and the sessions of what it admitted."""

    def __init__(self, *engines: Engine, **limits: Any) -> None:
        self.now = 0.0
        self.engines = list(engines) or [ENGINE]
        self.admission = Admission(LimitsConfig(**limits), lambda: self.engines)
        self.sessions: dict[str, Session] = {}
        self.workers: dict[str, ScriptedWorker] = {}

    def ask(
        self,
        name: str,
        reasoning: int = 10,
        answer: int = 0,
        user: str = "",
        gives_way: bool = False,
        **fields: Any,
    ) -> int | None:
        """Ask for a response; None if it begins, else what ``Retry-After`` says."""
        if reasoning + answer:
            lengths = {"reasoning_tokens": reasoning, "answer_tokens": max(answer, 1)}
            fields["forced_lengths"] = lengths
        text = name.ljust(4 * (PROMPT_TOKENS - 8))  # by the estimate, until it is counted
        session = make_session(self.now, input=text, **fields)
        try:
            self.admission.admit(name, user, session.generation, now=self.now, gives_way=gives_way)
        except Overloaded as error:
            return error.retry_after_s
        self.admission.began(name, session)
        self.sessions[name] = session
        self.workers[name] = ScriptedWorker(session)
        session.prompt_tokens = PROMPT_TOKENS
        return None

    def pass_s(self, seconds: float) -> None:
        """Let the engine make its steps; what is finished ends."""
        self.now += seconds
        for name, session in list(self.sessions.items()):
            forced = session.generation.forced_lengths
            assert forced is not None
            steps = int((self.now - session.delivery.submitted_s) / STEP_S + 1e-6)
            if steps >= forced.reasoning_tokens:
                self.end(name)
            else:
                self.workers[name].say(*"x" * (steps - len(session.token_ids)), now=self.now)

    def end(self, name: str) -> None:
        self.admission.update(name, in_engine=False, followed=True)
        self.admission.remove(name)
        del self.sessions[name]


def full(**limits: Any) -> Gateway:
    """A gateway whose room is taken by requests that end after 8 s, 9 s and so on."""
    gateway = Gateway(**limits)
    for number in range(100):
        if gateway.ask(f"running {number}", 8 + number) is not None:
            break
    return gateway


def test_requests_are_admitted_as_long_as_the_engines_can_serve_them_in_time() -> None:
    gateway = full()
    assert len(gateway.sessions) == 10
    assert gateway.admission.load(0.0) == pytest.approx(1.0, abs=0.15)
    assert full(load=0.5).admission.in_engines < len(gateway.sessions)


def test_without_a_load_only_the_counts_are_limits() -> None:
    gateway = Gateway(load=0.0)
    assert [gateway.ask(str(number)) for number in range(200)] == [None] * 200


def test_an_instance_without_requests_takes_any() -> None:
    small = replace(ENGINE, kv_tokens=10, places=1)
    gateway = Gateway(small, small)
    assert gateway.ask("a", 5000) is None
    assert gateway.ask("b", 5000) is None
    assert gateway.ask("c", 1) is not None


def test_an_answer_that_is_read_slowly_leaves_room_for_others() -> None:
    quick = replace(ENGINE, step_s=0.01)
    fast, slow = Gateway(quick), Gateway(quick)
    for number in range(200):
        fast.ask(str(number), 1, 100, pacing=False)
        slow.ask(str(number), 1, 100, pacing={"tpot_s": 0.1})
    assert slow.admission.in_engines > 5 * fast.admission.in_engines


def test_a_forced_call_takes_the_room_of_thoughts() -> None:
    thoughts, calls, neither = Gateway(), Gateway(), Gateway()
    tools = [{"type": "function", "name": "run"}]
    lengths = {"reasoning_tokens": 2, "answer_tokens": 1, "call_tokens": 60}
    for number in range(60):
        thoughts.ask(str(number), 62, 1, tools=tools)
        calls.ask(str(number), 0, tools=tools, forced_lengths=lengths)
        neither.ask(str(number), 2, 1, tools=tools)
    assert calls.admission.in_engines == thoughts.admission.in_engines
    assert calls.admission.in_engines < neither.admission.in_engines


def test_who_gives_way_leaves_some_of_the_load_to_others_and_gets_no_place() -> None:
    gateway = Gateway()
    while gateway.ask(f"low {len(gateway.sessions)}", 50, gives_way=True) is None:
        pass
    assert 6 <= len(gateway.sessions) < 10
    assert gateway.admission.promised == 0
    before = len(gateway.sessions)
    while gateway.ask(f"normal {len(gateway.sessions)}", 50) is None:
        pass
    assert len(gateway.sessions) > before


def test_a_refused_request_is_told_when_the_next_one_ends() -> None:
    gateway = full()
    gateway.pass_s(4.0)
    told_s = gateway.ask("late")
    assert told_s is not None
    assert 4 <= told_s <= 7
    gateway.pass_s(told_s)
    assert gateway.ask("late") is None


def test_who_comes_as_told_is_admitted_before_those_who_are_new() -> None:
    gateway = full()
    room = len(gateway.sessions)
    told = {f"refused {number}": gateway.ask(f"refused {number}") for number in range(3 * room)}
    waits = [wait_s for wait_s in told.values() if wait_s is not None]
    assert len(waits) == 3 * room
    assert waits == sorted(waits)
    assert max(waits) > 2 * min(waits)  # they cannot all come when the first place is free
    refused_again = admitted_new = 0
    while told:
        gateway.pass_s(1.0)
        admitted_new += gateway.ask(f"new at {gateway.now}") is None
        for name in [n for n, at_s in told.items() if at_s is not None and at_s <= gateway.now]:
            wait_s = gateway.ask(name)
            refused_again += wait_s is not None
            if wait_s is None:
                del told[name]
            else:
                told[name] = round(gateway.now) + wait_s
    assert refused_again <= 3
    assert admitted_new <= 3
    assert gateway.now <= 1.1 * max(waits)


def test_who_comes_early_is_told_what_is_left() -> None:
    gateway = full()
    gateway.pass_s(2.0)
    promised = gateway.admission.promised
    told_s = gateway.ask("late")
    assert told_s is not None
    gateway.pass_s(2.0)
    assert gateway.ask("late") == told_s - 2
    assert gateway.admission.promised == promised + 1


def test_who_asks_early_again_and_again_neither_gains_nor_loses_a_place() -> None:
    gateway = full()
    told_s = gateway.ask("late")
    assert told_s is not None
    for number in range(5):
        gateway.ask(f"behind {number}")
    for _ in range(3):
        gateway.pass_s(1.0)
        gateway.ask("late")
    assert gateway.ask("late") == told_s - 3
    assert not any(one.came for one in gateway.admission._promises._by_key.values())


def test_less_room_is_kept_for_those_whose_like_do_not_come() -> None:
    gateway = full()
    for number in range(20):
        gateway.ask(f"refused {number}")
    admission = gateway.admission
    before = max(admission._promised._booked()[0])
    admission._promises._shares[:] = [0.1] * len(admission._promises._shares)
    gateway.pass_s(1.0)
    gateway.ask("another")
    assert max(admission._promised._booked()[0]) < 0.3 * before


def test_a_place_that_is_not_taken_is_free_for_others() -> None:
    gateway = full()
    told_s = gateway.ask("never comes")
    assert told_s is not None
    gateway.pass_s(told_s + 1.0)
    for number in range(100):  # all but one place
        if gateway.ask(f"new {number}") is not None:
            break
    taken = len(gateway.sessions)
    gateway.now += 3.0
    assert gateway.ask("another") is None
    assert gateway.admission.promised <= 1
    assert len(gateway.sessions) == taken + 1


@pytest.mark.parametrize("load", [0.0, 1.0])
def test_a_limit_on_counts_tells_when_the_next_one_ends(load: float) -> None:
    gateway = Gateway(max_requests=2, load=load)
    gateway.ask("a", 10)
    gateway.ask("b", 20)
    assert [gateway.ask("c"), gateway.ask("d")] == [11, 21]  # and a step of the answer
    gateway.pass_s(11.0)
    assert gateway.ask("e") is not None  # the place is that of c
    assert gateway.ask("c") is None
    assert gateway.ask("d") == 10
    gateway.pass_s(100.0)
    gateway.ask("f")
    assert gateway.admission.promised == 0  # that of d has lapsed


def test_a_user_is_told_when_an_own_response_ends() -> None:
    gateway = Gateway(max_requests_per_user=1)
    gateway.ask("a", 10, user="ann")
    gateway.ask("b", 1, user="bob")
    assert gateway.ask("c", user="ann") == 11
    gateway.pass_s(11.0)
    assert gateway.ask("c", user="ann") is None


def test_a_limit_on_readers_tells_when_one_has_read_it_all() -> None:
    gateway = Gateway(max_readers=1)
    gateway.ask("a", 1, 40, pacing={"tpot_s": 0.5})
    worker = gateway.workers["a"]
    worker.say("x", now=0.0, boundary=True)
    worker.say(*"y" * 41, now=0.0)
    gateway.admission.update("a", in_engine=False, followed=True)
    assert gateway.ask("b") == 20


def test_before_an_engine_has_made_steps_the_configured_time_is_told() -> None:
    gateway = Gateway(replace(ENGINE, step_s=None), max_requests=1, retry_after_s=7)
    gateway.ask("a")
    assert gateway.ask("b") == 7


def test_without_an_instance_the_router_refuses() -> None:
    gateway = Gateway()
    gateway.engines = []
    assert [gateway.ask(str(number), 5000) for number in range(20)] == [None] * 20


def test_lengths_are_learned_from_what_the_model_ended() -> None:
    gateway = Gateway()
    assert gateway.ask("a", 0) is None
    worker = gateway.workers["a"]
    worker.say(*"abcdefgh", now=1.0, boundary=True)
    work = gateway.admission._work_of(gateway.admission._admitted["a"])
    assert work is not None
    assert (work.reasoning_tokens, work.answer_tokens > 0) == (0, True)
    worker.say(*"xyz", now=1.0)
    worker.finish(1.0)
    gateway.end("a")
    lengths = gateway.admission._lengths
    assert (lengths.reasoning_tokens(0.5, 0), lengths.answer_tokens(0.5, 0)) == (8, 4)


def test_no_more_is_expected_than_a_request_may_generate() -> None:
    engine = replace(ENGINE, kv_tokens=5000)
    bounded = Gateway(engine)
    for number in range(40):
        bounded.ask(str(number), 0, max_output_tokens=2)
    open_ = Gateway(engine)
    for number in range(40):
        open_.ask(str(number), 0)
    short = Gateway(replace(engine, longest=PROMPT_TOKENS + 10))
    for number in range(40):
        short.ask(str(number), 0)
    assert bounded.admission.in_engines == 40
    assert open_.admission.in_engines < short.admission.in_engines


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 300), st.integers(1, 200), st.booleans()),
        max_size=60,
    )
)
def test_whatever_comes_the_engines_are_never_booked_far_above_the_load(
    asked: list[tuple[int, int, int, bool]],
) -> None:
    gateway = Gateway()
    for number, (after_s, reasoning, answer, again) in enumerate(asked):
        gateway.pass_s(after_s)
        name = str(number // 2 if again else number)
        if name in gateway.sessions:
            continue
        told_s = gateway.ask(name, reasoning, answer)
        assert told_s is None or told_s >= 1
        # Those who are due may go beyond it, and one request always begins.
        if gateway.admission.in_engines > 1:
            largest = max(
                reasoning + answer + PROMPT_TOKENS
                for s in gateway.sessions.values()
                if (forced := s.generation.forced_lengths)
                for reasoning, answer in [(forced.reasoning_tokens, forced.answer_tokens)]
            )
            kv_tokens = max(gateway.admission._running._booked()[0])
            assert kv_tokens <= 1.25 * ENGINE.kv_tokens + largest
