"""Chooses the event loop of a process: uvloop, or asyncio's own if uvloop cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

_log = structlog.get_logger()

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program to its end on the fastest loop available."""
    runner: Callable[[Coroutine[Any, Any, T]], T]
    try:
        import uvloop

        runner = uvloop.run
    except Exception as error:  # noqa: BLE001 (a compiled module raises anything)
        reason = f"{type(error).__name__}: {error}; asyncio's loop is used, which is slower"
        _log.warning("uvloop_unavailable", reason=reason)
        runner = asyncio.run
    return runner(main)
