"""Which GPUs each worker of this machine gets, and how many there are.

An inherited ``CUDA_VISIBLE_DEVICES`` is the list to deal from, as Slurm, Kubernetes and people who
share a machine set it; its entries may be indices, UUIDs or MIG instances. Without it all GPUs are
there, by index. Nothing here imports torch: that costs seconds and memory in the gateway.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "CUDA_VISIBLE_DEVICES"
_PROC = Path("/proc/driver/nvidia/gpus")
_LIST_S = 20.0  # for nvidia-smi, which may have to wake the driver


def inherited(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """The GPUs that the environment names; None: it names none, so all are there.

    As CUDA reads it: the list ends before the first entry that is negative or empty.
    """
    text = environment.get(VARIABLE)
    if text is None:
        return None
    devices: list[str] = []
    for entry in text.split(","):
        device = entry.strip()
        if not device or device.startswith("-") or device == "NoDevFiles":  # Slurm's word for none
            break
        devices.append(device)
    return tuple(devices)


def of_worker(environment: Mapping[str, str], index: int, size: int) -> str:
    """The value of the variable for worker ``index`` whose engine has ``size`` GPUs.

    :raises ValueError: the environment names too few.
    """
    first = index * size
    devices = inherited(environment)
    if devices is None:
        return ",".join(map(str, range(first, first + size)))
    if len(devices) < first + size:
        raise ValueError(f"{VARIABLE} has {len(devices)} GPUs, worker {index} needs {size} more")
    return ",".join(devices[first : first + size])


def count(environment: Mapping[str, str] = os.environ) -> int | None:
    """How many GPUs there are to deal; None: unknown."""
    devices = inherited(environment)
    if devices is not None:
        return len(devices)
    if (command := shutil.which("nvidia-smi")) is not None:
        return _count_listed(command)
    try:
        return len(list(_PROC.iterdir())) or None
    except OSError:
        return None


def _count_listed(command: str) -> int | None:
    try:
        listed = subprocess.run(
            [command, "-L"], capture_output=True, text=True, timeout=_LIST_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line.strip() for line in listed.stdout.splitlines()]
    if any(line.startswith("MIG") for line in lines):
        return None  # a GPU that is divided: its parts can only be named in the environment
    return sum(line.startswith("GPU ") for line in lines)
