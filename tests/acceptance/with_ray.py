"""``python -m tests.acceptance.with_ray``: `tests.support.ray_cluster`, with ray apart from .venv.

`.venv` stays as the lock says. A package that both ray and the lock need has the version of the
lock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from machine import Interpreter
from setup_env import ROOT, find_sources, lock_file, provide_uv, read_stamp

FOLDER = ROOT / ".acceptance" / "with-ray"


def install() -> None:
    """Put ray into its folder. Raises CalledProcessError if uv cannot."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = sys.version_info
    python = Interpreter(sys.executable, (version.major, version.minor, version.micro))
    sources = find_sources(python)
    command = [provide_uv(python, None), "pip", "install", "--python", sys.executable]
    command += ["--target", str(FOLDER), "--constraint", str(lock_file(read_stamp()["lock"]))]
    command += [*sources.options, *project["project"]["optional-dependencies"]["ray"]]
    subprocess.run(command, env=sources.env, check=True)


def main() -> int:
    """Install, run, and return the exit status."""
    install()
    paths = [str(FOLDER), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-m", "tests.support.ray_cluster"]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
