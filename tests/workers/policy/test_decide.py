"""The policies as pure functions: rules for all decisions, and the purpose of each policy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.support.policy_checks import check
from tests.workers.support.policy_simulation import STEP_S, Request, Simulation
from workers.policy.decide import decide, queue_of
from workers.policy.phase import Phase
from workers.policy.settings import BASELINES, POLICIES, PolicySettings
from workers.policy.view import HIGH_QUEUE, LOW_QUEUE, Decision, Memory, RequestView, slack_s

SMALL = PolicySettings(
    quantum_tokens=8,
    demotion_tokens=20,
    low_water_s=0.5,
    high_water_s=1.5,
    starvation_s=4.0,
    min_run_tokens=3,
    max_preemptions_per_step=2,
    max_preemptions=5,
)
NOW = 1000.0


def of(policy: str, base: PolicySettings = SMALL, **changes: Any) -> PolicySettings:
    return msgspec.structs.replace(base, policy=policy, **changes)


def view(request_id: str, phase: Phase = Phase.REASONING, **fields: Any) -> RequestView:
    values: dict[str, Any] = {"running": False, "arrival": 0, "blocks_held": 0, "blocks_needed": 1}
    values |= {"waiting_since": NOW, "queue": queue_of(of("pascal"), phase, 0)}
    if fields.get("running"):
        values["blocks_held"] = 1
    return RequestView(request_id=request_id, phase=phase, **(values | fields))


def answer(request_id: str, slack: float, **fields: Any) -> RequestView:
    return view(request_id, Phase.ANSWERING, dry_at=NOW + slack, **fields)


# ---- any view


@st.composite
def views(draw: st.DrawFn) -> list[RequestView]:
    made = []
    for index in range(draw(st.integers(1, 12))):
        phase = draw(st.sampled_from(Phase))
        running = draw(st.booleans())
        held = draw(st.integers(1, 9)) if running else draw(st.sampled_from([0, 0, 0, 3]))
        answering = phase is Phase.ANSWERING
        demoted = draw(st.integers(0, 5)) == 0
        made.append(
            RequestView(
                request_id=f"r{index}",
                phase=phase,
                arrival=index,
                running=running,
                blocks_held=held,
                blocks_needed=held + draw(st.integers(0 if held else 1, 6)),
                tokens_needed=draw(st.integers(1, 60)),
                ready=running or draw(st.integers(0, 5)) > 0,
                queue=LOW_QUEUE if answering or demoted else HIGH_QUEUE,
                queue_position=draw(st.integers(0, 30)) * 100 + index,
                quanta=draw(st.integers(0, 3)),
                run_tokens=draw(st.integers(0, 12)) if running else 0,
                preemptions=draw(st.integers(0, SMALL.max_preemptions)),
                dry_at=NOW + draw(st.floats(-2, 5)) if answering and draw(st.booleans()) else None,
                resume_s=draw(st.floats(0, 0.5)),
                waiting_since=NOW - draw(st.floats(0, 6)),
                urgent=answering and draw(st.booleans()),
                user=draw(st.sampled_from([None, "a", "b"])),
            )
        )
    return made


memories = st.builds(
    Memory,
    free_blocks=st.integers(0, 12),
    free_slots=st.integers(0, 4),
    step_tokens=st.integers(12, 200),
    reserve_blocks=st.sampled_from([0, 0, 2]),
)


@given(policy=st.sampled_from(POLICIES + BASELINES), requests=views(), memory=memories)
@settings(max_examples=600, deadline=None)
def test_no_decision_exceeds_memory_or_passes_over_reasoning(
    policy: str, requests: list[RequestView], memory: Memory
) -> None:
    decision = decide(of(policy), requests, memory, NOW)
    check(of(policy), requests, memory, NOW, decision)
    assert decide(of(policy), requests[::-1], memory, NOW).order == decision.order


@given(policy=st.sampled_from(POLICIES + BASELINES), requests=views(), memory=memories)
@settings(deadline=None)
def test_to_every_policy_a_call_is_a_thought(
    policy: str, requests: list[RequestView], memory: Memory
) -> None:
    thoughts = [
        msgspec.structs.replace(r, phase=Phase.REASONING) if r.phase is Phase.CALLING else r
        for r in requests
    ]
    decision = decide(of(policy), requests, memory, NOW)
    assert decision == decide(of(policy), thoughts, memory, NOW)
    for tokens in (0, SMALL.demotion_tokens):
        calling = queue_of(of(policy), Phase.CALLING, tokens)
        assert calling == queue_of(of(policy), Phase.REASONING, tokens)


# ---- to the end


workloads = st.lists(
    st.builds(
        Request,
        name=st.just(""),
        arrives=st.integers(1, 80),
        prompt=st.integers(1, 30),
        reasoning=st.integers(0, 60),
        answer=st.integers(1, 50),
        tau_s=st.sampled_from([0.02, 0.1, 0.2]),
        paused=st.tuples(st.integers(0, 80), st.integers(60, 400)),
        aborted=st.none() | st.integers(90, 200),
        user=st.sampled_from([None, "a", "b"]),
    ),
    min_size=1,
    max_size=14,
)


@given(
    policy=st.sampled_from(POLICIES + BASELINES),
    requests=workloads,
    blocks=st.integers(36, 90),  # the largest request needs 35
    slots=st.integers(1, 8),
)
@settings(max_examples=150, deadline=None)
def test_every_request_finishes_and_is_preempted_a_bounded_number_of_times(
    policy: str, requests: list[Request], blocks: int, slots: int
) -> None:
    for index, request in enumerate(requests):
        request.name = f"r{index}"
    simulation = Simulation(of(policy), requests, blocks, slots)
    simulation.run(check, limit=20_000)
    for r in requests:
        if policy == "fcfs":
            assert r.decided_preemptions == 0
        elif policy == "rr":  # at most once in a turn
            assert r.decided_preemptions <= 1 + r.tokens // SMALL.quantum_tokens
        elif policy == "slack":
            assert r.decided_preemptions <= SMALL.max_preemptions


def test_pressure_in_the_simulation_is_real() -> None:
    """The properties above would also hold for an idle machine."""
    for policy in POLICIES + BASELINES:
        requests = [Request(f"r{i}", 1 + 3 * i, 20, 40, 30, tau_s=0.2) for i in range(14)]
        simulation = Simulation(of(policy), requests, blocks=60, slots=8)
        simulation.run(check, limit=20_000)
        assert (simulation.preemptions > 10) == (policy != "fcfs")


def test_slack_thinks_fastest_swaps_least_and_starves_no_reader() -> None:
    """Bursts of eight requests in memory for five, on an engine fast enough for all readers."""
    swaps, starved, reasoning_s = {}, {}, {}
    for policy in POLICIES:
        requests = [Request(f"r{i}", 1 + 112 * (i // 8), 20, 40, 40, tau_s=0.4) for i in range(40)]
        numbers = of(policy, max_preemptions=50)
        simulation = Simulation(numbers, requests, blocks=80, slots=20)
        simulation.run(check, limit=20_000)
        swaps[policy] = simulation.preemptions
        starved[policy] = sum(r.starved_steps for r in requests)
        reasoning_s[policy] = sum((r.boundary_at or 0) - r.arrives * STEP_S for r in requests)
    assert 0 < swaps["slack"] < min(swaps["rr"], swaps["pascal"])
    assert starved["slack"] == 0 < min(starved["rr"], starved["pascal"])
    assert min(reasoning_s, key=reasoning_s.__getitem__) == "slack"
    assert reasoning_s["pascal"] < reasoning_s["fcfs"]


# ---- each policy


FULL = Memory(free_blocks=0, free_slots=8, step_tokens=1000)


def test_fcfs_leaves_everything_to_vllm() -> None:
    decision = decide(of("fcfs"), [view("new"), answer("old", 9, running=True)], FULL, NOW)
    assert decision == Decision(order=("old", "new"))


def test_round_robin_is_blind_to_the_phase() -> None:
    requests = [
        view("used up", running=True, queue_position=5),
        answer("fresh", 9, running=True, queue_position=2, queue=HIGH_QUEUE),
        answer("waiting", 9, queue_position=3, queue=HIGH_QUEUE),
        view("late", queue_position=6),
    ]
    decision = decide(of("rr"), requests, FULL, NOW)
    assert decision.order == ("fresh", "waiting", "used up", "late")
    assert (decision.preempt, decision.admit) == (("used up",), ("waiting",))
    assert queue_of(of("rr"), Phase.ANSWERING, 10**6) == HIGH_QUEUE


def test_pascal_has_two_queues_and_demotes_long_reasoning() -> None:
    paper = PolicySettings(policy="pascal")
    assert (paper.quantum_tokens, paper.demotion_tokens) == (500, 5000)
    assert queue_of(paper, Phase.REASONING, 4999) == HIGH_QUEUE
    assert queue_of(paper, Phase.REASONING, 5000) == LOW_QUEUE
    assert queue_of(paper, Phase.ANSWERING, 1) == LOW_QUEUE
    assert queue_of(of("slack"), Phase.REASONING, 10**6) == HIGH_QUEUE
    requests = [
        answer("starving", -50, running=True, queue_position=1),
        view("demoted", running=True, queue_position=2, queue=LOW_QUEUE),
        view("first", queue_position=3),
        view("second", queue_position=4),
    ]
    decision = decide(paper, requests, FULL, NOW)
    assert decision.order == ("first", "second", "starving", "demoted")
    assert decision.preempt == ("demoted", "starving")  # slack means nothing to it


def test_slack_ranks_urgent_then_reasoning_then_the_well_fed() -> None:
    requests = [
        answer("fed", 3, running=True),
        answer("overfed", 9, running=True),
        view("reasoning"),
        answer("dry", 0.1),
        answer("less dry", 0.4),
    ]
    decision = decide(of("slack"), requests, FULL, NOW)
    assert decision.order == ("dry", "less dry", "reasoning", "fed", "overfed")
    assert decision.preempt == ("overfed", "fed")
    assert decision.admit == ("dry", "less dry")
    assert decision.urgent == {"dry", "less dry"}


def test_andes_serves_who_gains_most_for_its_memory() -> None:
    numbers = of("andes", qoe_horizon_s=10.0)
    requests = [
        answer("fed", 30, running=True),  # gains nothing within the horizon
        answer("hungry", 6, running=True, blocks_held=2, blocks_needed=2),  # 4 s for 2 blocks
        view("large", blocks_needed=8),  # 10 s for 8
        view("small", arrival=1, blocks_needed=2),  # 10 s for 2
        answer("soon", 2, resume_s=6.0),  # 4 s for 1: before, it is not back
    ]
    decision = decide(numbers, requests, FULL, NOW)
    assert decision.order == ("small", "soon", "hungry", "large", "fed")
    assert (decision.preempt, decision.admit) == (("hungry", "fed"), ("small", "soon"))
    thinks = view("thinks", running=True, blocks_held=2, blocks_needed=2)
    assert decide(numbers, [thinks, requests[3]], FULL, NOW).preempt == (), "equal worth stays"


def test_andes_preempts_no_more_than_it_may() -> None:
    requests = [answer("fed", 30, running=True, preemptions=2), view("new"), view("newer")]
    for allowed, preempt in ((1.0, ("fed",)), (2 / 3, ())):
        numbers = of("andes", preemptions_per_request=allowed)
        assert decide(numbers, requests, FULL, NOW).preempt == preempt


def test_tokenflow_serves_the_emptiest_buffer_and_makes_room_where_there_is_enough() -> None:
    requests = [
        answer("fed", 1.6, running=True),
        answer("dear", 1.6, running=True, arrival=1, resume_s=0.2),  # back too late
        answer("near", 1.4, running=True),
        answer("empty", -1.0, arrival=2),
        view("thinks", arrival=3),
        answer("some", 0.6, arrival=4),
    ]
    decision = decide(of("tokenflow"), requests, FULL, NOW)
    assert decision.order == ("empty", "thinks", "some", "near", "fed", "dear")
    assert (decision.preempt, decision.admit) == (("fed",), ("empty",))
    some = decide(of("tokenflow"), [requests[0], requests[-1]], FULL, NOW)
    assert some.preempt == (), "it has more in store than the low-water mark"
    thinking = view("thinking", running=True)
    assert decide(of("tokenflow"), [thinking, requests[3]], FULL, NOW).preempt == ()


def test_tokenflow_makes_room_for_who_is_nearly_empty() -> None:
    requests = [answer("fed", 1.6, running=True), answer("nearly", 0.3)]
    assert decide(of("tokenflow"), requests, FULL, NOW).preempt == ("fed",)


def test_to_the_baselines_equals_run_on_and_come_in_order() -> None:
    numbers = {"andes": of("andes", qoe_horizon_s=10.0), "tokenflow": of("tokenflow")}
    for policy in BASELINES:
        equals = [view("waits"), view("runs", arrival=1, running=True)]
        assert decide(numbers[policy], equals, FULL, NOW).order == ("runs", "waits")
    fed = [answer("first", 40), answer("second", 30, arrival=1)]  # neither gains anything
    assert decide(numbers["andes"], fed, FULL, NOW).order == ("first", "second")
    dry = [answer("first", -1), answer("second", -5, arrival=1)]  # neither has anything
    assert decide(numbers["tokenflow"], dry, FULL, NOW).order == ("first", "second")


def test_to_the_baselines_a_reader_who_takes_everything_has_nothing_in_store() -> None:
    for policy in BASELINES:
        ahead, paused = answer("ahead", 1000), view("paused", Phase.ANSWERING)
        unpaced = answer("unpaced", 1000, arrival=1, paced=False)
        order = decide(of(policy), [ahead, paused, unpaced], FULL, NOW).order
        assert order == ("unpaced", "ahead", "paused")


def test_low_water_covers_the_cost_of_resuming() -> None:
    cheap, dear = answer("cheap", 0.9), answer("dear", 0.9, resume_s=0.5)
    assert slack_s(dear, NOW) == pytest.approx(0.4)
    assert decide(of("slack"), [cheap, dear], FULL, NOW).urgent == {"dear"}


@given(st.lists(st.floats(0.51, 1.49), min_size=1, max_size=20), st.booleans())
def test_between_the_water_marks_nothing_changes(slacks: list[float], urgent: bool) -> None:
    for slack in slacks:
        request = answer("a", slack, running=True, run_tokens=99, urgent=urgent)
        assert bool(decide(of("slack"), [request], FULL, NOW).urgent) == urgent


def test_urgency_begins_below_low_water_and_ends_at_high_water() -> None:
    def urgent(slack: float, before: bool, run_tokens: int = 99) -> bool:
        request = answer("a", slack, running=True, run_tokens=run_tokens, urgent=before)
        return bool(decide(of("slack"), [request], FULL, NOW).urgent)

    assert urgent(0.49, False)
    assert not urgent(0.51, False)
    assert urgent(1.49, True)
    assert not urgent(1.51, True)
    assert urgent(9.0, True, run_tokens=2), "a resume must be worth its cost"


def test_running_goes_before_waiting_within_a_class() -> None:
    requests = [answer("waiting", 0.1), answer("running", 0.3, running=True)]
    decision = decide(of("slack"), requests, FULL, NOW)
    assert decision.order == ("running", "waiting")
    assert decision.preempt == ()


def test_reasoning_is_ordered_by_quanta_and_may_use_one_up() -> None:
    def decision(run_tokens: int) -> Decision:
        long = view("long", running=True, quanta=3, run_tokens=run_tokens)
        return decide(of("slack"), [long, view("short", arrival=1)], FULL, NOW)

    assert decision(8).preempt == ("long",)
    assert decision(7).preempt == ()
    assert decision(7).order == ("short", "long")


def test_a_user_with_many_requests_does_not_starve_a_user_with_one() -> None:
    many = [view(f"many {i}", arrival=i, user="many") for i in range(50)]
    one = view("one", arrival=99, user="one")
    nobody = view("nobody", arrival=98)
    order = decide(of("slack"), [*many, nobody, one], FULL, NOW).order
    assert order[:4] == ("many 0", "nobody", "one", "many 1")
    busy = view("busy", running=True, arrival=0, user="many")
    assert decide(of("slack"), [busy, *many, one], FULL, NOW).order[:3] == ("busy", "one", "many 0")


def test_a_long_thinker_gets_on_among_short_ones_that_never_end() -> None:
    """Requests with the fewest quanta go first, but a waiting request ages."""
    long = Request("long", 1, 4, 60, 1)
    crowd = [Request(f"r{i}", 1 + 2 * i, 20, 8, 1) for i in range(1000)]
    simulation = Simulation(of("slack"), [long, *crowd], blocks=24, slots=2)
    while long in simulation.coming or long in simulation.here:
        simulation.advance(check)
        assert simulation.now < 6 * SMALL.starvation_s + 200 * STEP_S
    assert len(simulation.here) > 10


def test_a_user_s_first_request_goes_before_fresher_ones_of_another() -> None:
    many = [view(f"many {i}", arrival=i, user="many") for i in range(9)]
    one = view("one", arrival=99, user="one", quanta=2)
    order = decide(of("slack"), [*many, one], FULL, NOW).order
    assert order[:3] == ("many 0", "one", "many 1")


def test_a_reader_who_takes_everything_at_once_has_no_slack() -> None:
    ahead = answer("ahead", 1000, running=True, run_tokens=1000)
    unpaced = answer("unpaced", 1000, paced=False)
    assert decide(of("slack"), [ahead, unpaced], FULL, NOW).order == ("unpaced", "ahead")


def test_of_two_that_starve_the_one_that_waits_longer_goes_first() -> None:
    late = answer("late", 1000, arrival=1, waiting_since=NOW - 2 * SMALL.starvation_s)
    early = answer("early", 1000, arrival=0, waiting_since=NOW - 1.5 * SMALL.starvation_s)
    assert decide(of("slack"), [early, late], FULL, NOW).order == ("late", "early")


def test_a_running_prompt_takes_its_share_of_the_step() -> None:
    prompt = view("prompt", running=True, tokens_needed=FULL.step_tokens)
    low = answer("low", 1000, running=True, run_tokens=1000)
    new = view("new", arrival=9, tokens_needed=5)
    decision = decide(
        of("slack"), [prompt, low, new], dataclasses.replace(FULL, free_blocks=0), NOW
    )
    assert (decision.preempt, decision.admit) == ((), ())


def test_answering_does_not_starve_whatever_its_slack() -> None:
    """A paused reader's answer among reasoning requests that never end."""
    forgotten = Request("forgotten", 1, 4, 0, 3, paused=(0, 10**6))
    crowd = [Request(f"r{i}", 1 + 2 * i, 20, 30, 1) for i in range(400)]
    simulation = Simulation(of("slack"), [forgotten, *crowd], blocks=30, slots=2)
    while forgotten in simulation.coming or forgotten in simulation.here:
        simulation.advance(check)
        assert simulation.now < 2 * SMALL.starvation_s + 100 * STEP_S
    assert len(simulation.here) > 10


