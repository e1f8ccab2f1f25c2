"""What a worker logs: JSON lines on standard error, with its name, from all its threads.

vLLM's own lines, also those of the processes that it starts, take the same form: vLLM reads
``vllm_logging.json``, whose handler is `EngineLogHandler`, in each of them. Never the text of a
prompt.

Why an engine could not be started is known in the process where it happened, which is not always
the worker's. There the handler notes it in a file, and `start_failure` finds it.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import traceback
from logging.config import dictConfig
from pathlib import Path
from typing import Any

import structlog

from workers.errors import WorkerError
from workers.line_logger import LineLogger

_INSTANCE_ENV = "PASCAL_LOG_INSTANCE_ID"  # for the processes that vLLM starts
_CAUSES_ENV = "PASCAL_LOG_CAUSES"  # the file where they note why they could not start
_VLLM_CONFIG = Path(__file__).with_name("vllm_logging.json")
_SEE_ABOVE = "See root cause above"  # vLLM's words for: in another process
_MOST_REASON = 500  # characters


def configure(level: int, instance_id: str) -> None:
    """Log events of ``level`` and above, each with the worker's name.

    The name is a part of the configuration: a context variable would be empty in other threads.
    """

    def named(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("instance_id", instance_id)
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            named,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=LineLogger,
    )
    threading.excepthook = _thread_failed


def prepare_engine_logs(instance_id: str, *, processes: bool, folder: str | None = None) -> None:
    """Let vLLM's lines take this form; before vLLM is imported.

    :param processes: whether vLLM has some of its own, which then note why they cannot start.
    :param folder: of the file for these notes, which must exist; None: that for temporary files.
    """
    os.environ[_INSTANCE_ENV] = instance_id
    if processes:
        descriptor, path = tempfile.mkstemp(prefix="pascal-start-", dir=folder)
        os.close(descriptor)
        os.environ[_CAUSES_ENV] = path
    if os.environ.get("VLLM_CONFIGURE_LOGGING", "1") != "0":  # else vLLM refuses a configuration
        os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(_VLLM_CONFIG))
        # Also for what it says before its engine reads that: it is the same again then.
        dictConfig(json.loads(_VLLM_CONFIG.read_text(encoding="utf-8")))


def start_failure(error: BaseException) -> str:
    """Why the worker could not start, in one line; from the process that knows."""
    reason = reason_of(error)
    path = os.environ.get(_CAUSES_ENV)
    if path is None or _SEE_ABOVE not in reason:
        return reason
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return reason
    return lines[0] if lines else reason  # the others follow from the first


def forget_causes() -> None:
    """The engine has started, or never will: nothing more is to be noted."""
    if (path := os.environ.pop(_CAUSES_ENV, None)) is not None:
        Path(path).unlink(missing_ok=True)


def reason_of(error: BaseException) -> str:
    """The error behind an error, in one line: of groups the first, of chains the last.

    One of our own says all that is to be said.
    """
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None and not isinstance(error, WorkerError):
            error = error.__cause__
        else:
            break
    text = str(error)
    if callable(problems := getattr(error, "errors", None)):  # pydantic's, else a page of values
        text = "; ".join(str(problem["msg"]) for problem in problems())
    text = " ".join(text.split())
    if not text or isinstance(error, ImportError):  # whose text is often a name alone
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _MOST_REASON else f"{text[:_MOST_REASON]}..."


class EngineLogHandler(logging.Handler):
    """Takes vLLM's records; made by vLLM in each of its processes."""

    def __init__(self) -> None:
        super().__init__()
        configure(logging.INFO, os.environ.get(_INSTANCE_ENV, ""))
        # In the configuration there is no way to name an environment variable.
        logging.getLogger("vllm").setLevel(os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, and note why this process fails."""
        try:
            error = record.exc_info[1] if record.exc_info else None
            if error is not None and record.levelno >= logging.ERROR:
                _note_cause(error)
            structlog.get_logger().log(
                max(record.levelno, logging.INFO),
                record.getMessage(),
                logger=record.name,
                process=getattr(record, "vllm_process_name", record.processName),
                **({} if error is None else {"exc_info": error}),
            )
        except Exception:  # noqa: BLE001 (a line that is lost must not end an engine)
            self.handleError(record)


def _note_cause(error: BaseException) -> None:
    path = os.environ.get(_CAUSES_ENV)
    if path is None or _SEE_ABOVE in (reason := reason_of(error)):
        return
    try:
        # Not created here: where it is gone the engine has started.
        with open(os.open(path, os.O_WRONLY | os.O_APPEND), "w", encoding="utf-8") as file:
            file.write(f"{reason}\n")
    except OSError:
        return


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    lines = traceback.format_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)
    structlog.get_logger().error(
        "thread_failed",
        thread=None if failure.thread is None else failure.thread.name,
        exception="".join(lines),
    )
