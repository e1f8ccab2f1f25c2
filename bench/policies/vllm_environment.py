"""The environment of a process that runs an engine on one core."""

from __future__ import annotations

import os


def one_threaded() -> dict[str, str]:
    """The environment of this process, with one OpenMP thread.

    To be given at the start: where this process has used vLLM, the new one begins by loading OpenMP
    (``LD_PRELOAD``), which looks only then. Two threads on one core wait for each other by spinning
    and make a step ten times as long.
    """
    return {**os.environ, "OMP_NUM_THREADS": "1"}
