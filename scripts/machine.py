"""The Python, GPU, memory and disk space of this machine.

Decides whether they suffice, and says in one line what is missing. It runs before anything is
installed: standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUPPORTED = ((3, 11), (3, 12), (3, 13))  # requires-python of pyproject.toml
MEMORY_GIB = 1  # measured: an installation needs less than half of it


class SetupError(Exception):
    """Set-up cannot go on. The message is one line: the reason and the remedy."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can be run."""

    path: str
    version: tuple[int, int, int]

    @property
    def supported(self) -> bool:
        """Whether the project supports its version."""
        return self.version[:2] in SUPPORTED

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.version))} ({self.path})"


def probe_interpreter(command: str) -> Interpreter | None:
    """The Python behind `command`, or None if it does not run, like a shim without a target."""
    # In a virtual environment, the Python that it was made from: .venv itself may be replaced.
    code = (
        "import json, sys; base = getattr(sys, '_base_executable', None) or sys.executable; "
        "print(json.dumps([base, sys.version_info[:3]]))"
    )
    try:
        answer = subprocess.run(
            [command, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
        path, version = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Interpreter(path, (version[0], version[1], version[2]))


def supported_text() -> str:
    """The supported versions as prose."""
    names = [f"{major}.{minor}" for major, minor in SUPPORTED]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def choose_python(wanted: str | None, found: Mapping[str, Interpreter | None]) -> Interpreter:
    """The Python to build `.venv` with: `wanted` if given, else the first supported in `found`.

    Raises SetupError if none is supported.
    """
    if wanted:
        interpreter = found.get(wanted)
        if interpreter is None:
            raise SetupError(f"PYTHON={wanted} does not run; name Python {supported_text()}")
        if not interpreter.supported:
            raise SetupError(
                f"PYTHON={wanted} is Python {interpreter}; {supported_text()} is needed"
            )
        return interpreter
    for interpreter in found.values():
        if interpreter is not None and interpreter.supported:
            return interpreter
    others = sorted({str(interpreter) for interpreter in found.values() if interpreter is not None})
    raise SetupError(
        f"Python {supported_text()} is needed, found {', '.join(others) or 'none'}; "
        "install one or name it: PYTHON=/path/to/python3.11"
    )


def find_python(wanted: str | None) -> Interpreter:
    """Choose a Python on the PATH. Raises SetupError if none is supported."""
    names = [wanted] if wanted else ["python3", *(f"python{a}.{b}" for a, b in SUPPORTED)]
    return choose_python(wanted, {name: probe_interpreter(name) for name in names})


def has_nvidia_gpu() -> bool:
    """Whether the driver shows a GPU."""
    proc = Path("/proc/driver/nvidia/gpus")
    if proc.is_dir() and any(proc.iterdir()):
        return True
    command = shutil.which("nvidia-smi")  # where the driver is the host's there is no /proc entry
    if command is None:
        return False
    try:
        listing = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return listing.returncode == 0 and "GPU " in listing.stdout


def available_memory_gib(meminfo: str, limit_bytes: str, used_bytes: str) -> float:
    """Available memory in GiB: the kernel's figure, or what a cgroup still allows if that is less.

    The arguments are the texts of ``/proc/meminfo`` and of the cgroup's ``memory.max`` and
    ``memory.current`` (empty without a cgroup).
    """
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    available = int(fields["MemAvailable"].split()[0]) / 2**20
    if limit_bytes.strip().isdigit() and used_bytes.strip().isdigit():
        available = min(available, (int(limit_bytes) - int(used_bytes)) / 2**30)
    return available


def read_text(path: str) -> str:
    """The text of the file; empty if it does not exist."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def check_machine(places: Sequence[Path], disk_gib: float) -> None:
    """Raises SetupError unless this machine can install: memory, and `disk_gib` free everywhere."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise SetupError(
            f"the locks are for Linux on x86_64 or aarch64, this is {sys.platform} "
            f"on {platform.machine()}"
        )
    group = "/sys/fs/cgroup/memory"
    memory = available_memory_gib(
        read_text("/proc/meminfo"), read_text(f"{group}.max"), read_text(f"{group}.current")
    )
    if memory < MEMORY_GIB:
        raise SetupError(f"too little memory: {memory:.1f} GiB available, {MEMORY_GIB} needed")
    for place in places:
        there = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(there).free / 2**30
        if free < disk_gib:
            raise SetupError(
                f"too little disk space: {free:.1f} GiB free in {there}, {disk_gib} needed"
            )
