"""Writes requirements/*.txt, the locks, from pyproject.toml: `make lock`.

A lock pins every package by exact version for Linux, Python 3.11 to 3.13, x86_64 and aarch64. It is
resolved for the oldest Python on x86_64 and then widened below: a resolution for all platforms at
once takes a package's dependencies from one of its files, which drops what only another file asks
for. It names no host and no path, so the same lock serves a mirror, a folder of wheels and the
public index. It carries no hashes: the CPU build of torch may be another file in each of those
places, and a lock with hashes must have them for every package.
"""

from __future__ import annotations

import subprocess
import sys

from machine import SUPPORTED, Interpreter, SetupError
from package_sources import Attempt, PackageSources, torch_attempts
from setup_env import (
    EXTRAS,
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
OVERRIDES = ROOT / "requirements" / "overrides.txt"
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
WIDER = ROOT / "requirements" / "wider.in"
X86_ONLY = ("intel-cmplr-lib-ur", "intel-openmp")  # cpu: nothing asks for them elsewhere


def widen(extra: str, resolved: str) -> str:
    """The lock: `resolved` with a header, and markers where a package is for x86_64 alone."""
    lines = []
    for line in resolved.splitlines():
        name = line.partition("==")[0]
        marker = ' ; platform_machine == "x86_64"' if extra == "cpu" and name in X86_ONLY else ""
        lines.append(line + marker + "\n")
    return HEADER.format(extra=extra) + "".join(lines)


def resolve(extra: str, uv: str, sources: PackageSources) -> str:
    """Ask uv for the newest versions that fit together. Raises SetupError if there are none."""
    oldest = ".".join(map(str, SUPPORTED[0]))
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--upgrade"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--python-version", oldest]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--extra", extra, "--extra", "dev"]
    command += ["pyproject.toml", str(WIDER), "--constraint", str(CONSTRAINTS)]
    if extra == "cpu":
        command += [*sources.options, "--override", str(OVERRIDES)]
        attempts = torch_attempts(sources)
    else:
        command += sources.options_without_cpu_torch()
        attempts = [Attempt("the package index")]
    for attempt in attempts:
        say(f"resolving the extra `{extra}` with {attempt.place}")
        result = subprocess.run(
            [*command, *attempt.options],
            cwd=ROOT,
            env={**sources.env, **attempt.env},
            stdout=subprocess.PIPE,
            text=True,
        )
        if result.returncode == 0:
            return widen(extra, result.stdout)
    raise SetupError(f"uv cannot resolve the extra `{extra}` (its messages are above)")


def main() -> int:
    """Write every lock, and return the exit status."""
    version = sys.version_info
    python = Interpreter(sys.executable, (version.major, version.minor, version.micro))
    try:
        uv = provide_uv(python, None)
        sources = find_sources(python)
        locks = {extra: resolve(extra, uv, sources) for extra in EXTRAS}
    except SetupError as error:
        say(str(error))
        return 1
    for extra, text in locks.items():
        lock_file(extra).write_text(text, encoding="utf-8")
        say(f"wrote {lock_file(extra).relative_to(ROOT)}; `make setup` installs it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
