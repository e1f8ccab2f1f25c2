"""Records and results with numbers that can be checked by hand."""

from __future__ import annotations

from typing import Any

import msgspec

from bench.load.measure import Arrival, RequestResult, measure
from bench.load.record import Event, ResponseRecord

# Sent at 10.0, thinking over at 10.5, answer at 10.6, 10.7 and, two tokens at once, 10.9, end 11.0.
DELTAS = ((10.6, 1), (10.7, 1), (10.9, 2))


def record_of(
    deltas: tuple[tuple[float, int], ...] = DELTAS,
    *,
    sent_s: float = 10.0,
    reasoning_end_s: float | None = 10.5,
    ended_s: float = 11.0,
    status: str = "completed",
    server_qoe: float | None = 0.8,
    output_tokens: int = 9,
) -> ResponseRecord:
    record = ResponseRecord()
    record.sent_s = sent_s
    events: list[tuple[float, dict[str, Any]]] = []
    if reasoning_end_s is not None:
        item = {"type": "reasoning"}
        events.append((reasoning_end_s, {"type": "response.output_item.done", "item": item}))
    for at_s, tokens in deltas:
        events.append(
            (at_s, {"type": "response.output_text.delta", "delta": "x", "tokens": tokens})
        )
    text = {"type": "output_text", "text": "x" * len(deltas)}
    response = {
        "id": "resp_1",
        "status": status,
        "instance": "w1",
        "output": [{"type": "message", "content": [text]}],
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "usage": {
            "input_tokens": 20,
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 5},
        },
        "timing": {"raw": {"tpot_s": 0.01}, "paced": {"tpot_s": 0.1}},
        "qoe": {"qoe": server_qoe},
        "preemptions": 2,
    }
    events.append((ended_s, {"type": f"response.{status}", "response": response}))
    for sequence, (at_s, fields) in enumerate(events):
        record.receive(msgspec.convert(fields | {"sequence_number": sequence}, Event), at_s)
    assert record.failure is None or status == "failed"
    return record


def arrival(index: int = 0, **fields: Any) -> Arrival:
    times = {"start_s": 8.0, "due_s": 9.5, "turned_s": 9.75} | fields
    return Arrival(index=index, **times)


def result_of(record: ResponseRecord, index: int = 0, **fields: Any) -> RequestResult:
    return measure(record, arrival(index, **fields), tau_s=0.1)


def four_results() -> list[RequestResult]:
    interrupted = ResponseRecord()
    interrupted.sent_s = 12.0
    interrupted.interrupt(13.0)
    return [
        result_of(record_of(), 0),
        result_of(
            record_of(((11.0, 1), (11.1, 1)), ended_s=12.0, status="incomplete", server_qoe=1.0), 1
        ),
        result_of(record_of(ended_s=18.0, status="failed"), 2),
        result_of(interrupted, 3),
    ]
