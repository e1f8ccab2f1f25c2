"""The page's logic, tested where it can run without a browser: `node --test`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OLDEST_NODE = 20


def node() -> str | None:
    """Path of a node that can run the tests, or None."""
    path = shutil.which("node")
    if path is None:
        return None
    answer = subprocess.run([path, "--version"], check=True, capture_output=True, text=True)
    return path if int(answer.stdout.lstrip("v").partition(".")[0]) >= OLDEST_NODE else None


@pytest.mark.skipif(node() is None, reason=f"no node >= {OLDEST_NODE} on the PATH")
@pytest.mark.parametrize("script", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_script(script: Path) -> None:
    path = node()
    assert path is not None
    result = subprocess.run([path, "--test", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "\n# fail 0\n" in result.stdout
    assert "\n# pass 0\n" not in result.stdout
