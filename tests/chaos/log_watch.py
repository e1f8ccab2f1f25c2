"""Errors in the logs of gateway and workers: their own bugs. Outside faults are warnings there."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import structlog

# Errors that a killed or stopped worker causes.
_EXPECTED = frozenset({"worker_failed"})
# In a line of vLLM's connector: the worker was killed whose memory was being read.
_KILLED_PEER = "NIXL_ERR_REMOTE_DISCONNECT"
_SHOWN = 2000  # characters of a traceback


class LogWatch:
    """Collects errors."""

    def __init__(self) -> None:
        self._errors: list[str] = []

    def install(self) -> None:
        """Receive the gateway's log, and the exceptions that no task retrieves."""
        structlog.configure(
            processors=[structlog.processors.add_log_level, self._look],
            cache_logger_on_first_use=False,
        )
        asyncio.get_running_loop().set_exception_handler(self._not_looked_at)

    def of_gateway(self) -> list[str]:
        """Errors of the gateway so far."""
        return self._errors

    def of_workers(self, folder: Path) -> list[str]:
        """Errors in the log files of this folder."""
        return [
            f"{path.name}: {line[:_SHOWN]}"
            for path in sorted(folder.glob("*.log"))
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
            if ('"level":"error"' in line and _KILLED_PEER not in line)
            or line.startswith("Traceback")
            or "never retrieved" in line
        ]

    def _look(
        self, logger: object, name: str, event: MutableMapping[str, Any]
    ) -> Mapping[str, Any]:
        bad = event["level"] in ("error", "critical") and event["event"] not in _EXPECTED
        if bad or event.get("exc_info"):
            shown = {key: value for key, value in event.items() if key != "exc_info"}
            report = f"logged by the gateway: {shown}"
            if event.get("exc_info"):
                report += "\n" + traceback.format_exc()[-_SHOWN:]
            self._errors.append(report)
        raise structlog.DropEvent

    def _not_looked_at(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        report = f"the event loop reports: {context['message']}"
        if (error := context.get("exception")) is not None:
            report += "\n" + "".join(traceback.format_exception(error))[-_SHOWN:]
        self._errors.append(report)
