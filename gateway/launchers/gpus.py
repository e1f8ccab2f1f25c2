"""Decides which GPUs each worker of this machine gets, and counts them.

Workers share the GPUs in an inherited ``CUDA_VISIBLE_DEVICES``, as set by Slurm, Kubernetes or a
user. Its entries may be indices, UUIDs or MIG instances. Without the variable, workers share all
GPUs, by index. Nothing here imports torch, which would cost the gateway seconds and memory.
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
    """Return the GPUs that the environment names; None: it does not restrict them.

    As for CUDA, the list ends before the first entry that is negative or empty.
    """
    text = environment.get(VARIABLE)
    if text is None:
        return None
    devices: list[str] = []
    for entry in text.split(","):
        device = entry.strip()
        if not device or device.startswith("-") or device == "NoDevFiles":  # how Slurm writes none
            break
        devices.append(device)
    return tuple(devices)


def of_worker(environment: Mapping[str, str], index: int, size: int) -> str:
    """Return the value of the variable for worker ``index`` with ``size`` GPUs.

    :raises ValueError: the environment names too few GPUs.
    """
    first = index * size
    devices = inherited(environment)
    if devices is None:
        return ",".join(map(str, range(first, first + size)))
    if len(devices) < first + size:
        raise ValueError(f"{VARIABLE} has {len(devices)} GPUs, worker {index} needs {size} more")
    return ",".join(devices[first : first + size])


def count(environment: Mapping[str, str] = os.environ) -> int | None:
    """Count the GPUs that workers can share; None: unknown."""
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
        return None  # a divided GPU: only the environment can name its parts
    return sum(line.startswith("GPU ") for line in lines)
