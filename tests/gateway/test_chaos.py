"""Workers are killed, stopped, cut off and slowed down under real readers: nobody loses a token.

This is the short run; the long one: ``python -m tests.chaos --faults 30 --requests 200``.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.server import ROOT


@pytest.mark.engine
@pytest.mark.slow
def test_every_reader_gets_the_undisturbed_text_and_nothing_is_left_behind() -> None:
    asked = ["--faults=5", "--requests=25", "--questions=6"]
    arguments = [*asked, "--heartbeat-timeout=3", "--stop=6"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert (found["done"], sum(found["faults"].values())) == (25, 5)
    assert (found["leaked_blocks"], found["orphans"]) == (0, 0)
    assert found["failovers"] > 0  # else the faults hit nobody
    assert done.returncode == 0
