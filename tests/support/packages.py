"""Puts packages that `make setup` does not bring into folders of their own.

`.venv` stays as the lock says. A package that both these and the lock need has the version of the
lock.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from machine import Interpreter
from setup_env import ROOT, find_sources, lock_file, provide_uv, read_stamp


def of_extra(name: str) -> list[str]:
    """The requirements of an extra of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"][name])


def install(folder: Path, requirements: Sequence[str], *options: str) -> None:
    """Install Python packages. Raises CalledProcessError if uv cannot."""
    version = sys.version_info
    python = Interpreter(sys.executable, (version.major, version.minor, version.micro))
    sources = find_sources(python)
    command = [provide_uv(python, None), "pip", "install", "--python", sys.executable]
    command += ["--target", str(folder), "--constraint", str(lock_file(read_stamp()["lock"]))]
    command += [*options, *sources.options, *requirements]
    subprocess.run(command, env=sources.env, check=True)


def install_npm(folder: Path, packages: Sequence[str]) -> None:
    """Install packages of npm. Raises CalledProcessError if npm cannot."""
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(folder)]
    subprocess.run([*npm, *packages], check=True, timeout=600)
