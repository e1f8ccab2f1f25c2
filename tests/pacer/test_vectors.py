"""The golden vectors, which the JavaScript twin runs as well (tests/web/pacer.test.mjs)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pacer import RunningQoE, TokenBuffer, qoe

VECTORS = Path(__file__).parents[1] / "vectors"


def cases(name: str) -> list[Any]:
    found = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["cases"]
    return [pytest.param(case, id=case["name"]) for case in found]


def deliveries(case: dict[str, Any]) -> list[float]:
    return [start + k * step for start, step, count in case["runs"] for k in range(count)]


@pytest.mark.parametrize("case", cases("qoe"))
def test_qoe(case: dict[str, Any]) -> None:
    target = {key: case[key] for key in ("tau_s", "first_s", "origin_s")}
    times = deliveries(case)
    assert qoe(times, **target) == pytest.approx(case["qoe"], abs=1e-9)
    assert 0.0 <= qoe(times, **target) <= 1.0, "rounding must not lift it out of its range"
    if "paper" in case:
        digits = len(str(case["paper"]).partition(".")[2])
        assert round(case["qoe"], digits) == case["paper"]
    for moment in case["at"]:
        running = RunningQoE(**target)
        for time in times:
            if time <= moment["now"] + 1e-9:
                running.deliver(time)
        assert running.at(moment["now"]) == pytest.approx(moment["qoe"], abs=1e-9)


@pytest.mark.parametrize("case", cases("buffer"))
def test_buffer(case: dict[str, Any]) -> None:
    buffer: TokenBuffer[str] = TokenBuffer(case["tau_s"], case["start_s"])
    for number, step in enumerate(case["steps"]):
        if step.get("error"):
            with pytest.raises((RuntimeError, ValueError)):
                take(buffer, step)
        else:
            assert take(buffer, step) == step.get("out"), f"step {number}: {step}"
        seen = {
            "next_release_s": buffer.next_release_s(),
            "slack_s": buffer.slack_s(step["at"]),
            "underruns": buffer.underruns,
            "released": buffer.released,
            "buffered": len(buffer),
            "closed": buffer.closed,
        }
        for name in seen.keys() & step.keys():
            expected = step[name] if step[name] is None else pytest.approx(step[name], abs=1e-9)
            assert seen[name] == expected, f"step {number}: {name} after {step}"


def take(buffer: TokenBuffer[str], step: dict[str, Any]) -> list[Any] | None:
    """Run one step of a case; :return: its result in the form of ``out``."""
    now = step["at"]
    match step["do"]:
        case "push":
            buffer.push(step["item"], now)
        case "pop":
            return [[release.item, release.planned_s] for release in buffer.pop_due(now)]
        case "drain":
            return buffer.drain()
        case "close":
            buffer.close()
        case "pause":
            buffer.pause(now)
        case "resume":
            buffer.resume(now)
        case "set_tau":
            buffer.set_tau(step["tau_s"], now)
        case "look":
            pass
        case other:
            raise AssertionError(f"unknown step {other!r}")
    return None
