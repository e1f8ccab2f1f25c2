"""What gateway and workers log of their own bugs. Faults of the outside are warnings to them."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import structlog

# Errors that a worker which was killed or stopped brings with it.
_EXPECTED = frozenset({"worker_failed"})
_SHOWN = 2000  # characters of a traceback


class LogWatch:
    """Collects them."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def install(self) -> None:
        """Send the gateway's log here, and the exceptions that no task looks at."""
        structlog.configure(
            processors=[structlog.processors.add_log_level, self._look],
            cache_logger_on_first_use=False,
        )
        asyncio.get_running_loop().set_exception_handler(self._not_looked_at)

    def of_gateway(self) -> list[str]:
        """All that was wrong there."""
        return self._found

    def of_workers(self, folder: Path) -> list[str]:
        """All that was wrong in the logs of this folder."""
        return [
            f"{path.name}: {line[:_SHOWN]}"
            for path in sorted(folder.glob("*.log"))
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
            if '"level": "error"' in line
            or line.startswith("Traceback")
            or "never retrieved" in line
        ]

    def _look(
        self, logger: object, name: str, event: MutableMapping[str, Any]
    ) -> Mapping[str, Any]:
        bad = event["level"] in ("error", "critical") and event["event"] not in _EXPECTED
        if bad or event.get("exc_info"):
            shown = {key: value for key, value in event.items() if key != "exc_info"}
            found = f"logged by the gateway: {shown}"
            if event.get("exc_info"):
                found += "\n" + traceback.format_exc()[-_SHOWN:]
            self._found.append(found)
        raise structlog.DropEvent

    def _not_looked_at(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        found = f"the event loop reports: {context['message']}"
        if (error := context.get("exception")) is not None:
            found += "\n" + "".join(traceback.format_exception(error))[-_SHOWN:]
        self._found.append(found)
