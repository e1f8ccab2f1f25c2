"""``python -m tests.acceptance.with_clients NAME``: agents of other libraries, on a real server.

Installs the client apart from .venv, starts ``pascal serve`` with the embedded model, and once more
with one whose calls open inside its thoughts. Then runs the client's program of
`tests/acceptance/clients` against both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from tests.support.models import CALLS_IN_THOUGHTS, renamed
from tests.support.packages import install, install_npm, of_extra
from tests.support.programs import find_node
from tests.support.server import ROOT, Server

CLIENTS = Path(__file__).resolve().parent / "clients"
# The newest that run on the oldest Node.js that the project takes.
AI_SDK = ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/openai-compatible@2.0.92")

FAST = ("--set=pacing.tpot_s=0.01",)


def ai_sdk(folder: Path, urls: tuple[str, str]) -> int:
    """The AI SDK; :return: the exit status of its program."""
    install_npm(folder, AI_SDK)
    # Node.js looks for packages above the program's own folder.
    program = shutil.copy(CLIENTS / "ai_sdk.mjs", folder)
    node = find_node()
    assert node is not None
    return subprocess.run([node, program, *urls], check=False).returncode


def langchain(folder: Path, urls: tuple[str, str]) -> int:
    """LangChain's agent; :return: the exit status of its program."""
    install(folder, of_extra("langchain"))
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-m", "tests.acceptance.clients.langchain_agent", *urls]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


RUN = {"ai-sdk": ai_sdk, "langchain": langchain}


def main() -> int:
    """Install, serve, run; the exit status of the client's program."""
    parser = argparse.ArgumentParser(description="Tool loops of other libraries.")
    parser.add_argument("name", choices=sorted(RUN), help="the client")
    name: str = parser.parse_args().name
    folder = ROOT / ".acceptance" / f"with-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        states = Path(temporary, "a"), Path(temporary, "b")
        for state in states:
            state.mkdir()
        inside = renamed(Path(temporary, "tiny-reasoner"), CALLS_IN_THOUGHTS)
        with (
            Server(states[0], workers=1, extra=FAST) as server,
            Server(states[1], workers=1, extra=(*FAST, f"--model={inside}")) as other,
        ):
            return RUN[name](folder, (server.url, other.url))


if __name__ == "__main__":
    sys.exit(main())
