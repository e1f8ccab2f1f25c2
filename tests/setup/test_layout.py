"""The tree keeps its form: small folders. The contracts of `make lint` hold the imports."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import PurePosixPath

from setup_env import ROOT

_MOST_MODULES = 15


def test_no_folder_holds_more_than_fifteen_modules() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    count = Counter(str(PurePosixPath(name).parent) for name in tracked)
    count -= Counter(str(PurePosixPath(n).parent) for n in tracked if n.endswith("__init__.py"))
    assert {folder: n for folder, n in count.items() if n > _MOST_MODULES} == {}
