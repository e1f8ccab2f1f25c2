"""The parts of `make acceptance`: one entry for each.

A part is here because it takes too long for `make test`, or needs more than `make setup` brings. It
must end with status 0 only if everything that it checks holds, and print its result as last line.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from machine import SUPPORTED, probe_interpreter

from tests.support.programs import (
    CHROMIUM,
    HAPROXY,
    NGINX,
    NODE,
    NPM,
    POSTGRESQL,
    PROMTOOL,
    Program,
)


@dataclass(frozen=True, slots=True)
class Part:
    """One check: its meaning, the programs that it needs, its command and its time."""

    name: str
    shows: str
    command: tuple[str, ...]
    minutes: float  # expected, on two cores
    limit_minutes: float  # after this it is ended, and has failed
    programs: tuple[Program, ...] = ()
    absent: str = ""  # why it is skipped here, if it is


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


def _needing(program: Program) -> str:
    return f"needs_program(program='{program.name}')"


def _tests_of(program: Program, folder: str) -> tuple[str, ...]:
    return _module("pytest", "-q", folder, "-m", _needing(program))


def find_interpreter(version: tuple[int, int]) -> str | None:
    """Path of a Python of this version: on the PATH, or among pyenv's."""
    name = ".".join(map(str, version))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = sorted(pyenv.glob(f"versions/{name}.*/bin/python3"))
    for command in (f"python{name}", *map(str, installed)):
        found = probe_interpreter(command)
        if found is not None and found.version[:2] == version:
            return found.path
    return None


def _set_up_and_chat(version: tuple[int, int]) -> Part:
    name = ".".join(map(str, version))
    path = find_interpreter(version)
    return Part(
        f"python-{name}",
        f"`make setup` and `make serve` on Python {name}: a chat, and a drain of a worker",
        _module("tests.acceptance.fresh", f"--name=python-{name}", f"--python={path}"),
        minutes=4,
        limit_minutes=40,
        absent="" if path else f"no Python {name} was found",
    )


def all_parts() -> list[Part]:
    """Every part, in the order in which they run: the short ones first."""
    others = f"{_needing(CHROMIUM)} or {_needing(POSTGRESQL)}"  # which have parts of their own
    return [
        Part(
            "metrics",
            "/metrics is as promtool wants it",
            _tests_of(PROMTOOL, "tests/gateway"),
            minutes=1,
            limit_minutes=10,
            programs=(PROMTOOL,),
        ),
        Part(
            "proxies",
            "two gateways behind nginx and HAProxy, with the files of the guide",
            _module("pytest", "-q", "tests/gateway/several/test_proxies.py"),
            minutes=1,
            limit_minutes=10,
            programs=(NGINX, HAPROXY),
        ),
        Part(
            "postgresql",
            "the store on a real PostgreSQL: as on SQLite; shared; away for 30 s; two gateways",
            _tests_of(POSTGRESQL, "tests/gateway/store"),
            minutes=4,
            limit_minutes=20,
            programs=(POSTGRESQL,),
        ),
        Part(
            "browser",
            "the pages in Chromium, with a scripted gateway and a real one; axe, in each size",
            _tests_of(CHROMIUM, "tests/web"),
            minutes=12,
            limit_minutes=40,
            programs=(CHROMIUM, NPM),
        ),
        Part(
            "page-figures",
            "the chat page beside its limits: pace, frames, resume, QoE, cold load; wants quiet",
            _module("tests.web.figures"),
            minutes=6,
            limit_minutes=15,
            programs=(CHROMIUM,),
        ),
        Part(
            "long-tests",
            "tests of minutes: formats and exactness on real engines, schemas, benchmarks",
            _module("pytest", "-q", "tests", "-m", f"long and not ({others})"),
            minutes=25,
            limit_minutes=60,
        ),
        Part(
            "ray",
            "two workers in Ray actors: a kill, a drain, a gateway that dies",
            _module("tests.acceptance.with_ray"),
            minutes=4,
            limit_minutes=30,
        ),
        Part(
            "compat",
            "every client of `make compat`, without a change of the page of results",
            _module("tests.compat", "--no-write"),
            minutes=25,
            limit_minutes=120,
            programs=(NODE, NPM),
        ),
        Part(
            "fuzz",
            "anything over HTTP (schemathesis) and WebSockets: no 500, no answer undescribed",
            _module("tests.acceptance.fuzz"),
            minutes=10,
            limit_minutes=60,
        ),
        *(_set_up_and_chat(version) for version in SUPPORTED),
        Part(
            "crowd",
            "1000 readers, of whom a fifth misbehaves: the others read in time, without a hole",
            _module("tests.soak.crowd", "--readers=1000"),
            minutes=4,
            limit_minutes=10,
        ),
        Part(
            "switches",
            "200 switches of the scheduling policy under 120 readers: no stream shows them",
            _module("tests.gateway.ops.switches"),
            minutes=7,
            limit_minutes=20,
        ),
        Part(
            "fresh-clone",
            "a newcomer's two commands with an empty home folder: `make serve`, `make test`",
            _module("tests.acceptance.fresh", "--name=fresh-clone", "--empty-home", "--test"),
            minutes=20,
            limit_minutes=60,
        ),
        Part(
            "docs",
            "the commands of the README, the tutorial and the how-to guides, in a fresh clone",
            _module("tests.acceptance.doc_commands"),
            minutes=25,
            limit_minutes=75,
        ),
        Part(
            "real-time",
            "eight emulated instances keep real time, if nothing else runs on this machine",
            _module("bench.emulation"),
            minutes=3,
            limit_minutes=10,
        ),
        Part(
            "chaos",
            "130 faults under running requests: no text changes, nothing is left behind",
            _module("tests.chaos", "--faults=130", "--kills=30", "--seed=1"),
            minutes=26,
            limit_minutes=60,
        ),
        Part(
            "soak",
            "an hour of clumsy clients: memory, descriptors, tasks, logs and store do not grow",
            _module("tests.soak", "--minutes=60"),
            minutes=62,
            limit_minutes=80,
        ),
    ]
