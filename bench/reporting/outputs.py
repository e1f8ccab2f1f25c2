"""Where a benchmark writes its figures: looked at before minutes are spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.reporting.errors import BenchmarkError


def prepare_json(path: Path | None, *, keep: bool) -> dict[str, Any]:
    """Make sure that ``path`` can be written.

    :param keep: return what it holds, if it exists: the figures of other parts.
    :raises BenchmarkError: naming what is wrong with it.
    """
    if path is None:
        return {}
    found: Any = {}
    try:
        if keep and path.is_file() and (text := path.read_text(encoding="utf-8").strip()):
            found = json.loads(text)
    except OSError as error:
        raise BenchmarkError(f"--json {path}: {error.strerror}") from error
    except ValueError as error:
        problem = "other parts' figures are to be kept, but it is no JSON"
        raise BenchmarkError(f"--json {path}: {problem}") from error
    prepare_file("--json", path)
    if not isinstance(found, dict):
        raise BenchmarkError(f"--json {path}: it holds something else than figures")
    return found


def prepare_file(flag: str, path: Path | None) -> None:
    """Make sure that a file can be written; it is there afterwards.

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
    """Replace what ``path`` holds."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def prepare_folder(path: Path | None) -> None:
    """Make a folder for plots. Raises `BenchmarkError` if it cannot be."""
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchmarkError(f"--plots {path}: {error.strerror}") from error
