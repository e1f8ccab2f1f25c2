from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from vllm.v1.core.sched.scheduler import Scheduler

from bench.policies import scheduler_overhead
from bench.policies.scheduler_load import FORMATS
from bench.policies.scheduler_overhead import (
    CASES,
    DEFAULT,
    POLICIES,
    Case,
    Counts,
    measure_case,
    sides,
    summary,
)
from workers.policy.phase import Phase
from workers.scheduler.request_state import PhaseState

# The backlog, small: memory and slots for a few, many more wait.
SMALL = Case("backlog", 8, 24, 1.35)


def test_all_schedulers_do_the_same_work() -> None:
    contestants = sides(SMALL)
    assert [side.name for side in contestants] == [DEFAULT, *POLICIES]
    assert type(contestants[0].scheduler) is Scheduler
    scheduler_overhead.take_turns(contestants, 200)
    default = contestants[0].counts
    for side in contestants:
        assert side.counts.steps == 200
        assert side.counts.generated == pytest.approx(default.generated, rel=0.02)
        assert len(side.scheduler.requests) == SMALL.running + SMALL.waiting
    swaps = {side.name: side.counts.preemptions for side in contestants}
    assert swaps["slack"] > 0
    assert swaps["pascal"] > 0
    assert all(side.counts.schedule_s > 0 and side.counts.update_s > 0 for side in contestants)


def test_every_case_has_its_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    def quickly(case: Case, repeats: int, steps: int, warm_up: int) -> dict[str, dict[str, float]]:
        small = replace(case, running=4, waiting=min(case.waiting, 8))
        return measure_case(small, 3, 25, 25)

    monkeypatch.setattr(scheduler_overhead, "measure_case", quickly)
    result = scheduler_overhead.measure_overhead(quick=True)
    assert [*result] == [*(case.name for case in CASES), "details"]
    assert [*result["details"]] == [case.name for case in CASES]
    for case in CASES:
        figures = result["details"][case.name]
        assert [*figures] == [DEFAULT, *case.policies]
        assert result[case.name] == figures["slack"]["ratio"] > 0
        assert figures[DEFAULT]["ratio"] == 1
    assert scheduler_overhead.table(result).row_count == sum(
        1 + len(case.policies) for case in CASES
    )


@pytest.mark.parametrize("form", FORMATS)
def test_requests_go_through_all_phases_in_every_format(form: str) -> None:
    case = Case(form, 16, 0, 1.05, form)
    side = sides(case)[1]
    scheduler: Any = side.scheduler
    turned: set[tuple[Phase, Phase]] = set()
    note = scheduler._accounting.turned

    def turned_to(state: PhaseState, before: Phase) -> None:
        turned.add((before, state.tracker.phase))
        note(state, before)

    scheduler._accounting.turned = turned_to
    scheduler_overhead.take_turns([side], 1500)
    assert turned == {
        (Phase.REASONING, Phase.ANSWERING),
        (Phase.ANSWERING, Phase.CALLING),
        (Phase.CALLING, Phase.ANSWERING),
    }


def test_a_ratio_is_the_median_over_the_repeats() -> None:
    default = [Counts(steps=10, schedule_s=1.0, update_s=1.0, generated=30)] * 5
    counts = [
        Counts(steps=10, schedule_s=1.0, update_s=update_s, generated=20)
        for update_s in (1.0, 5.0, 2.0, 1.2, 1.0)
    ]
    figures = summary(counts, default)
    ratios = (figures["ratio_p5"], figures["ratio"], figures["ratio_p95"])
    assert ratios == pytest.approx((1.0, 1.1, 3.0))
    assert figures["schedule_us"] == pytest.approx(1e5)
    assert figures["update_us"] == pytest.approx(1.2e5)
    assert figures["generated"] == 2