def test_who_was_preempted_often_enough_keeps_its_memory() -> None:
    fed = answer("fed", 9, running=True, preemptions=5)
    long = view("long", running=True, quanta=3, run_tokens=99, preemptions=5)
    assert decide(of("slack"), [fed, long, view("new")], FULL, NOW).preempt == ()


def test_nobody_is_preempted_in_vain_or_needlessly() -> None:
    small = answer("small", 9, running=True, blocks_held=1, blocks_needed=1)
    large = answer("large", 8, running=True, blocks_held=6, blocks_needed=6)
    fits = decide(of("slack"), [small, large, view("new", blocks_needed=6)], FULL, NOW)
    assert fits.preempt == ("large",)
    too_much = decide(of("slack"), [small, large, view("new", blocks_needed=8)], FULL, NOW)
    assert too_much.preempt == too_much.admit == ()


def test_the_budget_bounds_a_step_but_never_blocks_the_first() -> None:
    running = [answer(f"a{i}", 9, running=True) for i in range(9)]
    decision = decide(of("slack"), [*running, view("big", blocks_needed=5)], FULL, NOW)
    assert len(decision.preempt) == 5
    waiting = [view(f"w{i}", arrival=i) for i in range(9)]
    assert len(decide(of("slack"), [*running, *waiting], FULL, NOW).preempt) == 2


