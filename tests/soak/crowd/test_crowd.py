"""A small crowd; the large one is ``python -m tests.soak.crowd --readers 1000``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ROOT


@pytest.mark.long
@pytest.mark.slow
def test_healthy_readers_do_not_suffer_from_the_readers_beside_them(tmp_path: Path) -> None:
    results = tmp_path / "crowd.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.soak.crowd",
            "--readers=20",
            "--seconds=3",
            f"--json={results}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    document = json.loads(results.read_text(encoding="utf-8"))
    assert document["readers"]["healthy"]["responses"] >= 15
    assert document["stalled"]["disconnected"] >= 1
    assert document["stopped"]["after_s"]
