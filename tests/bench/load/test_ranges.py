from __future__ import annotations

import random
import statistics

import pytest

from bench.load.ranges import Length, Pause


def test_lengths() -> None:
    rng = random.Random(5)
    assert Length.parse("80").draw(rng) == 80
    assert {Length.parse("3-5").draw(rng) for _ in range(200)} == {3, 4, 5}
    normal = [Length.parse("100:20").draw(rng) for _ in range(5000)]
    assert statistics.fmean(normal) == pytest.approx(100, abs=1.5)
    assert statistics.pstdev(normal) == pytest.approx(20, abs=1.5)
    assert min(Length.parse("2:50").draw(rng) for _ in range(200)) == 1


def test_pauses() -> None:
    rng = random.Random(5)
    assert Pause.parse("1500ms").draw_s(rng) == 1.5
    uniform = [Pause.parse("2s-10s").draw_s(rng) for _ in range(5000)]
    assert 2.0 <= min(uniform) < 2.1
    assert 9.9 < max(uniform) <= 10.0
    normal = [Pause.parse("1m:3s").draw_s(rng) for _ in range(5000)]
    assert statistics.fmean(normal) == pytest.approx(60, abs=0.3)
    assert statistics.pstdev(normal) == pytest.approx(3, abs=0.2)
    assert min(Pause.parse("1s:10s").draw_s(rng) for _ in range(200)) == 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("soon", "'soon' is not a duration"),
        ("2s-", "'' is not a duration"),
        ("9s-5s", "'9s-5s' ends before it begins"),
        ("-5s", "'' is not a duration"),
    ],
)
def test_what_is_no_pause(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pause.parse(text)
