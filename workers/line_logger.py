"""Logging, configured in one way for the gateway and for workers: structlog, one line an event.

Lines go to standard error, which may be a file on a full disk or a pipe without a reader. A line
that cannot be written is lost; it must not end a request, a task or the process.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor

# Objects appear as `repr` shows them, whatever their type.
_AS_REPR = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def configure(level: int, rendering: Sequence[Processor], **bound: str) -> list[Processor]:
    """Log events of ``level`` and above from all threads of this process.

    An exception that ends a thread is logged, too.

    :param level: as in `logging`.
    :param rendering: the processors that make a line of an event.
    :param bound: what every event carries unless it says otherwise, such as ``instance_id``. This
        is part of the configuration, since a context variable would be empty in other threads.
    :return: the processors before ``rendering``, for events that come by way of `logging`.
    """

    def bind(_: object, __: str, event: EventDict) -> EventDict:
        for name, value in bound.items():
            event.setdefault(name, value)
        return event

    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        bind,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    structlog.configure(
        processors=[*processors, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=LineLogger,
    )
    threading.excepthook = _thread_failed
    return processors


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    lines = traceback.format_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)
    structlog.get_logger().error(
        "thread_failed",
        thread=None if failure.thread is None else failure.thread.name,
        exception="".join(lines),
    )


def json_line(event: EventDict, default: Callable[[Any], Any]) -> str:
    """Encode an event as one line of ASCII, which no terminal or locale can spoil.

    `json` takes over where `orjson` would not give that: text that is not ASCII, lone surrogates,
    keys that are no text, and integers beyond 64 bits.

    :param default: converts a value that JSON has no form for.
    """
    try:
        data = orjson.dumps(event, default=default, option=_AS_REPR)
    except TypeError:
        pass
    else:
        if data.isascii():
            return data.decode()
    return json.dumps(event, default=default, separators=(",", ":"))


class LineLogger(structlog.PrintLogger):
    """Writes one line for each event, and drops lines that cannot be written."""

    def __init__(self, *_: object) -> None:
        super().__init__(sys.stderr)

    def msg(self, message: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: standard error is closed
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg
