"""Puts packages that `make setup` does not bring into folders of their own.

`.venv` stays as the lock says.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from machine import Interpreter
from setup_env import ROOT, find_sources, lock_file, provide_uv, read_stamp

INSTALL_S = 1200.0  # guards against a hang; the largest clients bring gigabytes


def of_extra(name: str) -> list[str]:
    """The requirements of an extra of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"][name])


def install(folder: Path, requirements: Sequence[str], *options: str) -> None:
    """Install Python packages, to be put in front of those of `.venv`.

    A package that both these and the lock need has the version of the lock. Raises
    CalledProcessError if uv cannot.
    """
    python = _this_python()
    sources = find_sources(python)
    command = [provide_uv(python, None), "pip", "install", "--python", sys.executable]
    command += ["--target", str(folder), "--constraint", str(lock_file(read_stamp()["lock"]))]
    command += [*options, *sources.options, *requirements]
    subprocess.run(command, env=sources.env, check=True)


def install_venv(
    folder: Path, requirements: Sequence[str], output: IO[str], constraints: Sequence[str] = ()
) -> None:
    """Make a virtual environment with these packages, and nothing of `.venv`.

    :param output: gets what uv prints.
    :param constraints: requirements that hold for packages that are needed anyway.
    Raises CalledProcessError if uv cannot.
    """
    python = _this_python()
    sources = find_sources(python)
    uv = provide_uv(python, None)

    def run(*command: str) -> None:
        subprocess.run(
            [uv, *command],
            env=sources.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=True,
            timeout=INSTALL_S,
        )

    run("venv", "--clear", "--python", sys.executable, str(folder))
    limits = folder / "constraints.txt"
    limits.write_text("\n".join(constraints), encoding="utf-8")
    own = str(folder / "bin" / "python")
    run(
        "pip", "install", "--python", own, "--constraint", str(limits),
        *sources.options, *requirements,
    )  # fmt: skip


def install_npm(folder: Path, packages: Sequence[str], output: IO[str] | None = None) -> None:
    """Install packages of npm. Raises CalledProcessError if npm cannot."""
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(folder)]
    subprocess.run(
        [*npm, *packages],
        check=True,
        timeout=INSTALL_S,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    )


def _this_python() -> Interpreter:
    version = sys.version_info
    return Interpreter(sys.executable, (version.major, version.minor, version.micro))
