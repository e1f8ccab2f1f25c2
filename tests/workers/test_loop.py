"""The choice of the event loop if uvloop is present, missing, broken or of another version."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.workers.support.harness import ROOT
from workers import loop


async def loops_module() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_uvloop_runs_it() -> None:
    with capture_logs() as said:
        assert loop.run(loops_module()) == "uvloop"
    assert said == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('no module named uvloop')", "ImportError: no module"),
        ("raise SystemError('built for another Python')", "SystemError: built"),
        ("__version__ = '0.17'", "AttributeError: module 'uvloop' has no attribute 'run'"),
    ],
)
def test_without_it_asyncio_does_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    (tmp_path / "uvloop.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "uvloop", raising=False)
    with capture_logs() as said:
        assert loop.run(loops_module()).startswith("asyncio")
    sys.modules.pop("uvloop", None)  # the one of this test; the real one comes back
    (line,) = said
    assert line["event"] == "uvloop_unavailable"
    assert line["reason"].startswith(reason)


def test_the_command_line_starts_without_it(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError('built for another Python')")
    elsewhere = ("--set=launcher.kind=static", "--set=launcher.addresses=unix:/tmp/none.sock")
    found = subprocess.run(
        # vLLM needs it, so the engines are on other machines.
        [sys.executable, "-m", "pascal", "check", *elsewhere],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "[server]" in found.stdout
