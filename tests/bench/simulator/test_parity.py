"""A simulated request and a gateway's session tell placement the same.

Gateway and simulator share `gateway.policy.cluster_view`: the views, the decisions and what they
learn. What each supplies by itself are the facts about one request. Here both get the same tokens
at the same times, and their facts must agree; so must the views of an instance with such requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.request import Request

from bench.reporting.statistics import SLO_QOE
from bench.simulator.migration import Move
from bench.simulator.request import Live
from bench.simulator.timeline import TAU_S, Timeline
from bench.workloads.lengths import Lengths
from gateway.policy.cluster_view import MovingRequest, Occupancy, PlacedRequest, view_of, view_rules
from gateway.response.session import Session
from gateway.routing.route import Moving
from tests.gateway.support.sessions import make_session
from workers.messages import TokenRun, answers_after
from workers.policy.settings import PolicySettings

NUMBERS = PolicySettings(quantum_tokens=20, demotion_tokens=30)
RULES = view_rules(NUMBERS.policy, NUMBERS.quantum_tokens, NUMBERS.demotion_tokens)


class Twins:
    """One request, in the simulator and in the gateway."""

    def __init__(self, lengths: Lengths) -> None:
        no_preemption = cast(Request, SimpleNamespace(num_preemptions=0))
        self.live = Live(no_preemption, Timeline(0.0, lengths), True)
        self.session = make_session(pacing={"tpot_s": TAU_S})
        self.session.accepted("a", lengths.prompt, reasoning=True)

    def token(self, now: float) -> None:
        """Its next token."""
        boundary = self.live.reasoning_ahead == 1
        self.live.produced((now,))
        run = TokenRun(
            request_id=self.session.response_id,
            position=len(self.session.token_ids),
            token_ids=(1,),
            texts=("" if boundary else "x",),
            turns=answers_after(0 if boundary else None),
        )
        self.session.tokens(run, now)

    def read_until(self, now: float) -> None:
        """Deliver all tokens that are due to the reader."""
        while (at_s := self.session.next_release_s()) is not None and at_s <= now:
            self.session.release(at_s)


def facts(request: PlacedRequest, now: float) -> dict[str, Any]:
    return {
        "kv_tokens": request.kv_tokens,
        "thinking": request.thinking,
        "reasoning_tokens": request.reasoning_tokens,
        "answering_tokens": request.answering_tokens,
        "within_slo": request.within_slo(SLO_QOE, now),
    }


@dataclass(frozen=True)
class Load:
    """What an instance computes."""

    lengths: tuple[Lengths, ...]
    gaps_s: tuple[float, ...]  # between steps, in which each unfinished request gets a token
    idle_s: tuple[float, ...]  # after each step, until somebody looks


LENGTHS = st.builds(
    Lengths, prompt=st.integers(1, 200), reasoning=st.integers(1, 60), answer=st.integers(100, 200)
)
LOADS = st.integers(1, 100).flatmap(
    lambda steps: st.builds(
        Load,
        lengths=st.lists(LENGTHS, min_size=1, max_size=4).map(tuple),
        gaps_s=st.lists(
            st.sampled_from([0.03, 0.09, 0.11, 0.4, 2.0]), min_size=steps, max_size=steps
        ).map(tuple),
        idle_s=st.lists(st.sampled_from([0.0, 0.01, 3.0]), min_size=steps, max_size=steps).map(
            tuple
        ),
    )
)


@settings(max_examples=60, deadline=None)
@given(load=LOADS)
def test_both_supply_the_same_facts(load: Load) -> None:
    """Also at moments between two tokens, when a reader may be waiting."""
    requests = [Twins(lengths) for lengths in load.lengths]
    now = 0.0
    for gap_s, idle_s in zip(load.gaps_s, load.idle_s, strict=True):
        now += gap_s
        for one in requests:
            one.read_until(now)
            one.token(now)
            one.read_until(now)
        now += idle_s
        for one in requests:
            one.read_until(now)
            assert facts(one.live, now) == facts(one.session, now)
        live, session = (views(requests, side, now) for side in ("live", "session"))
        assert live == session


def views(requests: list[Twins], side: str, now: float) -> list[Any]:
    """An instance with all of them, where the first is at its boundary or on its way here."""
    held: list[Any] = [getattr(one, side) for one in requests]
    here = Occupancy("a", 16, 1000, 500, held)
    return [
        view_of(here, (), RULES, now, held[0]),
        view_of(here, [moving(held[0], requests[0])], RULES, now),
    ]


def moving(request: Live | Session, twins: Twins) -> MovingRequest:
    if isinstance(request, Live):
        return Move(request, "b", "a", 0, 1, 0.0, cast(Any, None))
    return Moving(twins.session, "b", "a", leaving=False)
