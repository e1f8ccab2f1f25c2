"""What the program of a client prints: one line for each case, for `tests.compat.runner` to read.

    ok CASE
    FAIL CASE [vllm-project/vllm#16511]: AssertionError: no call
    skip CASE: this version of the client cannot do it

In brackets is where the case fails elsewhere. It runs in the client's own Python, so it needs the
standard library alone.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

MODEL = "tiny-reasoner"
# The folder of the embedded model, which has its tokenizer.
TOKENIZER = Path(__file__).resolve().parents[3] / "models" / MODEL
LONGEST_REASON = 300  # characters

Check = TypeVar("Check", bound=Callable[[], Any])


class Skip(Exception):
    """The client cannot do this; the message says why."""


class Cases:
    """The cases of one program, in the order in which they are written down."""

    def __init__(self) -> None:
        self.checks: list[tuple[str, tuple[str, ...], Callable[[], Any]]] = []
        self.urls: list[str] = []

    def __call__(self, name: str, *elsewhere: str) -> Callable[[Check], Check]:
        """Add a function, plain or `async`: it fails by an exception.

        :param name: what is tried, without a colon or brackets.
        :param elsewhere: references to servers and threads where this fails, or failed.
        """
        if any(sign in name for sign in ":[]\n"):
            raise ValueError(f"a name of a case has no colon and no brackets: {name}")

        def add(check: Check) -> Check:
            self.checks.append((name, elsewhere, check))
            return check

        return add

    @property
    def url(self) -> str:
        """The address of the first server, without `/v1`."""
        return self.urls[0]

    def main(self) -> None:
        """Run the cases against the servers of the command line, and exit: 1 if one failed.

        The variable ``COMPAT_CASES`` is a regular expression: other cases are left out.
        """
        self.urls = [argument for argument in sys.argv[1:] if "://" in argument]
        wanted = re.compile(os.environ.get("COMPAT_CASES", ""))
        chosen = [one for one in self.checks if wanted.search(one[0])]
        failed = [one for one in chosen if not self._holds(*one)]
        sys.exit(1 if failed or not chosen else 0)

    def _holds(self, name: str, elsewhere: tuple[str, ...], check: Callable[[], Any]) -> bool:
        shown = f"{name} [{', '.join(elsewhere)}]" if elsewhere else name
        try:
            result = check()
            if inspect.iscoroutine(result):
                asyncio.run(result)
        except Skip as reason:
            print(f"skip {shown}: {one_line(str(reason))}", flush=True)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exc()
            reason_text = one_line(f"{type(error).__name__}: {error}")
            print(f"FAIL {shown}: {reason_text}", flush=True)
            return False
        else:
            print(f"ok {shown}", flush=True)
        return True


def one_line(text: str) -> str:
    """The text without line breaks, cut to a readable length."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 3] + "..."


def equal(seen: Any, wanted: Any) -> None:
    """:raises AssertionError: both are shown."""
    if seen != wanted:
        raise AssertionError(f"{seen!r} instead of {wanted!r}")


def expect(holds: Any, seen: Any = "") -> None:
    """:raises AssertionError: what does not hold is described by `seen`."""
    if not holds:
        raise AssertionError(seen)


def calculated(expression: str) -> str:
    """The value of an arithmetic expression, as the tool of the embedded model gives it."""
    if not set(expression) <= set("0123456789.+-*/() "):
        raise ValueError(f"no arithmetic: {expression!r}")
    return f"{eval(expression):.10g}"


def shell(*words: object, timeout_s: float = 240.0, **variables: str) -> str:
    """Run a command to its end; what it printed. Raises AssertionError if it fails."""
    answer = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    print(answer.stdout + answer.stderr, file=sys.stderr)
    if answer.returncode:
        last = (answer.stderr or answer.stdout).strip().splitlines()[-3:]
        raise AssertionError(f"{words[0]} ended with {answer.returncode}: {' '.join(last)}")
    return answer.stdout


def headers() -> dict[str, str]:
    """Headers that every request of the client gets: a pace, where a test shall not wait."""
    pace = os.environ.get("COMPAT_TPOT_MS")
    return {"x-slo-tpot-ms": pace} if pace else {}
