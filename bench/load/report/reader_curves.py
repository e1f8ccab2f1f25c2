"""Tokens that were generated and released for single readers, over time.

Pure. It picks two readers of a run for the report: a typical one, whose QoE is the median (among
equals, the one with the longest answer), and the one with the lowest QoE. All times are in seconds
from the first answering token. There the reader begins to read, one token every ``tau_s``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.load.measure import RequestResult
from bench.load.record import ResponseRecord

LEAST_TOKENS = 5  # a shorter answer shows nothing


def reader_curves(
    measured: Sequence[tuple[RequestResult, ResponseRecord]], tau_s: float
) -> list[dict[str, Any]]:
    """The typical and the worst reader, ready for JSON; empty if no request had an answer.

    ``released[i]`` tokens had arrived at ``at_s[i]``, and ``generated[i]`` existed on the server
    (null if it did not report that).
    """
    readers = sorted(
        (
            (result.qoe, len(record.answer), result, record)
            for result, record in measured
            if result.measured and result.qoe is not None and len(record.answer) >= LEAST_TOKENS
        ),
        key=lambda reader: reader[:2],
    )
    if not readers:
        return []
    median = readers[(len(readers) - 1) // 2][0]
    typical = max((r for r in readers if r[0] == median), key=lambda reader: reader[1])
    picked = {"typical": typical, "worst": readers[0]}
    return [
        {
            "reader": name,
            "index": result.index,
            "qoe": qoe,
            "tau_s": tau_s,
            **_curve(record),
        }
        for name, (qoe, _, result, record) in picked.items()
        if name == "typical" or result.index != typical[2].index
    ]


def _curve(record: ResponseRecord) -> dict[str, Any]:
    first_s = record.answer[0].received_s
    released, most = 0, 0
    at_s: list[float] = []
    tokens: list[int] = []
    generated: list[int | None] = []
    for delta in record.answer:
        released += delta.tokens
        at_s.append(round(delta.received_s - first_s, 6))
        tokens.append(released)
        # Among deltas that arrive together, later ones report fewer tokens as held back.
        most = max(most, released + (delta.buffered or 0))
        generated.append(None if delta.buffered is None else most)
    return {"at_s": at_s, "released": tokens, "generated": generated}
