"""The measurement of hand-overs, on two real workers."""

from __future__ import annotations

import pytest

from bench.migration.hand_over import measure
from workers.kv.migration import available

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not available(), reason="NIXL is missing: `make setup` installs it"),
]


def test_every_way_is_measured_for_every_context() -> None:
    found = measure([96, 320], repeats=2)
    assert set(found) == {96, 320}
    for context, figures in found.items():
        # Keys and values of four layers with two heads of 64 values, in two bytes each.
        assert figures.pop("kv_bytes") == context * 2 * 4 * 2 * 64 * 2
        assert set(figures) == {"move_s", "stay_s", "recompute_s", "transfer_s", "memcpy_s"}
        assert all(seconds > 0 for seconds in figures.values())
        assert figures["transfer_s"] < figures["move_s"]
