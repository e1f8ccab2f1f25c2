"""The logic of the page, tested without a browser by `node --test`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.programs import NODE, find_node, needs

HERE = Path(__file__).parent


@needs(NODE)
@pytest.mark.parametrize("script", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_script(script: Path) -> None:
    path = find_node()
    assert path is not None
    result = subprocess.run([path, "--test", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "\n# fail 0\n" in result.stdout
    assert "\n# pass 0\n" not in result.stdout
