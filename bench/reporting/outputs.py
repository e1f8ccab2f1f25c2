"""Files that a measurement writes: checked before it begins, written when it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.reporting.errors import BenchmarkError


def prepare_json(path: Path | None, *, keep: bool) -> dict[str, Any]:
    """Make sure that ``path`` can be written.

    :param keep: return the results of other parts that the file already holds.
    :raises BenchmarkError: naming the file and what is wrong with it.
    """
    if path is None:
        return {}
    kept: Any = {}
    try:
        if keep and path.is_file() and (text := path.read_text(encoding="utf-8").strip()):
            kept = json.loads(text)
    except OSError as error:
        raise BenchmarkError(f"--json {path}: {error.strerror}") from error
    except ValueError as error:
        problem = "it is not JSON, so the results of other parts cannot be kept"
        raise BenchmarkError(f"--json {path}: {problem}") from error
    prepare_file("--json", path)
    if not isinstance(kept, dict):
        raise BenchmarkError(f"--json {path}: it holds something other than results")
    return kept


def prepare_file(flag: str, path: Path | None) -> None:
    """Make sure that a file can be written; it exists afterwards.

    :raises BenchmarkError: naming the flag and what is wrong.
    """
    if path is None:
        return
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise BenchmarkError(f"{flag} {path}: {error.strerror}") from error


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Replace the contents of ``path``; nothing is written for None."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def prepare_folder(path: Path | None) -> None:
    """Make a folder for plots.

    :raises BenchmarkError: naming the folder and what is wrong.
    """
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchmarkError(f"--plots {path}: {error.strerror}") from error
