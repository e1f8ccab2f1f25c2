"""The servers that clients talk to: each is started when the first client needs it."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.compat.client import HERE
from tests.compat.client import Server as Kind
from tests.support.models import CALLS_IN_THOUGHTS, renamed
from tests.support.server import Server

# An answer is read at 100 tokens/s, so that nobody waits for it.
FAST: Final = ("--set=pacing.tpot_s=0.01",)
EMULATED: Final = ("--emulate", "h100-qwen32b")
# Few requests at one time, so that a program can take all places (`support/agents.mjs`).
AGENTS: Final = (
    "--emulate", str(HERE / "emulated.toml"), "--max-model-len", "200000",
    "--set=limits.max_requests=6",
)  # fmt: skip


class Servers:
    """Running servers by their kind; ``with`` ends them all."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[Kind, Server] = {}

    def __enter__(self) -> Servers:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, kind: Kind) -> str:
        """The address of a server that serves. Raises AssertionError if it does not start."""
        running = self._running.get(kind)
        if running is None or running.process.poll() is not None:
            state = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self._folder))
            workers = 2 if kind == "agents" else 1
            running = Server(state, workers=workers, extra=(*FAST, *self._options(kind)))
            self._running[kind] = self._stack.enter_context(running)
        return running.url

    def log(self, kind: Kind) -> str:
        """What this server printed; empty if it was never started."""
        running = self._running.get(kind)
        return running.output() if running else ""

    def _options(self, kind: Kind) -> tuple[str, ...]:
        if kind == "emulated":
            return EMULATED
        if kind == "agents":
            return AGENTS
        if kind == "inside":
            model = self._folder / "inside" / "tiny-reasoner"
            if not model.exists():
                model.parent.mkdir()
                renamed(model, CALLS_IN_THOUGHTS)
            return (f"--model={model}",)
        return ()
