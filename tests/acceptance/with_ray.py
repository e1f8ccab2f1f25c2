"""``python -m tests.acceptance.with_ray``: `tests.support.ray_cluster`, ray apart from .venv."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from setup_env import ROOT

from tests.support.packages import install, of_extra

FOLDER = ROOT / ".acceptance" / "with-ray"


def main() -> int:
    """Install, run, and return the exit status."""
    install(FOLDER, of_extra("ray"))
    paths = [str(FOLDER), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-m", "tests.support.ray_cluster"]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
