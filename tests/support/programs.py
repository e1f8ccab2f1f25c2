"""Programs that `make setup` does not bring: which tests need them, and how to get them.

A test declares such a program: ``@needs("promtool", package="prometheus")``. Without the program,
`make test` skips the test and prints how to get it. `make acceptance` sets
``PASCAL_ACCEPTANCE=1``, which makes the test fail instead.
``pytest -m "needs_program(program='promtool')"`` runs the tests of one program.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import chromium
import pytest

VARIABLE = "PASCAL_ACCEPTANCE"
OLDEST_NODE = 20


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is not part of the project, and how to get it."""

    name: str
    package: str = ""  # of Debian
    install: str = ""  # another way, as a sentence without its subject
    find: Callable[[], object] | None = None  # looks elsewhere than on the PATH

    def is_there(self) -> bool:
        """Whether the program is installed."""
        return bool(shutil.which(self.name) if self.find is None else self.find())

    @property
    def missing(self) -> str:
        """One line: what is missing and how to get it."""
        how = self.install or f"install the Debian package `{self.package}`"
        return f"{self.name} is missing: {how}"


def find_node() -> str | None:
    """Path of a Node.js that can run the tests of the pages, or None."""
    path = shutil.which("node")
    if path is None:
        return None
    answer = subprocess.run([path, "--version"], check=True, capture_output=True, text=True)
    return path if int(answer.stdout.lstrip("v").partition(".")[0]) >= OLDEST_NODE else None


def find_postgresql() -> Path | None:
    """Folder of the programs of PostgreSQL, of the newest version that is installed."""
    found = [str(path) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if on_path := shutil.which("initdb"):
        found.append(on_path)
    newest = max(found, key=lambda path: int("".join(filter(str.isdigit, path)) or 0), default=None)
    return Path(newest).parent if newest else None


CHROMIUM = Program("chromium", package="chromium", find=chromium.find)
NODE = Program(
    "node", install=f"install Node.js {OLDEST_NODE} or newer and put `node` on the PATH",
    find=find_node,
)  # fmt: skip
NPM = Program("npm", package="npm")
NGINX = Program("nginx", package="nginx-light")
HAPROXY = Program("haproxy", package="haproxy")
POSTGRESQL = Program("postgresql", package="postgresql", find=lambda: find_postgresql())
PROMTOOL = Program("promtool", package="prometheus")
PSYCOPG = Program(
    "psycopg",
    install="`make setup` brings it",
    find=lambda: importlib.util.find_spec("psycopg"),
)
RAY = Program(
    "ray",
    install="`make acceptance ARGS='--only ray'` installs it apart from .venv",
    find=lambda: importlib.util.find_spec("ray"),
)


def needs(program: str | Program, *, package: str = "") -> pytest.MarkDecorator:
    """Mark a test that needs programs; a name is looked up on the PATH."""
    if isinstance(program, str):
        program = Program(program, package=package)
    return pytest.mark.needs_program(program=program.name, needed=program)


def check(item: pytest.Item) -> None:
    """Skip the test if one of its programs is missing; in `make acceptance`, fail it.

    Long tests, with real engines or in browsers, run in `make acceptance` alone.
    """
    if any(item.iter_markers("long")) and os.environ.get(VARIABLE) != "1":
        pytest.skip(
            "takes a minute: `make acceptance` runs it, with long-tests, browser or postgresql"
        )
    for mark in item.iter_markers("needs_program"):
        needed: Program = mark.kwargs["needed"]
        if needed.is_there():
            continue
        if os.environ.get(VARIABLE) == "1":
            pytest.fail(needed.missing, pytrace=False)
        pytest.skip(needed.missing)
