"""Installs clients, runs their programs against servers, and reads the lines that they print."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Literal, Protocol, TypeAlias

from tests.acceptance.runner import last_line
from tests.compat.client import HERE, Client, name_of
from tests.compat.client import Server as Kind
from tests.support.packages import install_npm, install_venv
from tests.support.processes import end
from tests.support.programs import find_node

SUPPORT: Final = HERE / "support"
_LINE: Final = re.compile(r"(ok|FAIL|skip) ([^:\[\]]+?)(?: \[([^\]]*)\])?(?:: (.*))?")

# "absent": a program of this machine is missing, so that nothing is known about the client.
Outcome: TypeAlias = Literal["ok", "FAIL", "absent"]


class Urls(Protocol):
    """What has the addresses of servers."""

    def url(self, kind: Kind) -> str: ...


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a program."""

    outcome: str  # ok, FAIL or skip
    name: str
    elsewhere: str  # where it fails or failed; empty: not known to fail
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """How a client fared."""

    client: Client
    outcome: Outcome
    versions: str = ""  # as installed
    cases: tuple[Case, ...] = ()
    reason: str = ""  # why it failed as a whole, or could not be tried

    def __str__(self) -> str:
        text = f"{self.outcome:6} {self.client.key:20} {counts(self.cases)}"
        return f"{text}  {self.reason}" if self.reason else text


def counts(cases: Sequence[Case]) -> str:
    """How many cases ended how."""
    kinds = (("ok", "ok"), ("FAIL", "failed"), ("skip", "skipped"))
    found = [(sum(case.outcome == kind for case in cases), word) for kind, word in kinds]
    return ", ".join(f"{number} {word}" for number, word in found if number) or "no case"


def read_line(line: str) -> Case | None:
    """The case of a line; None if the line is something else."""
    found = _LINE.fullmatch(line.rstrip())
    return Case(found[1], found[2], found[3] or "", found[4] or "") if found else None


