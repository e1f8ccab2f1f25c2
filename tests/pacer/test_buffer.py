"""Properties of the token buffer for any arrivals, pace and timing of the caller."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacer import Release, TokenBuffer

NEAR = 1e-4  # of a token: the rounding errors in these scripts

taus = st.sampled_from([0.02, 0.1, 0.25, 1.0])
arrivals = st.lists(st.floats(0, 3), min_size=1, max_size=60).map(
    lambda gaps: [sum(gaps[: i + 1]) for i in range(len(gaps))]
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "pop", "pop", "pause", "resume", "tau", "wake"]),
        st.floats(0, 2),
        taus,
    ),
    max_size=80,
)


def law(times: list[float], tau_s: float) -> list[float]:
    """The release law of the paper's pacer, read literally."""
    released: list[float] = []
    for arrival in times:
        released.append(max(arrival, released[-1] + tau_s) if released else arrival)
    return released


def play(times: list[float], tau_s: float, lateness: list[float]) -> list[Release[int]]:
    """Push at ``times``; wake at every planned time, late by the next value of ``lateness``."""
    buffer: TokenBuffer[int] = TokenBuffer(tau_s, 0.0)
    releases: list[Release[int]] = []
    pending = list(enumerate(times))
    late = iter(lateness)
    now = 0.0
    while pending or len(buffer):
        planned = buffer.next_release_s()
        wake = math.inf if planned is None else max(now, planned + next(late, 0.0))
        if pending and pending[0][1] <= wake:
            item, now = pending.pop(0)
            buffer.push(item, now)
        else:
            now = wake
            due = buffer.pop_due(now)
            assert due, "woken at next_release_s, and nothing was due"
            releases += due
    return releases


@given(times=arrivals, tau_s=taus)
def test_follows_the_law(times: list[float], tau_s: float) -> None:
    releases = play(times, tau_s, [])
    assert [release.item for release in releases] == list(range(len(times)))
    planned = [release.planned_s for release in releases]
    assert planned == pytest.approx(law(times, tau_s), abs=NEAR * tau_s)


@given(times=arrivals, tau_s=taus, lateness=st.lists(st.floats(0, 1), max_size=60))
def test_lateness_never_moves_the_plan(
    times: list[float], tau_s: float, lateness: list[float]
) -> None:
    planned = [release.planned_s for release in play(times, tau_s, lateness)]
    assert planned == pytest.approx(law(times, tau_s), abs=NEAR * tau_s)


@given(times=arrivals, tau_s=taus)
def test_counts_an_underrun_for_every_wait(times: list[float], tau_s: float) -> None:
    buffer: TokenBuffer[int] = TokenBuffer(tau_s, 0.0)
    waits = [
        arrival - (before + tau_s)
        for arrival, before in zip(times[1:], law(times, tau_s), strict=False)
    ]
    for item, arrival in enumerate(times):
        buffer.push(item, arrival)
    surely = sum(wait > NEAR * tau_s for wait in waits)
    perhaps = sum(abs(wait) <= NEAR * tau_s for wait in waits)
    assert surely <= buffer.underruns <= surely + perhaps


@given(times=arrivals, tau_s=taus)
def test_slack_is_the_time_until_the_reader_runs_dry(times: list[float], tau_s: float) -> None:
    buffer: TokenBuffer[int] = TokenBuffer(tau_s, 0.0)
    for item, arrival in enumerate(times):
        buffer.push(item, arrival)
        slack = buffer.slack_s(arrival)
        dry = law(times[: item + 1], tau_s)[-1] + tau_s
        assert slack == pytest.approx(dry - arrival, abs=NEAR * tau_s)


@dataclass
class Reader:
    """Reading time, computed independently of `ReadingClock` in small intervals."""

    tau_s: float
    now: float = 0.0
    reading: float = 0.0
    paused: bool = False
    arrived: list[float] = field(default_factory=list)  # reading time at each push

    def advance(self, gap: float) -> None:
        self.now += gap
        if not self.paused:
            self.reading += gap / self.tau_s

    def planned(self) -> list[float]:
        """The law in reading time, where one token is one unit."""
        return law(self.arrived, 1.0)


@given(tau_s=taus, script=steps)
def test_holds_over_pauses_and_pace_changes(
    tau_s: float, script: list[tuple[str, float, float]]
) -> None:
    """No token is early, late, lost, doubled, reordered, or released during a pause."""
    buffer: TokenBuffer[int] = TokenBuffer(tau_s, 0.0)
    reader = Reader(tau_s)
    released: list[Release[int]] = []
    for action, gap, tau in script:
        wake = buffer.next_release_s()
        reader.advance(max(0.0, wake - reader.now) if action == "wake" and wake else gap)
        match action:
            case "push":
                buffer.push(len(reader.arrived), reader.now)
                reader.arrived.append(reader.reading)
            case "pause":
                buffer.pause(reader.now)
                reader.paused = True
            case "resume":
                buffer.resume(reader.now)
                reader.paused = False
            case "tau":
                buffer.set_tau(tau, reader.now)
                reader.tau_s = tau
            case _:
                check_pop(buffer, reader, released)
        assert len(buffer) == len(reader.arrived) - len(released)
        if reader.paused:
            assert buffer.next_release_s() is None
            assert buffer.slack_s(reader.now) is None
        elif reader.arrived:
            dry = reader.planned()[-1] + 1.0 - reader.reading
            assert buffer.slack_s(reader.now) == pytest.approx(dry * reader.tau_s, abs=NEAR)
    assert buffer.released == len(released)
    rest = [release.item for release in released] + buffer.drain()
    assert rest == list(range(len(reader.arrived)))
    assert buffer.released == len(rest)
    assert len(buffer) == 0


def check_pop(buffer: TokenBuffer[int], reader: Reader, released: list[Release[int]]) -> None:
    """Pop the due tokens, and compare them with the law."""
    due = buffer.pop_due(reader.now)
    if reader.paused:
        assert due == []
        return
    planned = reader.planned()
    for release in due:
        assert release.item == len(released), "lost, doubled or out of order"
        assert planned[release.item] <= reader.reading + NEAR, "released early"
        assert release.planned_s <= reader.now
        assert not released or release.planned_s >= released[-1].planned_s
        released.append(release)
    if len(released) < len(planned):
        assert planned[len(released)] >= reader.reading - NEAR, "due, and held back"


def test_a_clock_far_from_zero_loses_no_precision_that_matters() -> None:
    start = 5e6  # seconds: two months of monotonic clock
    buffer: TokenBuffer[int] = TokenBuffer(0.1, start)
    for item in range(2000):
        buffer.push(item, start + 1)
    for item in range(2000):
        planned = buffer.next_release_s()
        assert planned is not None
        assert planned == pytest.approx(start + 1 + item * 0.1, abs=1e-5)
        assert [release.item for release in buffer.pop_due(planned)] == [item]
