"""A short soak; the long one is ``python -m tests.soak --minutes 60``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ROOT


@pytest.mark.long
@pytest.mark.engine
@pytest.mark.slow
def test_readers_of_every_kind_get_what_was_promised_and_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    results = tmp_path / "soak.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.soak",
            "--minutes=0.2",
            "--readers=40",
            "--kill-every=0",
            "--allow-missing",
            "--no-slopes",  # no series is steady after seconds
            f"--json={results}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    document = json.loads(results.read_text(encoding="utf-8"))
    assert len(document["tally"]["readers"]) >= 15  # kinds
    assert document["tally"]["responses"]["completed"] > 10
