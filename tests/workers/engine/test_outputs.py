"""How vLLM's ends of requests are called here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from vllm.v1.engine import FINISH_REASON_STRINGS

from workers.engine.outputs import finish_of
from workers.scheduler.hand_over import HANDED_OVER


def output(finish_reason: str | None, stop_reason: str | None = None) -> Any:
    return SimpleNamespace(
        outputs=[SimpleNamespace(finish_reason=finish_reason, stop_reason=stop_reason)]
    )


def test_every_end_that_vllm_knows_has_a_word() -> None:
    ends = {reason: finish_of(output(reason)) for reason in FINISH_REASON_STRINGS}
    assert ends == {
        "stop": "stop",
        "length": "length",
        "abort": "cancelled",
        "error": "error",
        "repetition": "stop",
    }


def test_a_hand_over_is_an_end_of_its_own() -> None:
    assert finish_of(output(None)) is None
    assert finish_of(output("stop", HANDED_OVER)) == "handed_over"
