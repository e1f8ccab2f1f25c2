"""A command imports what it needs when it runs, and nothing for other commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ROOT, Server

HEAVY = {"matplotlib", "numpy", "torch", "transformers", "vllm"}
ASKS_EVERY_COMMAND_FOR_HELP = """
import contextlib, io, sys
from pascal.main import main
for command in ("", "drain", "undrain", "serve", "check", "worker", "load", "simulate", "bench"):
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    assert shown.getvalue().startswith(f"usage: pascal {command}".rstrip()), command
    print(command, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_help_of_a_command_loads_neither_plots_nor_an_engine() -> None:
    loaded = {
        command: set(modules)
        for command, *modules in (
            line.split(" ") for line in _printed(ASKS_EVERY_COMMAND_FOR_HELP).splitlines()
        )
    }
    assert len(loaded) == 9
    assert {"argparse", "pascal"} <= loaded["drain"]
    assert {command: modules & HEAVY for command, modules in loaded.items()} == {
        command: set() for command in loaded
    }


def test_drain_needs_nothing_of_the_gateway_and_no_event_loop() -> None:
    loaded = _printed("import sys, pascal.drain, pascal.undrain; print(*sys.modules)").split()
    assert "pascal.admin" in loaded
    assert {"gateway", "workers", "bench", "asyncio"}.isdisjoint(loaded)


@pytest.mark.engine
def test_a_gateway_that_serves_has_loaded_neither_plots_nor_an_engine(server: Server) -> None:
    """A process that imports one of these packages maps its extension modules."""
    assert _packages_of(server.process.pid).isdisjoint(HEAVY)
    assert {"torch", "numpy"} <= _packages_of(server.worker_pids()[0])


def _packages_of(pid: int) -> set[str]:
    """Packages whose extension modules are mapped; an inherited LD_PRELOAD maps other libraries."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    return set(re.findall(r"/site-packages/(\w+)/\S*\.(?:cpython-|abi3)", maps))


def _printed(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
