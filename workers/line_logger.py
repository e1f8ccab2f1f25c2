"""Where log lines go: to standard error, and nowhere if it cannot take them.

Standard error may be a file on a full disk, or a pipe that nobody reads any more. A line that is
lost then must not end the request, the task or the process that wanted to say something.
"""

from __future__ import annotations

import contextlib
import sys

import structlog


class LineLogger(structlog.PrintLogger):
    """Writes one line for each event, and loses those that cannot be written."""

    def __init__(self, *_: object) -> None:
        super().__init__(sys.stderr)

    def msg(self, message: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg
