"""Programs of `make compat` that `make test` runs: those whose packages are there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from setup_env import ROOT

from tests.compat.client import HERE
from tests.compat.runner import (
    SUPPORT,
    Case,
    command_of,
    environment_of,
    read_line,
    run_installer,
)
from tests.compat.table import all_clients
from tests.support.programs import NODE, NPM, needs
from tests.support.server import Server

pytestmark = pytest.mark.engine

# Answers are read at 500 tokens/s.
PACE = {"COMPAT_TPOT_MS": "2"}
# Calls inside the thoughts need a server of their own, and the loops of these packages are in
# tests/gateway. `make compat` runs them.
NO_LOOPS = "^(?!.*(inside the thoughts|a loop of three|two calls))"
SOME_OF_THE_AI_SDK = "three steps.*streamed|second turn|structured|conversation"


def cases_of(
    command: Sequence[str], environment: dict[str, str], folder: Path, only: str
) -> list[Case]:
    """Run a program to its end; its cases.

    :param only: a regular expression of the names of cases.
    """
    answer = subprocess.run(
        command,
        cwd=folder,
        env={**environment, **PACE, "COMPAT_CASES": only},
        capture_output=True,
        text=True,
        check=False,
    )
    read = [read_line(line) for line in answer.stdout.splitlines()]
    cases = [case for case in read if case is not None]
    failed = [str(case) for case in cases if case.outcome == "FAIL"]
    assert not failed, "\n".join([*failed, answer.stderr[-3000:]])
    assert (answer.returncode, bool(cases)) == (0, True), answer.stderr[-3000:]
    return cases


@pytest.mark.parametrize("program", ["openai_sdk.py", "anthropic_sdk.py"])
def test_the_clients_of_the_lock(server: Server, tmp_path: Path, program: str) -> None:
    command = [sys.executable, str(HERE / "python" / program), server.url]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    assert len(cases_of(command, environment, tmp_path, NO_LOOPS)) > 10


@needs(NODE)
@needs(NPM)
def test_the_ai_sdk(server: Server) -> None:
    """Installed once, where `make compat` installs it."""
    (client,) = [one for one in all_clients() if one.key == "ai-sdk"]
    home = ROOT / ".compat" / client.key
    home.mkdir(parents=True, exist_ok=True)
    with (home / "install.log").open("w", encoding="utf-8") as output:
        try:
            run_installer(client, home, output)
        except subprocess.SubprocessError as error:
            pytest.skip(f"npm cannot install {', '.join(client.packages)}: {error}")
    command = [*command_of(client, home), server.url, server.url]
    environment = environment_of(client, home)
    assert len(cases_of(command, environment, home, SOME_OF_THE_AI_SDK)) >= 8