def test_what_a_step_cannot_compute_preempts_nobody() -> None:
    running = [answer(f"a{i}", 9, running=True) for i in range(3)]
    waiting = [view(f"w{i}", arrival=i, tokens_needed=100) for i in range(2)]
    decision = decide(of("slack"), [*running, *waiting], Memory(0, 8, 100), NOW)
    assert decision.admit == ("w0",)


def test_loaded_requests_do_not_take_the_slot_of_a_better_one() -> None:
    """The engine admits requests that hold KV before any other: an inversion of ranks."""
    requests = [
        answer("loaded", 9, blocks_held=2, blocks_needed=2),
        answer("fed", 5, running=True),
        view("new"),
    ]
    decision = decide(of("slack"), requests, Memory(9, 1, 1000), NOW)
    assert (decision.preempt, decision.admit) == (("fed",), ("loaded", "new"))


def test_a_loaded_request_gets_the_slot_of_a_worse_one() -> None:
    requests = [answer("urgent", 0, blocks_held=2, blocks_needed=3), answer("fed", 5, running=True)]
    decision = decide(of("slack"), requests, Memory(9, 0, 1000), NOW)
    assert (decision.preempt, decision.admit) == (("fed",), ("urgent",))


def test_a_loaded_request_that_does_not_fit_lets_a_better_one_pass() -> None:
    """Otherwise it would keep the engine from admitting any request."""
    running = [view(f"r{i}", running=True) for i in range(2)]
    loaded = answer("loaded", 9, blocks_held=2, blocks_needed=3)
    for free, slots in ((0, 1), (1, 0)):
        requests = [*running, loaded, answer("urgent", 0, blocks_needed=2)]
        decision = decide(of("slack"), requests, Memory(free, slots, 1000), NOW)
        assert decision.admit == ("urgent",)
        assert decision.preempt[-1] == "loaded"
    # But not one that would still not fit, and not a worse one.
    large = answer("urgent", 0, blocks_needed=9)
    assert decide(of("slack"), [*running, loaded, large], Memory(0, 1, 1000), NOW).preempt == ()
    worse = answer("worse", 10)
    assert decide(of("slack"), [*running, loaded, worse], Memory(0, 1, 1000), NOW).preempt == ()


