"""Writes requirements/*.txt, the locks, from pyproject.toml: `make lock`.

A lock pins every package by exact version for Linux, Python 3.11 to 3.13, x86_64 and aarch64. It is
resolved for the oldest Python on x86_64 and then widened below. (A resolution for all platforms at
once reads the dependencies of only one file per package, and misses those of the other files.)

A lock names no host and no path, so it works with a mirror, a folder of wheels and the public
index. It has no hashes, because the CPU build of torch may be a different file in each of them, and
a lock with hashes needs one for every package.

The extra `cpu` has two locks. The second is for machines that find no CPU build of torch. It has
the CUDA build of the same version and its CUDA libraries; all other versions are the same.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from machine import SUPPORTED, Interpreter, SetupError
from package_sources import (
    CPU_LOCK,
    CUDA_TORCH_LOCK,
    Attempt,
    PackageSources,
    torch_attempts,
)
from setup_env import (
    LOCKS,
    ROOT,
    find_sources,
    lock_file,
    provide_uv,
    say,
)

HEADER = """\
# Pinned for the extra `{extra}`; written by `make lock` from pyproject.toml, not by hand.
# One lock for Linux on x86_64 and aarch64, Python 3.11 to 3.13.
"""
CUDA_TORCH_HEADER = "# For machines that find no CPU build of torch: with the CUDA build.\n"
REQUIREMENTS = ROOT / "requirements"
CONSTRAINTS = REQUIREMENTS / "constraints.txt"
WIDER = REQUIREMENTS / "wider.in"
OVERRIDES = {  # by lock
    CPU_LOCK: ("overrides.txt", "overrides-cpu.txt"),
    CUDA_TORCH_LOCK: ("overrides.txt", "overrides-cpu-cuda-torch.txt"),
    "gpu": (),
}
X86_ONLY = ("intel-cmplr-lib-ur", "intel-openmp")  # cpu: needed on x86_64 alone
OWN_NIXL = ("nixl-cu12", "nixl-cu13")  # each lock of `cpu` has its own


def widen(lock: str, resolved: str) -> str:
    """`resolved` with a header, and with markers for packages that exist for x86_64 alone."""
    extra = next(extra for extra, locks in LOCKS.items() if lock in locks)
    lines = [HEADER.format(extra=extra)]
    if lock == CUDA_TORCH_LOCK:
        lines.append(CUDA_TORCH_HEADER)
    for line in resolved.splitlines():
        name = line.partition("==")[0]
        marker = ' ; platform_machine == "x86_64"' if extra == "cpu" and name in X86_ONLY else ""
        lines.append(line + marker + "\n")
    return "".join(lines)


def same_versions(cpu_lock: str) -> str:
    """The versions of the first lock of `cpu`, as constraints for the second."""
    kept = []
    for line in cpu_lock.splitlines():
        requirement = line.partition(";")[0].strip()
        if requirement.partition("==")[0] not in OWN_NIXL and not requirement.startswith("#"):
            kept.append(requirement.partition("+")[0] + "\n")  # torch: without `+cpu`
    return "".join(kept)


def resolve(lock: str, uv: str, sources: PackageSources, constraints: str = "") -> str:
    """Ask uv for the newest versions that fit together and fit `constraints`.

    Raises SetupError if no versions fit.
    """
    extra = next(extra for extra, locks in LOCKS.items() if lock in locks)
    oldest = ".".join(map(str, SUPPORTED[0]))
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--upgrade"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--python-version", oldest]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--extra", extra]
    command += ["--extra", "bench", "--extra", "dev"]
    command += ["pyproject.toml", str(WIDER), "--constraint", str(CONSTRAINTS)]
    for name in OVERRIDES[lock]:
        command += ["--override", str(REQUIREMENTS / name)]
    attempts = [attempt for attempt in torch_attempts(sources) if attempt.lock == lock]
    if extra == "gpu":
        attempts = [Attempt("the package index", lock, sources.options_without_cpu_torch())]
    with tempfile.TemporaryDirectory() as folder:
        more = Path(folder, "constraints.txt")
        more.write_text(constraints, encoding="utf-8")
        for attempt in attempts:
            say(f"resolving the lock `{lock}` with {attempt.place}")
            result = subprocess.run(
                [*command, "--constraint", str(more), *attempt.options],
                cwd=ROOT,
                env={**sources.env, **attempt.env},
                stdout=subprocess.PIPE,
                text=True,
            )
            if result.returncode == 0:
                return widen(lock, result.stdout)
    raise SetupError(f"uv cannot resolve the lock `{lock}` (its messages are above)")


def main() -> int:
    """Write every lock, and return the exit status."""
    version = sys.version_info
    python = Interpreter(sys.executable, (version.major, version.minor, version.micro))
    try:
        uv = provide_uv(python, None)
        sources = find_sources(python)
        texts = {name: resolve(name, uv, sources) for name in (CPU_LOCK, "gpu")}
        same = same_versions(texts[CPU_LOCK])
        texts[CUDA_TORCH_LOCK] = resolve(CUDA_TORCH_LOCK, uv, sources, same)
    except SetupError as error:
        say(str(error))
        return 1
    for name, text in texts.items():
        lock_file(name).write_text(text, encoding="utf-8")
        say(f"wrote {lock_file(name).relative_to(ROOT)}; `make setup` installs it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
