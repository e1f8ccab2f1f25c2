"""The tree keeps its form: small folders, and no modules that import each other in a circle."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import PurePosixPath

import grimp
from setup_env import ROOT

PACKAGES = ("pacer", "workers", "gateway", "bench", "pascal")
_MOST_MODULES = 15


def test_no_folder_holds_more_than_fifteen_modules() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    count = Counter(str(PurePosixPath(name).parent) for name in tracked)
    count -= Counter(str(PurePosixPath(n).parent) for n in tracked if n.endswith("__init__.py"))
    assert {folder: n for folder, n in count.items() if n > _MOST_MODULES} == {}


def circles(imports: dict[str, set[str]]) -> set[str]:
    """Modules that import themselves by way of others."""
    left = dict(imports)
    while leaves := {name for name, needs in left.items() if not needs & left.keys()}:
        for name in leaves:
            del left[name]
    # What is left is in a circle, or leads to one.
    while roots := left.keys() - {need for needs in left.values() for need in needs}:
        for name in roots:
            del left[name]
    return set(left)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert circles(imports) == set()


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == {"b", "c"}
