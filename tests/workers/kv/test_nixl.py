"""NIXL where it is missing, cannot be loaded, or is of another version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers.support.harness import ROOT
from workers.kv import nixl

AGENT = "\n".join(f"    def {name}(self): ..." for name in nixl._AGENT)
CONFIG = "def nixl_agent_config(**settings): ..."
GOOD = f"""
class nixl_agent:
    def __init__(self, name, config): ...
{AGENT}
{CONFIG}
"""
# Each process prints why NIXL cannot be used, and whether vLLM could still import it.
CODE = """
import importlib
from workers.kv import nixl
try:
    importlib.import_module("nixl._api")
    seen = "seen"
except ImportError:
    seen = "hidden"
print(nixl.try_agent(here=True), seen, sep="|")
"""


@pytest.mark.parametrize(
    ("package", "api", "reason", "seen"),
    [
        ("", GOOD, "None", "seen"),
        ("raise ImportError('detected CUDA 13')", GOOD, "ImportError: detected CUDA 13", "hidden"),
        ("", "raise OSError('libcudart.so.13')", "OSError: libcudart.so.13", "hidden"),
        ("", GOOD.replace("make_connection", "connect"), "has no make_connection", "hidden"),
        ("", GOOD.replace("**settings", "backends"), "unexpected keyword", "hidden"),
        ("", GOOD.replace("config): ...", "config): 1 / 0"), "cannot be used: ZeroDiv", "seen"),
        (None, "", "NIXL is not installed", "hidden"),
    ],
)
def test_what_cannot_be_used_is_hidden_from_vllm_and_named(
    tmp_path: Path, package: str | None, api: str, reason: str, seen: str
) -> None:
    code = CODE
    if package is None:
        code = "import sys; sys.modules['nixl'] = None\n" + code.replace(
            "from workers.kv",
            "del sys.modules['nixl']; sys.path[:] = [p for p in sys.path if "
            "'site-packages' not in p]\nfrom workers.kv",
        )
    else:
        (tmp_path / "nixl").mkdir()
        (tmp_path / "nixl" / "__init__.py").write_text(package)
        (tmp_path / "nixl" / "_api.py").write_text(api)
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=True,
    )
    said, _, visible = found.stdout.strip().partition("|")
    assert reason in said
    assert visible == seen


def test_in_another_process_it_is_tried_with_the_same_answer() -> None:
    assert nixl.try_agent(here=False) == nixl.try_agent(here=True)
