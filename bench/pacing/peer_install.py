"""Installs a peer from PyPI into an environment of its own, which later runs use again.

The environments are in the user's cache folder. pip installs, so its configuration applies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.reporting.errors import BenchmarkError

_STAMP: Final = "pascal-peer.txt"  # holds what is installed; written when all of it is
_LAST_WORDS: Final = 500  # characters


class InstallFailed(BenchmarkError):
    """A peer cannot be installed; the message says what failed."""


def cache_folder() -> Path:
    """The folder of all environments."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pascal-serve" / "peers"


def stamp(requirement: str) -> str:
    """Identifies a finished environment: the requirement and the Python."""
    return f"{requirement}\n{sys.executable}\n{sys.version}\n"


def installed(name: str, requirement: str, progress: Callable[[str], None]) -> Path:
    """Install a requirement unless it is there already.

    :param name: of the environment's folder.
    :param requirement: pinned, as pip takes it.
    :param progress: takes one line before an installation.
    :return: the Python of the environment.
    :raises InstallFailed: if pip cannot install it, or the folder cannot be written.
    """
    folder = cache_folder() / name
    python = folder / "bin" / "python"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be installing it
            if not _is_ready(folder, requirement):
                progress(f"installing {requirement} into {folder}; the first time takes a minute")
                _install(folder, requirement, python)
    except OSError as error:
        raise InstallFailed(f"{folder} cannot be written: {error}") from error
    return python


def _is_ready(folder: Path, requirement: str) -> bool:
    try:
        content = (folder / _STAMP).read_text(encoding="utf-8")
    except OSError:
        return False
    return content == stamp(requirement) and os.access(folder / "bin" / "python", os.X_OK)


def _install(folder: Path, requirement: str, python: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted installation may look complete
    _run([sys.executable, "-m", "venv", str(folder)], "no environment could be made")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, requirement], f"pip cannot install {requirement}")
    (folder / _STAMP).write_text(stamp(requirement), encoding="utf-8")


def _run(command: list[str], failure: str) -> None:
    result = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if result.returncode != 0:
        raise InstallFailed(f"{failure}: {result.stdout.strip()[-_LAST_WORDS:]}")
