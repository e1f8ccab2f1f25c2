"""Bounds what the grammar of one request may cost the steps of all.

A grammar with many readings of one text can make xgrammar compute for seconds at one token, and its
code cannot be interrupted. So calls run in helper threads, and the engine waits for a bounded time.
Then the request ends with an error, and the others go on. The helper thread is left to itself, with
the lowest priority. Times are processor time: a busy machine does no harm.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

_log = structlog.get_logger()

TOO_COSTLY = "grammar_too_costly"  # stop reason of the output that ends such a request

CALL_S = 0.25  # for one call
TOKEN_S = 0.005  # for one call, on average ...
SPARE_S = 1.0  # ... with this much more in all
MAX_LATE = 8  # helpers that still compute for nobody; with more the engine has failed

_LOOK_S = 0.05  # between two looks at a call that takes long
_LAST_S = 10.0  # of real time for one call, however little processor time its helper got


class GrammarsStuck(Exception):
    """Too many grammars still compute for requests that have ended."""


class _Helper:
    """A thread that makes one call at a time."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], bool] | None] = queue.SimpleQueue()
        self._done = threading.Semaphore(0)
        self._answer = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="grammar", daemon=True)
        self._thread.start()
        assert self._thread.ident is not None
        self._clock = time.pthread_getcpuclockid(self._thread.ident)

    def call(self, work: Callable[[], bool], limit_s: float) -> tuple[bool | None, float]:
        """Make a call; :return: its answer, None if it takes too long, and its processor time."""
        began_cpu_s = time.clock_gettime(self._clock)
        self._calls.put(work)
        if not self._done.acquire(timeout=_LOOK_S):
            last_s = time.monotonic() + _LAST_S
            while not self._done.acquire(timeout=_LOOK_S):
                spent_s = time.clock_gettime(self._clock) - began_cpu_s
                if spent_s > limit_s or time.monotonic() > last_s:
                    self._give_up()
                    return None, spent_s
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._answer, time.clock_gettime(self._clock) - began_cpu_s

    def _give_up(self) -> None:
        self._calls.put(None)
        assert self._thread.native_id is not None
        os.setpriority(os.PRIO_PROCESS, self._thread.native_id, 19)

    @property
    def computing(self) -> bool:
        """Whether its thread still lives."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while (work := self._calls.get()) is not None:
            try:
                self._answer = work()
            except Exception as error:  # noqa: BLE001 (raised where the answer is waited for)
                self._error = error
            self._done.release()


class _Helpers:
    """The helper threads of this process."""

    def __init__(self) -> None:
        self._idle: list[_Helper] = []
        self._late: list[_Helper] = []

    def call(self, work: Callable[[], bool], limit_s: float) -> tuple[bool | None, float]:
        """As `_Helper.call`; :raises GrammarsStuck: too many are late."""
        try:
            helper = self._idle.pop()
        except IndexError:
            helper = _Helper()
        answer, spent_s = helper.call(work, limit_s)
        if answer is not None:
            self._idle.append(helper)
            return answer, spent_s
        self._late = [one for one in self._late if one.computing] + [helper]
        if len(self._late) > MAX_LATE:
            raise GrammarsStuck(f"{len(self._late)} grammars still compute for nobody")
        return None, spent_s


_helpers = _Helpers()


class BoundedGrammar(StructuredOutputGrammar):
    """A grammar of vLLM whose calls are bounded. After one that took too long it takes no token."""

    def __init__(self, grammar: StructuredOutputGrammar, on_late: Callable[[], None]) -> None:
        """:param on_late: called once, in any thread, if a call took too long."""
        self._grammar = grammar
        self._on_late = on_late
        self._row: Any = None  # the mask of this request: one that is late may still write to it
        self._left_s = SPARE_S
        self._late = False

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """Take tokens; :return: whether the grammar allows them, in time."""
        return self._call(lambda: self._grammar.accept_tokens(request_id, tokens), len(tokens))

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """The tokens of a draft that the grammar allows."""
        allowed: list[int] = []

        def validate() -> bool:
            allowed.extend(self._grammar.validate_tokens(tokens))
            return True

        return allowed if self._call(validate, len(tokens)) else []

    def rollback(self, num_tokens: int) -> None:
        """Take tokens back."""
        if not self._late:
            self._grammar.rollback(num_tokens)

    def fill_bitmask(self, bitmask: Any, batch_index: int) -> None:
        """Say which tokens may follow. All may, if that takes too long: the request ends then."""
        if self._row is None:
            self._row = bitmask[batch_index : batch_index + 1].clone()
        row = self._row

        def fill() -> bool:
            self._grammar.fill_bitmask(row, 0)
            return True

        if self._call(fill, 1):
            bitmask[batch_index].copy_(row[0])
        else:
            bitmask[batch_index].fill_(-1)

    def is_terminated(self) -> bool:
        """Whether the output is complete."""
        return not self._late and self._grammar.is_terminated()

    def reset(self) -> None:
        """Begin anew."""
        if not self._late:
            self._grammar.reset()

    def _call(self, work: Callable[[], bool], tokens: int) -> bool:
        if self._late:
            return False
        answer, spent_s = _helpers.call(work, CALL_S)
        self._left_s = min(SPARE_S, self._left_s + TOKEN_S * tokens - spent_s)
        if answer is None or self._left_s < 0:
            self._late = True
            _log.error("grammar_too_costly", seconds=round(spent_s, 3))
            self._on_late()
            return False
        return answer
