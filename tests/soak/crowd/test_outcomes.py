"""A crowd's run must notice whatever a gateway can do wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pacer import qoe
from tests.soak.clients.stage import established
from tests.soak.clients.stream import Tally
from tests.soak.crowd import readers, report
from tests.soak.crowd.measure import bottlenecks
from tests.soak.crowd.outcomes import CLOSED, Group, Outcome, Reading, quantile
from tests.soak.crowd.run import closings

TAU_S = 0.1


def delta(tokens: int = 1, kind: str = "output") -> dict[str, Any]:
    event = {"type": f"response.{kind}_text.delta", "delta": "x"}
    return event if tokens == 1 else event | {"tokens": tokens}


def reading_of(*times_s: float) -> Reading:
    reading = Reading(TAU_S)
    for time_s in times_s:
        reading.arrived(delta(), time_s)
    return reading


def outcome() -> Outcome:
    """A run in which all is well."""
    groups = {name: Group(count) for name, count in readers.counts(20).items()}
    done = Outcome(Tally(), groups)
    for name in ("healthy", "stalls", "reconnects"):
        for _ in range(groups[name].places):
            groups[name].add("SSE", reading_of(5.0, 5.1), {"qoe": {"qoe": 1.0}})
    done.closed_s, done.went_on = [6.0], 1
    done.closings[CLOSED] = 1
    done.stops_s = [0.01, 0.02]
    return done


def test_tokens_in_time_are_a_qoe_of_one_and_thoughts_do_not_count() -> None:
    reading = Reading(TAU_S)
    reading.arrived(delta(kind="reasoning"), 1.0)
    reading.arrived(delta(tokens=3, kind="reasoning"), 1.5)
    for number in range(50):
        reading.arrived(delta(), 7.0 + number * TAU_S)
    assert reading.qoe == pytest.approx(1.0)
    assert reading.late_s == pytest.approx(0.0)
    assert (reading.tokens, reading.thoughts) == (50, 4)


def test_a_pause_in_the_stream_lowers_the_qoe_as_the_formula_says() -> None:
    times_s = [number * TAU_S + (2.0 if number >= 10 else 0.0) for number in range(50)]
    reading = reading_of(*times_s)
    assert reading.qoe == pytest.approx(qoe(times_s, tau_s=TAU_S))
    assert reading.qoe < 0.7
    assert reading.late_s == pytest.approx(2.0)


def test_a_delta_of_two_tokens_counts_as_two() -> None:
    reading = Reading(TAU_S)
    reading.arrived(delta(), 0.0)
    reading.arrived(delta(tokens=2), 0.2)
    assert reading.tokens == 3
    assert reading.qoe == pytest.approx(qoe([0.0, 0.2, 0.2], tau_s=TAU_S))


def test_a_run_without_trouble_passes() -> None:
    assert outcome().failures == []


def test_one_late_healthy_reader_fails_the_run_and_a_late_other_one_does_not() -> None:
    late = reading_of(*(0.2 * number for number in range(20)))
    done = outcome()
    done.groups["reconnects"].add("SSE", late, {"qoe": None})
    assert done.failures == []
    done.groups["healthy"].add("SSE", late, {"qoe": None})
    (failure,) = done.failures
    assert "1 of 16 healthy responses have a QoE below 0.95" in failure


def test_every_other_broken_promise_fails_the_run() -> None:
    for change, message in (
        (lambda done: done.groups["healthy"].qoes.pop(), "15 healthy readers, and 14 responses"),
        (lambda done: setattr(done, "not_closed", 1), "still connected"),
        (lambda done: done.closed_s.clear(), "no reader stalled"),
        (lambda done: setattr(done, "went_on", 0), "only 0 of their responses went on"),
        (lambda done: done.closings.clear(), "0 of them with a reason"),
        (lambda done: done.stops_s.clear(), "no response was stopped"),
        (lambda done: done.stops_s.append(9.0), "1 stopped responses"),
        (lambda done: done.tally.wrong("a hole"), "1 broken promises"),
        (lambda done: done.trouble.append("KeyError"), "KeyError"),
    ):
        done = outcome()
        change(done)
        assert any(message in line for line in done.failures), (message, done.failures)


def test_shares_are_those_of_the_promise() -> None:
    assert readers.counts(1000) == {
        "healthy": 790,
        "stalls": 50,
        "reconnects": 50,
        "stops": 100,
        "sends garbage": 10,
    }
    assert min(readers.counts(5).values()) == 1


def test_held_connections_are_those_that_the_gateway_has_established(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue\n"
        "   0: 0100007F:1F90 0100007F:C001 01 00000000:00000000\n"
        "   1: 0100007F:1F90 0100007F:C002 06 00000000:00000000\n"  # it waits for late packets
        "   2: 0100007F:C001 0100007F:1F90 01 00000000:00000000\n"  # the client's end
        "   3: 0100007F:1F91 0100007F:C003 01 00000000:00000000\n",  # another server
        encoding="ascii",
    )
    assert established(0x1F90, table) == {0xC001}


def test_closings_are_counted_with_their_reasons() -> None:
    lines = [
        {"event": "socket_closed", "reason": "took nothing for 5 s"},
        {"event": "socket_closed", "reason": "took nothing for 5 s"},
        {"event": "socket_closed_while_streaming"},
        {"event": "response_created"},
    ]
    output = "Ready.\n" + "\n".join(map(json.dumps, lines))
    assert closings(output) == {
        "socket_closed: took nothing for 5 s": 2,
        "socket_closed_while_streaming": 1,
    }


def test_clients_that_are_themselves_the_bottleneck_are_named() -> None:
    well = {"client late p99 ms": 3.0, "client cpu": 0.4, "workers cpu": 0.1, "gateway cpu": 0.5}
    assert bottlenecks(well) == []
    for change, message in (
        ({"client late p99 ms": 40.0}, "late by 40 ms"),
        ({"client cpu": 0.8}, "clients and workers took 90%"),
        ({"gateway's cores busy": 0.95}, "other programs took 45% of the gateway's cores"),
        ({"other cores busy": 0.9}, "other programs took 40% of the other cores"),
    ):
        (line,) = bottlenecks(well | change)
        assert message in line
    assert bottlenecks(well | {"client cpu": 0.8}, cores=3) == []


def test_the_quantile_of_a_list_is_one_of_its_values() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(range(100)), 0.01) == 0
    assert quantile([1.0], 0.99) == 1.0


def test_everything_is_shown_and_written(tmp_path: Path) -> None:
    done = outcome()
    done.measured = {"client cpu": 0.25, "client late p99 ms": 2.0}
    done.closed_how["ConnectionResetError"] = 1
    done.tally.wrong("event 3 follows 1")
    output = io.StringIO()
    report.show(done, Console(file=output, width=250))
    text = output.getvalue()
    for line in (
        "stalled readers disconnected: 1, not disconnected: 0; responses that went on: 1",
        "client cpu 25%",
        "event 3 follows 1",
        "FAILED: 1 broken promises",
        "crowd: failed",
    ):
        assert line in text
    report.write(done, tmp_path / "crowd.json")
    document = json.loads((tmp_path / "crowd.json").read_text(encoding="utf-8"))
    assert document["passed"] is False
    assert document["readers"]["healthy"]["responses"] == 15
