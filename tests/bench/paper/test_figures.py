"""The paper's Figures 2 and 3 by name: what they say comes out of the real scheduler and pacer."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.paper.figure_2 import NAMES, timelines
from bench.paper.figure_3 import TOKENS, stories
from bench.simulator.results import ORACLE


def drawn(policy: str) -> dict[str, str]:
    lines = timelines(policy)
    return {name: lines[name].drawn(16).rstrip() for name in NAMES}


def test_figure_2_with_room_for_all_nobody_waits() -> None:
    assert drawn(ORACLE) == {
        "A": "########",
        "B": " ########",
        "C": "  ########",
    }


def test_figure_2_first_come_first_served_c_waits_for_a() -> None:
    assert drawn("fcfs") == {
        "A": "########",
        "B": " ########",
        "C": "  ......########",
    }
    assert timelines("fcfs")["C"].ttft == 7


def test_figure_2_by_round_robin_c_joins_at_4_and_is_preempted_at_8() -> None:
    assert drawn("rr") == {
        "A": "####.####",
        "B": " ####...####",
        "C": "  ..####.####",
    }
    found = timelines("rr")["C"]
    assert found.spans[0] == (4, 8)
    assert found.ttft == 3


def test_figure_3_only_a_reader_that_waits_loses() -> None:
    found = stories()
    quality = {name: story.qoe for name, story in found.items()}
    assert quality["buffered"] == quality["paused"] == pytest.approx(1.0)
    # By the paper's formula: the readers finish at 28 and 29. After the underrun, ten tokens come
    # 7 units late; in the other case, all tokens come 8 units late.
    assert quality["underrun"] == pytest.approx(1 - 10 * 7 / (20 * (28 - 1) - 20 * 20 / 2))
    assert quality["late"] == pytest.approx(1 - 20 * 8 / (20 * (29 - 1) - 20 * 20 / 2))


def test_figure_3_the_pause_is_real_and_the_reader_does_not_see_it() -> None:
    story = stories()["paused"]
    gaps = [later - earlier for earlier, later in pairwise(story.generated)]
    assert max(gaps) > 4
    assert story.released == pytest.approx(list(story.expected))
    assert len(story.released) == TOKENS
