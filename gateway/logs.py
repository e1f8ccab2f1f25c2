"""The gateway's log: one event a line, JSON unless on a terminal, never the text of a prompt.

Libraries log through Python's `logging`. Their warnings and errors become events of the same form.
"""

from __future__ import annotations

import logging
import sys

import structlog
from aiohttp.web import RequestPayloadError
from structlog.typing import EventDict, Processor

from workers import line_logger


def configure(level: str) -> None:
    """Send events of ``level`` and above to standard error."""
    number = logging.getLevelName(level.upper())
    rendering = _rendering()
    processors = line_logger.configure(number, rendering)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*processors, structlog.stdlib.add_logger_name, _without_input],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handler.addFilter(_no_fault_of_a_client)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def _rendering() -> list[Processor]:
    if sys.stderr.isatty():
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    # Without the values of local variables: they hold prompts and keys.
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(transformer),
        structlog.processors.JSONRenderer(line_logger.json_line),
    ]


def _no_fault_of_a_client(record: logging.LogRecord) -> bool:
    """Drop the error of a body that aiohttp cannot decode: its refusal is logged already."""
    error = record.exc_info[1] if record.exc_info else None
    return not (record.name.startswith("aiohttp") and isinstance(error, RequestPayloadError))


def _without_input(_: object, __: str, event: EventDict) -> EventDict:
    """Reduce errors in the HTTP library to their kind: their text quotes what the client sent."""
    if event["logger"].startswith("aiohttp") and event.get("exc_info"):
        error = event.pop("exc_info")[1]
        event["kind"] = type(error).__name__
    return event
