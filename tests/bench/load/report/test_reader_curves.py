from __future__ import annotations

from bench.load.measure import RequestResult
from bench.load.record import AnswerDelta, ResponseRecord
from bench.load.report.reader_curves import reader_curves
from tests.bench.support.results import record_of, result_of


def reader(index: int, gaps_s: list[float]) -> tuple[RequestResult, ResponseRecord]:
    at_s, deltas = 10.0, [(10.0, 1)]
    for gap_s in gaps_s:
        at_s += gap_s
        deltas.append((at_s, 1))
    record = record_of(tuple(deltas), reasoning_end_s=9.9, ended_s=at_s)
    return result_of(record, index), record


def test_a_typical_and_the_worst_reader_are_picked() -> None:
    readers = [
        reader(0, [0.1] * 5),
        reader(1, [0.1] * 9),  # the median QoE, and the longest answer that has it
        reader(2, [0.1] * 5),
        reader(3, [0.1, 0.1, 2.0, 0.1, 0.1]),
        reader(4, [9.0]),  # too short to show anything
    ]
    curves = reader_curves(readers, 0.1)
    assert [(c["reader"], c["index"]) for c in curves] == [("typical", 1), ("worst", 3)]
    assert curves[1]["at_s"] == [0.0, 0.1, 0.2, 2.2, 2.3, 2.4]
    assert curves[1]["released"] == [1, 2, 3, 4, 5, 6]
    assert curves[1]["generated"] == [None] * 6


def test_what_was_generated_is_what_was_released_and_what_was_held_back() -> None:
    result, record = reader(0, [0.1] * 4)
    record.answer = [
        AnswerDelta(delta.received_s, 2, held)
        for delta, held in zip(record.answer, (9, 8, 7, 6, 0), strict=True)
    ]
    (curve,) = reader_curves([(result, record)], 0.1)
    assert curve["released"] == [2, 4, 6, 8, 10]
    assert curve["generated"] == [11, 12, 13, 14, 14]  # what was generated stays so


def test_nobody_who_read_is_no_curve() -> None:
    failed = record_of(status="failed")
    assert reader_curves([(result_of(failed), failed)], 0.1) == []
