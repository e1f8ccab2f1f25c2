"""Installs the packages of a lock into `.venv`; does nothing if they are there already.

Decides on the Python, the extra (`cpu` or `gpu`), the lock and the package sources. It runs before
anything is installed: standard library only. Python 3.8 suffices to print that a newer one is
needed. It names no host: pip's configuration has the package sources, and uv has PyTorch's index.

Environment: ``PYTHON`` names the interpreter, ``PASCAL_EXTRA`` the extra.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import Interpreter, SetupError, check_machine, find_python, has_nvidia_gpu
from package_sources import (
    CPU_LOCK,
    CUDA_TORCH_LOCK,
    Attempt,
    PackageSources,
    read_pip_config,
    torch_attempts,
)

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".uv"  # the pinned uv, and the lock file that keeps two set-ups apart
STAMP = VENV / "pascal-setup.json"

UV_VERSION = "0.13.9"  # installed if no usable uv is on the PATH
UV_USABLE = ((0, 13), (1, 0))  # from the first, below the second
LOCKS = {"cpu": (CPU_LOCK, CUDA_TORCH_LOCK), "gpu": ("gpu",)}  # by extra
VENV_GIB = {CPU_LOCK: 3, CUDA_TORCH_LOCK: 6}  # measured: 2.9 and 5.9, with the bytecode
DISK_GIB = {CPU_LOCK: 4, CUDA_TORCH_LOCK: 8, "gpu": 14}  # .venv with its cache; gpu: 4 packed


def say(message: str) -> None:
    """One line of progress."""
    print(f"setup: {message}", file=sys.stderr, flush=True)


def choose_extra(wanted: str | None) -> str:
    """`cpu` or `gpu`. Raises SetupError for anything else."""
    if not wanted:
        return "gpu" if has_nvidia_gpu() else "cpu"
    if wanted not in LOCKS:
        raise SetupError(f"PASCAL_EXTRA={wanted} is unknown; it is one of: {', '.join(LOCKS)}")
    return wanted


def lock_file(lock: str) -> Path:
    """Path of the lock with this name."""
    return ROOT / "requirements" / f"{lock}.txt"


def locked_requirement(lock: str, package: str) -> str:
    """The `name==version` of `package` in the text of a lock. Raises SetupError if it has none."""
    for line in lock.splitlines():
        requirement = line.partition(";")[0].strip()
        if requirement.startswith(f"{package}=="):
            return requirement
    raise SetupError(f"the lock does not pin {package}; write it anew with `make lock`")


# --- the present environment ----------------------------------------------------------------------


def wanted_digest(extra: str, parts: Sequence[bytes]) -> str:
    """Identifies a finished `.venv`: any change of its inputs gives another one."""
    digest = hashlib.sha256(extra.encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def current_digest(extra: str) -> str:
    """The digest of this checkout. Its path counts, too: an editable install contains it."""
    files = [*map(lock_file, LOCKS[extra]), ROOT / "pyproject.toml"]
    inputs = [path.read_bytes() for path in files]
    return wanted_digest(extra, [*inputs, str(ROOT).encode()])


def read_stamp() -> dict[str, Any]:
    """The stamp of the last set-up, or an empty dict."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(state: str, digest: str, python: Interpreter, lock: str = "") -> None:
    """Replace the stamp atomically. `lock`: its name; empty until it is fully installed."""
    temporary = STAMP.with_suffix(".new")
    content = {"state": state, "digest": digest, "python": list(python.version), "lock": lock}
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(temporary, STAMP)


def is_ready(digest: str, wanted_python: str | None) -> bool:
    """Whether `.venv` is complete and matches the request."""
    stamp = read_stamp()
    if stamp.get("state") != "ready" or stamp.get("digest") != digest:
        return False
    if not os.access(VENV / "bin" / "python", os.X_OK):  # its base Python was removed
        return False
    return not wanted_python or stamp.get("python") == list(find_python(wanted_python).version)


# --- installation ---------------------------------------------------------------------------------


def run(
    command: Sequence[str],
    failure: str,
    env: Mapping[str, str] | None = None,
    keep_open: int | None = None,
    quiet: bool = False,
) -> str:
    """Run a command, its output shown (or, if `quiet`, returned). Raises SetupError if it fails."""
    result = subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else sys.stderr,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        # A child that outlives this process keeps the set-up lock until it is done.
        pass_fds=() if keep_open is None else (keep_open,),
    )
    if result.returncode != 0:
        raise SetupError(failure)
    return result.stdout or ""


def uv_version(uv: str) -> tuple[int, ...] | None:
    """The version of the uv at this path, or None if it does not run."""
    try:
        answer = subprocess.run([uv, "--version"], capture_output=True, text=True, timeout=60)
        return tuple(int(part) for part in answer.stdout.split()[1].split("."))
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def provide_uv(python: Interpreter, keep_open: int | None) -> str:
    """A usable uv: the one on the PATH, or the pinned one. Raises SetupError without either."""
    oldest, too_new = UV_USABLE
    on_path = shutil.which("uv")
    if on_path:
        version = uv_version(on_path)
        if version is not None and oldest <= version < too_new:
            return on_path
    home = TOOLS / "tool"
    own = home / "bin" / "uv"
    if uv_version(str(own)) == tuple(map(int, UV_VERSION.split("."))):
        return str(own)
    short = ".".join(map(str, python.version[:2]))
    venv_missing = (
        f"Python {python} has no venv module; install it "
        f"(Debian: apt install python3-venv, or python{short}-venv) or put uv on the PATH"
    )
    run([python.path, "-I", "-c", "import ensurepip, venv"], venv_missing, quiet=True)
    say(f"installing uv {UV_VERSION} into {TOOLS.name}/")
    run([python.path, "-I", "-m", "venv", "--clear", str(home)], venv_missing, keep_open=keep_open)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    run(
        [*pip, "--disable-pip-version-check", f"uv=={UV_VERSION}"],
        f"pip cannot install uv {UV_VERSION} (pip's message is above); "
        "check the network and pip's configuration",
        keep_open=keep_open,
    )
    return str(own)


