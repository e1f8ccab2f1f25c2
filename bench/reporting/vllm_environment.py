"""Environment variables of processes that import vLLM. Must not import it."""

from __future__ import annotations

import os

_DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TORCH_LOGS": "-torch._library.triton",  # a warning that there is no GPU
    # Otherwise vLLM draws the seed of its block hashes. No result depends on it.
    "PYTHONHASHSEED": "0",
}


def prepare_environment() -> None:
    """Set what is unset: few messages, one OpenMP thread, no network.

    To be called before vLLM is imported. Child processes inherit the variables.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def one_threaded() -> dict[str, str]:
    """The environment of a new process that runs an engine on one core: one OpenMP thread.

    It must be given when the process starts. If this process has used vLLM, the new one begins by
    loading OpenMP (``LD_PRELOAD``), and OpenMP reads the variable only then. Two threads on one
    core wait for each other by spinning, which makes a step ten times as long.
    """
    return {**os.environ, "OMP_NUM_THREADS": "1"}
