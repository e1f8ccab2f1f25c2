"""The two short ways through the schedule do what the long way does, to the bit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pacer import ReleaseSchedule
from pacer.schedule import _TRIM

steps = st.lists(
    st.tuples(
        st.sampled_from(["push"] * 4 + ["pop"] * 6 + ["pause", "resume", "tau", "stand", "go_on"]),
        st.floats(0, 0.3),
        st.integers(1, 4),
    ),
    max_size=80,
)


def released(schedule: ReleaseSchedule, now: float, early_s: float, short: bool) -> int:
    if short and schedule.pop_next(now, early_s):
        assert schedule.then_s == schedule.next_release_s()
        return 1
    return schedule.pop_due(now, early_s)


@given(
    script=steps,
    early_s=st.sampled_from([0.0, 0.005]),
    lead_s=st.sampled_from([0.0, 0.0, 0.15, 1.0]),
)
def test_whatever_happens_both_release_the_same(
    script: list[tuple[str, float, int]], early_s: float, lead_s: float
) -> None:
    short, long = ReleaseSchedule(0.1, 0.0, lead_s), ReleaseSchedule(0.1, 0.0, lead_s)
    now = 0.0
    for what, later_s, tokens in script:
        before, now = now, now + later_s
        if what == "push":
            times = [before + later_s * part / tokens for part in range(1, tokens + 1)]
            short.push_each(times)
            for at_s in times:
                long.push(at_s)
        for schedule in (short, long):
            match what:
                case "pause":
                    schedule.pause(now)
                case "resume":
                    schedule.resume(now)
                case "tau":
                    schedule.set_tau(0.05 * tokens, now)
                case "stand":
                    schedule.stand_when_dry(now)
                case "go_on":
                    schedule.go_on(now)
        if what == "pop":
            counts = [released(one, now, early_s, one is short) for one in (short, long)]
            assert counts[0] == counts[1]
            if counts[0]:
                assert (short.at, short.shown_at) == (long.at, long.shown_at)
        assert len(short) == len(long)
        assert short.next_release_s() == long.next_release_s()
        assert short.slack_s(now) == long.slack_s(now)
        assert short.underruns == long.underruns


def test_the_short_way_is_taken_for_nearly_every_token_of_a_steady_stream() -> None:
    schedule = ReleaseSchedule(0.1, 0.0)
    taken = 0
    for token in range(3 * _TRIM):
        schedule.push_each([0.1 * token])
        if token >= 5:
            now = 0.1 * (token - 5)
            if schedule.pop_next(now, 0.0):
                taken += 1
            else:
                assert schedule.pop_due(now) == 1
            assert len(schedule) == 5
    assert taken > 3 * _TRIM - 20
    assert len(schedule._planned) < 2 * _TRIM