def test_a_loaded_request_gives_its_memory_up_once() -> None:
    running = [view(f"r{i}", running=True) for i in range(2)]
    loaded = answer("loaded", 9, blocks_held=4, blocks_needed=5)
    urgent = [answer(f"urgent{i}", 0.1 * i) for i in range(2)]
    decision = decide(of("slack"), [*running, loaded, *urgent], Memory(0, 4, 1000), NOW)
    assert (decision.preempt, decision.admit) == (("loaded",), ("urgent0", "urgent1"))


def test_what_is_being_loaded_is_no_victim_and_keeps_its_next_block() -> None:
    loading = answer("loading", 9, ready=False, blocks_held=5, blocks_needed=6)
    assert decide(of("slack"), [loading, view("new")], Memory(1, 1, 1000), NOW).admit == ()
    decision = decide(of("slack"), [loading, view("new")], Memory(2, 1, 1000), NOW)
    assert (decision.preempt, decision.admit) == ((), ("new",))


def test_the_well_fed_wait_when_memory_is_short_but_never_all() -> None:
    def held(*slacks: float, free: int = 0) -> tuple[str, ...]:
        requests = [answer(f"{s}", s, running=True, blocks_needed=2) for s in slacks]
        return decide(of("slack"), requests, Memory(free, 8, 1000), NOW).hold

    assert held(1.0, 7.0, 9.0, free=1) == ("9.0", "7.0")
    assert held(1.0, 7.0, 9.0, free=2) == ("9.0",)
    assert held(1.0, 7.0, 9.0, free=3) == ()
    assert held(7.0, 9.0) == ("9.0",)
    assert held(9.0) == ()
    assert held(1.0, 1.2) == ()  # neither urgent nor well-fed: between the marks


