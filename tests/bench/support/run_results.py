"""The JSON of a whole run, for tests of its readers."""

from __future__ import annotations

from typing import Any

from bench.load.measure import run_result
from bench.load.report.reader_curves import reader_curves
from tests.bench.support.flags import options
from tests.bench.support.results import four_results, record_of, result_of


def a_result(*flags: str, **fields: Any) -> dict[str, Any]:
    """Four requests: completed, incomplete, failed, interrupted."""
    chosen = options(*flags)
    record = record_of(((10.6, 1), (10.7, 1), (10.8, 1), (10.9, 1), (11.5, 1)), ended_s=12.0)
    return {
        "date": "2026-02-11T10:00:00+00:00",
        "model": "tiny",
        "config": chosen.config(),
        "turns_not_sent": 0,
        **run_result(four_results(), loop_lag_s=[0.001], goodput=chosen.goodput, cpu_share=0.25),
        "curves": reader_curves([(result_of(record), record)], chosen.tpot_s),
    } | fields


def of_turns() -> dict[str, Any]:
    """Two conversations of two turns."""
    results = [
        result_of(record_of(ended_s=11.0 + turn), 2 * number + turn, conversation=number, turn=turn)
        for number in range(2)
        for turn in range(2)
    ]
    return a_result() | run_result(results, loop_lag_s=[0.001])