def find_sources(python: Interpreter) -> PackageSources:
    """The package sources of the chosen Python's pip, or of the pip next to the pinned uv."""
    own = str(TOOLS / "tool" / "bin" / "python")
    return read_pip_config([python.path, own], os.environ)


def locate_torch(
    uv: str, sources: PackageSources, python: Interpreter, keep_open: int | None
) -> Attempt:
    """The first place that has torch for this Python. Raises SetupError if none has it."""
    torch = ""
    for attempt in torch_attempts(sources):
        torch = locked_requirement(lock_file(attempt.lock).read_text(encoding="utf-8"), "torch")
        say(f"looking for {torch} in {attempt.place}")
        probe = [uv, "pip", "install", "--dry-run", "--no-deps", "--python", str(VENV), torch]
        found = subprocess.run(
            [*probe, *attempt.options],
            env={**sources.env, **attempt.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=() if keep_open is None else (keep_open,),
        )
        if found.returncode == 0:
            return attempt
    raise SetupError(
        f"neither a CPU build of {torch} for Python {python} was found nor a CUDA build: reach the "
        "package index or PyTorch's CPU index, or put the wheel in a folder and name it in "
        "PIP_FIND_LINKS"
    )


def larger_torch_notice(lock: str, python: Interpreter) -> str:
    """The notice that the CUDA build of torch is used, and why. `lock`: the text of its lock."""
    torch, nixl = (locked_requirement(lock, name) for name in ("torch", "nixl-cu13"))
    return (
        f"no CPU build of torch for Python {python} was found. Taking the CUDA build {torch} with "
        f"{nixl}: it serves on the CPU too, and is larger ({VENV_GIB[CUDA_TORCH_LOCK]} GiB instead "
        f"of {VENV_GIB[CPU_LOCK]})"
    )


def choose_source(
    extra: str, uv: str, sources: PackageSources, python: Interpreter, keep_open: int | None
) -> Attempt:
    """Choose the lock to install, and its source. Raises SetupError if none is possible."""
    if extra == "gpu":
        return Attempt("the package index", "gpu", sources.options_without_cpu_torch())
    source = locate_torch(uv, sources, python, keep_open)
    if source.lock == CUDA_TORCH_LOCK:
        lock = lock_file(CUDA_TORCH_LOCK).read_text(encoding="utf-8")
        say(larger_torch_notice(lock, python))
    return source


def install(extra: str, digest: str, python: Interpreter, keep_open: int | None) -> None:
    """Install the lock into `.venv`; after a SetupError the next call starts again."""
    uv = provide_uv(python, keep_open)
    sources = find_sources(python)
    cache = run([uv, "cache", "dir"], "uv does not name its cache", quiet=True).strip()
    places = (ROOT, Path(cache))
    stamp = read_stamp()
    # Only a complete environment is changed in place: an interrupted installation may have left
    # packages that look complete.
    if stamp.get("state") != "ready" or stamp.get("python") != list(python.version):
        stamp = {}
        check_machine(places, DISK_GIB[LOCKS[extra][0]])
        say(f"making {VENV.name} with Python {python} for the extra `{extra}`")
        create = [uv, "venv", "--quiet", "--clear", "--no-project", "--python", python.path]
        run([*create, str(VENV)], "uv cannot make .venv (its message is above)", sources.env)
    write_stamp("unfinished", digest, python)
    source = choose_source(extra, uv, sources, python, keep_open)
    if stamp.get("lock", LOCKS[extra][0]) != source.lock:
        check_machine(places, DISK_GIB[source.lock])
    say("installing the locked packages; the first time this takes minutes")
    broken = "uv cannot install the packages (its message is above); the next call tries again"
    pip = [uv, "pip"]
    at = ["--python", str(VENV)]
    env = {**sources.env, **source.env}
    # Compiled now: torch and vLLM take half a minute of processor time to compile, which every
    # worker would otherwise spend at its first start (at each, where bytecode is not written).
    sync = [*pip, "sync", "--compile-bytecode", *at, *source.options, str(lock_file(source.lock))]
    run(sync, broken, env, keep_open)
    project = ["install", "--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    run([*pip, *project, *at], broken, env, keep_open)
    write_stamp("ready", digest, python, source.lock)
    say("done")


@contextlib.contextmanager
def exclusive() -> Iterator[int]:
    """Let one set-up at a time into this checkout; yields the file descriptor that holds it."""
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this folder")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def exit_on_signal(number: int, _frame: object) -> NoReturn:
    """Exit with an exception, so that a running child is ended, too."""
    raise SystemExit(128 + number)


def main() -> int:
    """Set up, and return the exit status."""
    signal.signal(signal.SIGTERM, exit_on_signal)
    wanted = os.environ.get("PYTHON") or None
    try:
        extra = choose_extra(os.environ.get("PASCAL_EXTRA"))
        digest = current_digest(extra)
        if is_ready(digest, wanted):
            return 0
        with exclusive() as held:
            if not is_ready(digest, wanted):  # another set-up may just have done it
                install(extra, digest, find_python(wanted), held)
    except SetupError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"cannot write the installation: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next call starts the installation again")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
