"""The thinking budget on a real engine, beside vLLM's own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.workers.support.budgets import CALL, FIRST, OUTPUT, SECOND, WORD
from tests.workers.support.harness import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers.support.budgets"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return cases


def test_thoughts_end_within_the_budget_with_all_tokens_of_their_end(
    found: dict[str, Any],
) -> None:
    end = found["end"]
    assert found["free"]["token_ids"] == [WORD] * OUTPUT
    bound = found["bound"]["token_ids"]
    assert bound == [WORD] * 3 + [FIRST, SECOND, end] + [WORD] * 6
    assert found["bound"]["phases"].index("answering") == 5


def test_the_budget_goes_on_in_the_middle_of_an_end(found: dict[str, Any]) -> None:
    known = [WORD, WORD, WORD, FIRST]
    assert known + found["moved"]["token_ids"] == found["bound"]["token_ids"]


def test_the_budget_never_ends_thoughts_in_a_call(found: dict[str, Any]) -> None:
    assert found["in_call"]["token_ids"] == [CALL] * OUTPUT
    assert set(found["in_call"]["phases"]) == {"calling"}


def test_the_budget_of_vllm_still_does(found: dict[str, Any]) -> None:
    """The reason for a budget of our own; where this fails, use vLLM's."""
    assert found["in_call_by_vllm"]["token_ids"].index(found["end"]) == 4
