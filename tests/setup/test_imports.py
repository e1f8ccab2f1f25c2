"""What the import contracts cannot say: the pacer needs the standard library alone."""

from __future__ import annotations

import ast
import sys

from setup_env import ROOT


def test_the_pacer_imports_the_standard_library_and_itself() -> None:
    outside = set()
    for path in (ROOT / "pacer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                outside |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                outside.add(node.module.partition(".")[0])
    assert outside - set(sys.stdlib_module_names) - {"pacer"} == set()
