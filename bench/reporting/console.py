"""What the commands of ``bench`` print: width, progress bars, errors and exit codes.

Must not know what a command measures.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# Exit codes of every command.
OK: Final = 0
FAILED: Final = 1  # the measurement failed, or a result missed its bound
REFUSED: Final = 2  # the flags or the files that they name cannot be used
INTERRUPTED: Final = 130  # Ctrl-C, as shells report it (128 + SIGINT)

_FILE_COLUMNS = 140  # the width of a file or a pipe: room for the tables


def wide_console(*, columns: int = _FILE_COLUMNS, stderr: bool = False) -> Console:
    """A console as wide as its terminal; where it has none, as wide as the tables need.

    :param columns: the width without a terminal, in characters.
    """
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=columns)


def give_up(status: int, reason: object, program: str = "pascal") -> int:
    """Print one line to standard error.

    :param reason: the text after the name of the program.
    :return: ``status``, for the caller to return.
    """
    print(f"{program}: {reason}", file=sys.stderr)
    return status


def interrupted(kept: str = "nothing was written") -> int:
    """Report Ctrl-C.

    :param kept: what is left of the interrupted work.
    :return: `INTERRUPTED`.
    """
    return give_up(INTERRUPTED, f"interrupted; {kept}")


class CaseProgress:
    """How many cases are done: a bar on a terminal, elsewhere a line for each finished case."""

    def __init__(
        self, console: Console, name: str, total: int | None = None, *, transient: bool = False
    ) -> None:
        """Begin with no case done.

        :param name: of the work, in front of the bar.
        :param total: number of cases, if it is known.
        :param transient: remove the bar at the end.
        """
        self._console = console
        self._name = name
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=transient,
        )
        self._task = self._bar.add_task(name, total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, done: float) -> None:
        """Move the bar.

        :param done: number of finished cases; parts of running cases may count.
        """
        self._bar.update(self._task, completed=done)

    def finished(self, case: str, done: int, total: int) -> None:
        """Report one more finished case.

        :param case: its name.
        :param done: number of finished cases, this one included.
        :param total: number of cases.
        """
        self._bar.update(self._task, completed=done, total=total)
        if not self._console.is_terminal:
            self._console.print(f"{self._name}: {done} of {total} ({case})")
