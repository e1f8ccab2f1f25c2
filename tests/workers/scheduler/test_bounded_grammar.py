"""What one grammar may cost, with grammars of xgrammar."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import xgrammar

from workers.scheduler import bounded_grammar
from workers.scheduler.bounded_grammar import BoundedGrammar, GrammarsStuck

VOCABULARY = [*(chr(code) for code in range(128)), "aaaaaaaa", "<end>"]
MANY_READINGS = "root ::= s\ns ::= s s | [a-z]"  # of a text of n letters: exponentially many


class Matcher:
    """A grammar as vLLM has it, over a small vocabulary."""

    def __init__(self, text: str) -> None:
        info = xgrammar.TokenizerInfo(VOCABULARY, stop_token_ids=[len(VOCABULARY) - 1])
        self._matcher = xgrammar.GrammarMatcher(
            xgrammar.GrammarCompiler(info).compile_grammar(text)
        )

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        return all(map(self._matcher.accept_token, tokens))

    def fill_bitmask(self, bitmask: Any, idx: int) -> None:
        self._matcher.fill_next_token_bitmask(bitmask, idx)

    def is_terminated(self) -> bool:
        return self._matcher.is_terminated()


def bounded(grammar: Any) -> tuple[BoundedGrammar, list[str]]:
    late: list[str] = []
    return BoundedGrammar(cast(Any, grammar), lambda: late.append("late")), late


def masks() -> Any:
    return xgrammar.allocate_token_bitmask(2, len(VOCABULARY))


def test_a_grammar_is_followed_as_by_itself() -> None:
    ours, late = bounded(Matcher('root ::= "ab" [0-9]+ "."'))
    alone, expected, got = Matcher('root ::= "ab" [0-9]+ "."'), masks(), masks()
    for token in map(ord, "ab42."):
        alone.fill_bitmask(expected, 0)
        ours.fill_bitmask(got, 1)
        assert torch.equal(got[1], expected[0])
        assert ours.accept_tokens("r", [token]) is alone.accept_tokens("r", [token]) is True
        assert ours.is_terminated() == alone.is_terminated()
    assert not ours.accept_tokens("r", [ord("x")])
    assert late == []


def test_one_with_many_readings_ends_and_the_steps_before_it_are_short() -> None:
    ours, late = bounded(Matcher(MANY_READINGS))
    mask, steps, longest_s = masks(), 0, 0.0
    while not late:
        began_s = time.process_time()
        ours.fill_bitmask(mask, 0)
        taken = ours.accept_tokens("r", [128])  # "aaaaaaaa"
        longest_s = max(longest_s, time.process_time() - began_s)
        assert taken == (not late)
        steps += 1
        assert steps < 10_000
    assert longest_s < 4 * bounded_grammar.CALL_S
    ours.fill_bitmask(mask, 0)
    assert bool((mask[0] == -1).all())  # until the request has ended, all may follow
    assert not ours.accept_tokens("r", [97])
    assert late == ["late"]


class Busy:
    """A grammar that computes until it is told to stop."""

    def __init__(self) -> None:
        self.stopped = False

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        while not self.stopped:
            sum(range(1000))
        return True


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> bounded_grammar._Helpers:
    monkeypatch.setattr(bounded_grammar, "CALL_S", 0.05)
    made = bounded_grammar._Helpers()
    monkeypatch.setattr(bounded_grammar, "_helpers", made)
    return made


def test_a_call_without_end_is_left_and_its_thread_ends_when_it_can(
    helpers: bounded_grammar._Helpers,
) -> None:
    busy = Busy()
    ours, late = bounded(busy)
    assert not ours.accept_tokens("r", [1])
    assert late == ["late"]
    (helper,) = helpers._late
    assert helper.computing
    other, _ = bounded(Matcher('root ::= "a"'))
    assert other.accept_tokens("r", [97])
    busy.stopped = True
    helper._thread.join(10)
    assert not helper.computing


def test_with_too_many_of_them_the_engine_fails(
    helpers: bounded_grammar._Helpers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_grammar, "MAX_LATE", 1)
    grammars = [Busy(), Busy()]
    try:
        assert not bounded(grammars[0])[0].accept_tokens("r", [1])
        with pytest.raises(GrammarsStuck):
            bounded(grammars[1])[0].accept_tokens("r", [1])
    finally:
        for busy in grammars:
            busy.stopped = True


def test_an_error_of_a_grammar_is_raised_where_it_is_asked() -> None:
    def broken(*_: object) -> bool:
        raise RuntimeError(threading.current_thread().name)

    work: Callable[..., bool] = broken
    ours, late = bounded(SimpleNamespace(accept_tokens=work))
    with pytest.raises(RuntimeError, match="grammar"):
        ours.accept_tokens("r", [1])
    assert late == []
