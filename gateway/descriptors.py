"""Notices when the gateway runs short of file descriptors, and logs it once.

Each connection holds a descriptor. Without a free one, new connections cannot be accepted: asyncio
reports that to the loop's exception handler every second; uvloop resets the connections without a
report. The watch therefore also looks at the descriptor of each new connection, since the kernel
assigns the lowest free number.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger()

_OUT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def _soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


class DescriptorWatch:
    """Logs one line when descriptors become scarce, and the next only after many were free again.

    :param limit: returns how many descriptors the process may have.
    :param count: returns how many it has. May raise OSError, as it needs a descriptor itself.
    """

    def __init__(
        self,
        limit: Callable[[], int] = _soft_limit,
        count: Callable[[], int] = _open_descriptors,
    ) -> None:
        self._limit = limit
        self._count = count
        self._scarce = False

    def accepted(self, descriptor: int) -> None:
        """Look at the descriptor of a new connection."""
        limit = self._limit()
        spare = max(4, limit // 20)
        if descriptor >= limit - spare:
            self._tell(limit)
        elif self._scarce and descriptor < limit - 2 * spare:
            # A low number may be a gap between many, or may have been assigned earlier.
            self._scarce = not self._below(limit - 2 * spare)

    def loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an exception of the loop (`asyncio.loop.set_exception_handler`)."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _OUT and "accept" in context["message"]:
            self._tell(self._limit())
        else:
            loop.default_exception_handler(context)

    def _below(self, bound: int) -> bool:
        try:
            return self._count() < bound
        except OSError:
            return False

    def _tell(self, limit: int) -> None:
        if self._scarce:
            return
        self._scarce = True
        log.warning(
            "descriptors_ran_short",
            limit=limit,
            advice="new connections are refused or wait; raise the limit on open files (ulimit -n)",
        )
