"""Logging: structlog, one event per line, JSON unless on a terminal. Never a prompt's text.

Libraries log through Python's `logging`; their warnings and errors become events of the same form.
"""

from __future__ import annotations

import logging
import sys

import structlog
from aiohttp.web import RequestPayloadError
from structlog.typing import EventDict, Processor

from workers.line_logger import LineLogger


def configure(level: str) -> None:
    """Send events of ``level`` and above to stderr."""
    terminal = sys.stderr.isatty()
    renderer: Processor = structlog.processors.JSONRenderer()
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    rendering: list[Processor] = [renderer]
    if not terminal:
        # Without the values of local variables: they hold prompts and keys.
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        rendering.insert(0, structlog.processors.ExceptionRenderer(transformer))
    number = logging.getLevelName(level.upper())
    structlog.configure(
        processors=[*processors, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=LineLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*processors, structlog.stdlib.add_logger_name, _without_input],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handler.addFilter(_no_fault_of_a_client)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def _no_fault_of_a_client(record: logging.LogRecord) -> bool:
    """A body that aiohttp cannot decode is refused, and that is logged; it need not be an error."""
    error = record.exc_info[1] if record.exc_info else None
    return not (record.name.startswith("aiohttp") and isinstance(error, RequestPayloadError))


def _without_input(_: object, __: str, event: EventDict) -> EventDict:
    """Of errors in the HTTP library only their kind: their text quotes what the client sent."""
    if event["logger"].startswith("aiohttp") and event.get("exc_info"):
        error = event.pop("exc_info")[1]
        event["kind"] = type(error).__name__
    return event