@dataclass(slots=True)
class Runner:
    """Where clients are installed, and what happens to their results."""

    folder: Path
    servers: Urls
    out: IO[str] = field(default_factory=lambda: sys.stdout)
    grace_s: float = 10.0  # from the end of a program's time to SIGKILL
    done: Callable[[Result], None] = lambda result: None
    results: list[Result] = field(default_factory=list)

    def run(self, clients: Sequence[Client]) -> int:
        """Run them all. 0: each of them works, 1: one failed or could not be tried, 130: Ctrl-C."""
        for client in clients:
            try:
                result = self._run(client)
            except KeyboardInterrupt:
                self._say(f"interrupted in {client.key}")
                return 130
            self.results.append(result)
            self._say(str(result))
            self.done(result)
        return 0 if all(result.outcome == "ok" for result in self.results) else 1

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def _run(self, client: Client) -> Result:
        for program in client.programs:
            if not program.is_there():
                return Result(client, "absent", reason=program.missing)
        home = self.folder / client.key
        home.mkdir(parents=True, exist_ok=True)
        log = home / "client.log"
        self._say(f"...    {client.key}: installing {', '.join(client.packages) or 'nothing'}")
        with log.open("w", encoding="utf-8") as output:
            try:
                run_installer(client, home, output)
            except (subprocess.SubprocessError, OSError) as error:
                output.write(f"\n{error}\n")
                output.flush()
                why = _why_not_installed(log)
                return Result(client, "FAIL", reason=f"it cannot be installed: {why}")
        versions = installed(client, home)
        try:
            urls = [self.servers.url(kind) for kind in client.servers]
        except AssertionError as error:
            last = str(error).strip().splitlines()[-1]
            return Result(client, "FAIL", versions, reason=f"its server does not start: {last}")
        self._say(f"...    {client.key}: {versions}")
        cases, reason = self._program(client, home, urls, log)
        failed = reason or not cases or any(case.outcome == "FAIL" for case in cases)
        return Result(client, "FAIL" if failed else "ok", versions, tuple(cases), reason)

    def _program(
        self, client: Client, home: Path, urls: Sequence[str], log: Path
    ) -> tuple[list[Case], str]:
        """Run the program; its cases, and why it failed although no case did."""
        cases: list[Case] = []
        command = command_of(client, home)
        with log.open("a", encoding="utf-8") as output:
            process = subprocess.Popen(
                [*command, *urls],
                cwd=home,
                env=environment_of(client, home),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
            reader = threading.Thread(target=self._read, args=(process, cases, output), daemon=True)
            reader.start()
            began_s = time.monotonic()
            try:
                process.wait(client.limit_minutes * 60)
                reason = ""
            except subprocess.TimeoutExpired:
                reason = f"not done after {client.limit_minutes:g} min"
            finally:
                end(process, self.grace_s)
                reader.join(self.grace_s)
            output.write(f"{time.monotonic() - began_s:.1f} s\n")
        failed = any(case.outcome == "FAIL" for case in cases)
        if process.returncode and not failed and not reason:
            reason = f"status {process.returncode}: {_last_words(log)}"
        return cases, reason

    def _read(self, process: subprocess.Popen[bytes], cases: list[Case], log: IO[str]) -> None:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            log.write(line + "\n")
            log.flush()
            case = read_line(line)
            if case is not None:
                cases.append(case)
                self._say(f"       {line}")


# ---- the folder of a client ----------------------------------------------------------------------


def run_installer(client: Client, home: Path, output: IO[str]) -> None:
    """Install its packages, unless they are there. Raises CalledProcessError if that fails."""
    stamp = home / "installed.json"
    wanted = [client.installer, sys.version, *client.packages, *client.constraints]
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == wanted:
        return
    if client.installer == "npm":
        install_npm(home, client.packages, output)
    elif client.packages:
        install_venv(home / "venv", client.packages, output, client.constraints)
    stamp.write_text(json.dumps(wanted), encoding="utf-8")


def python_of(client: Client, home: Path) -> str:
    """The Python that has its packages: of its own folder, or the project's if it needs none."""
    own = client.installer == "pypi" and client.packages
    return str(home / "venv" / "bin" / "python") if own else sys.executable


def command_of(client: Client, home: Path) -> list[str]:
    """The command of its program, which still lacks the addresses."""
    if client.path.suffix == ".mjs":
        # Node.js looks for packages above the program's own folder.
        for shared in SUPPORT.glob("*.mjs"):
            shutil.copy(shared, home)
        node = find_node()
        assert node is not None
        return [node, str(shutil.copy(client.path, home))]
    if client.path.suffix == ".sh":
        return ["bash", str(client.path)]
    return [python_of(client, home), str(client.path)]


def environment_of(client: Client, home: Path) -> dict[str, str]:
    """The client's own commands on the PATH, and no settings or files of the user."""
    user = home / "home"
    shutil.rmtree(user, ignore_errors=True)
    user.mkdir()
    bins = [Path(python_of(client, home)).parent, home / "node_modules" / ".bin"]
    prefixes = ("PASCAL_", "OPENAI_", "ANTHROPIC_", "XDG_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return {
        **kept,
        "PATH": os.pathsep.join([*map(str, bins), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(SUPPORT),
        "PYTHONUNBUFFERED": "1",
        "HOME": str(user),
        "HF_HUB_OFFLINE": "1",  # nothing is looked up elsewhere
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def installed(client: Client, home: Path) -> str:
    """The names of its packages with the versions that are installed."""
    known = {name: _version_here(name) for name in client.of_venv}
    if known:
        return ", ".join(f"{name} {version}" for name, version in known.items() if version)
    return ", ".join(
        f"{name_of(package)} {version_of(client, home, name_of(package))}"
        for package in client.packages
    )


def version_of(client: Client, home: Path, name: str) -> str:
    """The version of an installed package."""
    if client.installer == "npm":
        manifest = home / "node_modules" / name / "package.json"
        return str(json.loads(manifest.read_text(encoding="utf-8"))["version"])
    if python_of(client, home) == sys.executable:
        return importlib.metadata.version(name)
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    command = [python_of(client, home), "-I", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _version_here(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _why_not_installed(log: Path) -> str:
    """What uv or npm said: the line of an error, or the last one."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    marks = ("error:", "npm error", "\u00d7", "\u2570", "ERROR")
    found = [" ".join(line.split()) for line in lines if line.strip().startswith(marks)]
    return " ".join(found[:2])[:300] if found else last_line(log)


def _last_words(log: Path) -> str:
    """The last line of a program that was not a case."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.strip() for line in lines[:-1] if line.strip() and read_line(line) is None]
    return said[-1][:300] if said else "(nothing was printed)"
