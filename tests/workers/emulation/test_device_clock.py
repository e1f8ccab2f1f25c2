from __future__ import annotations

import pytest

from workers.emulation.device_clock import DeviceClock


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Clock:
    return Clock()


@pytest.fixture
def device(time: Clock) -> DeviceClock:
    return DeviceClock(time)


def step(device: DeviceClock, seconds: float, *, work_before: bool = True) -> float:
    return device.run(device.begin(work_before=work_before), seconds)


def test_steps_follow_each_other_without_a_gap_while_the_engine_is_in_time(
    time: Clock, device: DeviceClock
) -> None:
    assert step(device, 2.0, work_before=False) == 102.0
    time.now = 101.9  # the next is submitted while the first runs: no work of the engine's counts
    assert step(device, 3.0) == 105.0
    time.now = 105.0
    assert step(device, 1.0) == 106.0
    assert (device.steps, device.busy_s, device.starved_s) == (3, 6.0, 0.0)


def test_a_late_engine_starves_the_device_and_the_time_is_not_caught_up(
    time: Clock, device: DeviceClock
) -> None:
    step(device, 2.0, work_before=False)
    time.now = 102.5
    assert step(device, 2.0) == 104.5
    assert (device.busy_s, device.starved_s) == (4.0, 0.5)


def test_waiting_for_work_is_not_starving(time: Clock, device: DeviceClock) -> None:
    step(device, 2.0, work_before=False)
    time.now = 200.0
    assert step(device, 2.0, work_before=False) == 202.0
    assert device.starved_s == 0.0


def test_what_the_device_itself_waits_for_delays_it_and_is_neither_busy_nor_starved(
    time: Clock, device: DeviceClock
) -> None:
    start_s = device.begin(work_before=False)
    assert device.run(start_s + 1.0, 2.0) == 103.0
    time.now = 103.0
    step(device, 1.0)
    assert (device.busy_s, device.starved_s) == (3.0, 0.0)


def test_lateness_is_from_the_end_of_a_step_to_its_fetching(
    time: Clock, device: DeviceClock
) -> None:
    due_s = step(device, 2.0, work_before=False)
    time.now = 102.25
    device.fetched(due_s)
    due_s = step(device, 2.0)
    time.now = 104.0  # before it is due: the engine will wait
    device.fetched(due_s)
    assert device.late_s == 0.25


def test_starving_is_told_once_for_every_ten_seconds_of_it(
    time: Clock, device: DeviceClock
) -> None:
    def seconds(gap: float) -> list[float | None]:
        said = []
        for _ in range(10):
            step(device, 1.0 - gap)
            time.now += 1.0
            said.append(device.starving())
        return said

    assert seconds(0.25) == [*[None] * 9, pytest.approx(7.5 / (7.5 + 9 * 0.25))]
    assert seconds(0.02) == [None] * 10  # earlier time does not count any more
    assert seconds(0.25)[-1] is not None