def test_nobody_waits_for_memory_that_a_preemption_has_just_freed() -> None:
    staying = [answer(f"a{s}", s, running=True, blocks_needed=2) for s in (7, 8)]
    victim = answer("victim", 99, running=True, blocks_held=5, blocks_needed=5, run_tokens=100)
    decision = decide(of("slack"), [*staying, victim, view("new")], Memory(0, 8, 1000), NOW)
    assert (decision.preempt, decision.admit, decision.hold) == (("victim",), ("new",), ())


# ---- settings


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"policy": "lifo"}, "'lifo'; known: fcfs, rr, pascal, slack, andes, tokenflow"),
        ({"quantum_token": 5}, "'quantum_token'; did you mean 'quantum_tokens'"),
        ({"quantum_tokens": 0}, "quantum_tokens: 0 is out of range .at least 1."),
        ({"quantum_tokens": 5.5}, "quantum_tokens: expected a whole number, not 5.5"),
        ({"demotion_tokens": True}, "demotion_tokens: expected a whole number, not True"),
        ({"low_water_s": "2"}, "low_water_s: expected a number, not '2'"),
        ({"low_water_s": math.nan}, "low_water_s: nan is not a finite number"),
        ({"low_water_s": 12}, "high_water_s: 12.0 must be above low_water_s"),
    ],
)
def test_wrong_settings_are_named(table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PolicySettings.of(table)


def test_settings_come_from_a_table_that_others_share() -> None:
    table = {"policy": "slack", "low_water_s": 1, "think_end_token_id": 4}
    given = PolicySettings.of(table, foreign=["think_end_token_id"])
    assert given == PolicySettings(policy="slack", low_water_s=1)


def test_views_are_values() -> None:
    assert msgspec.structs.replace(view("a"), request_id="b") == view("b")
