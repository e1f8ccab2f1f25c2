"""``python -m tests.soak.leaks KIND serve ...``: ``pascal serve`` that leaks on purpose.

Each kind patches one method in this process, so that every request leaves something behind. The
soak must report it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from gateway.response.session import Session
from gateway.service import ResponseService
from pascal import main

_kept: list[Any] = []
_MEMORY_BYTES = 32768  # about what the events of one response take


def _task(_: Session) -> None:
    _kept.append(asyncio.create_task(asyncio.Event().wait()))


def _descriptor(_: Session) -> None:
    _kept.append(os.open(os.devnull, os.O_RDONLY))


def _memory(_: Session) -> None:
    _kept.append(b"\1" * _MEMORY_BYTES)


def _log(session: Session) -> None:
    _kept.append(session.log)


KINDS: dict[str, Callable[[Session], None] | None] = {
    "tasks": _task,
    "log": _log,
    "fds": _descriptor,
    "memory": _memory,
    "sessions": None,  # finished ones are dropped only if the client asks for it
}


def patch(kind: str) -> None:
    """Make `ResponseService` leak from now on."""
    keep = KINDS[kind]
    if keep is None:
        drop = ResponseService._drop

        def never(self: ResponseService, session: Session) -> None:
            if session.forgotten or not session.finished:
                drop(self, session)

        ResponseService._drop = never  # type: ignore[method-assign]
        return
    start = ResponseService.start

    async def leaking(self: ResponseService, *args: Any, **named: Any) -> Session:
        session = await start(self, *args, **named)
        keep(session)
        return session

    ResponseService.start = leaking  # type: ignore[method-assign]


if __name__ == "__main__":
    patch(sys.argv[1])
    sys.exit(main.main(sys.argv[2:]))
