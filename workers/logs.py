"""The log of a worker: JSON lines on standard error, each with the worker's name.

vLLM's own lines take the same form, also in processes that vLLM starts: each of them reads
``vllm_logging.json``, whose handler is `EngineLogHandler`. The text of a prompt is never logged.

When an engine cannot start, only the process where it failed knows the reason, and that need not be
the worker's process. The handler there writes the reason to a file, where `start_failure` finds it.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from logging.config import dictConfig
from pathlib import Path

import structlog
from structlog.typing import Processor

from workers import line_logger, tracing
from workers.errors import WorkerError

_INSTANCE_ENV = "PASCAL_LOG_INSTANCE_ID"  # for the processes that vLLM starts
_CAUSES_ENV = "PASCAL_LOG_CAUSES"  # the file where they note why they could not start
_VLLM_CONFIG = Path(__file__).with_name("vllm_logging.json")
_SEE_ABOVE = "See root cause above"  # how vLLM refers to another process
_MOST_REASON = 500  # characters


def configure(level: int, instance_id: str) -> None:
    """Log events of ``level`` and above from every thread, each with the worker's name."""
    rendering: list[Processor] = [
        tracing.add_x_request_id,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(line_logger.json_line),
    ]
    line_logger.configure(level, rendering, instance_id=instance_id)


def prepare_engine_logs(instance_id: str, *, processes: bool, folder: str | None = None) -> None:
    """Give vLLM's lines this form; must be called before vLLM is imported.

    :param processes: whether vLLM starts processes, which then write down why they cannot start.
    :param folder: an existing folder for the file they write to; None: the one for temporary files.
    """
    os.environ[_INSTANCE_ENV] = instance_id
    if processes:
        descriptor, path = tempfile.mkstemp(prefix="pascal-start-", dir=folder)
        os.close(descriptor)
        os.environ[_CAUSES_ENV] = path
    if os.environ.get("VLLM_CONFIGURE_LOGGING", "1") != "0":  # else vLLM refuses a configuration
        os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(_VLLM_CONFIG))
        # For vLLM's lines before its engine reads the same configuration.
        dictConfig(json.loads(_VLLM_CONFIG.read_text(encoding="utf-8")))


def start_failure(error: BaseException) -> str:
    """Return why the worker could not start, in one line, from the process where it failed."""
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
    """Delete the file of reasons, once the engine has started or never will."""
    if (path := os.environ.pop(_CAUSES_ENV, None)) is not None:
        Path(path).unlink(missing_ok=True)


def reason_of(error: BaseException) -> str:
    """Return the first cause of an error, in one line.

    That is the first error of a group and the last of a chain of causes. The chain ends at a
    `WorkerError`, whose text is complete.
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
    """Writes vLLM's records; vLLM creates one in each of its processes."""

    def __init__(self) -> None:
        super().__init__()
        configure(logging.INFO, os.environ.get(_INSTANCE_ENV, ""))
        # The configuration file cannot refer to an environment variable.
        logging.getLogger("vllm").setLevel(os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line and, for an error, the reason that this process fails."""
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
        except Exception:  # noqa: BLE001 (a lost line must not end an engine)
            self.handleError(record)


def _note_cause(error: BaseException) -> None:
    path = os.environ.get(_CAUSES_ENV)
    if path is None or _SEE_ABOVE in (reason := reason_of(error)):
        return
    try:
        # Opened, not created: if the file is gone, the engine has started.
        with open(os.open(path, os.O_WRONLY | os.O_APPEND), "w", encoding="utf-8") as file:
            file.write(f"{reason}\n")
    except OSError:
        return
