"""What the import contracts cannot say: which packages of others each part may import."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest
from setup_env import ROOT

PACKAGES = (
    "pacer", "workers", "gateway", "bench", "pascal", "models", "scripts", "tests", "examples",
)  # fmt: skip
# Top-level module: the distribution that has it.
NOT_INSTALLED = {"ray": "ray"}
# Programs of `make compat`: their packages are in its table, each in a folder of its own.
CLIENTS = "tests/compat/python/"


def imported(package: str) -> Iterator[tuple[str, str]]:
    """Each file of a package, with the top-level name of each module that it imports."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                yield str(path.relative_to(ROOT)), name.partition(".")[0]


def of_others(package: str) -> set[tuple[str, str]]:
    """What a package imports that is neither Python's nor the project's."""
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    known = {*sys.stdlib_module_names, *PACKAGES, *scripts, "compat_cases"}
    return {
        (file, name)
        for file, name in imported(package)
        if name not in known and not file.startswith(CLIENTS)
    }


def normal(name: str) -> str:
    """The name of a distribution, as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """The distributions that the project asks for: its dependencies, and these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    return {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}


def undeclared(package: str, *extras: str) -> list[str]:
    """The imports of a package that neither the dependencies nor these extras declare."""
    owners = importlib.metadata.packages_distributions()
    wanted = declared(*extras)
    missing = []
    for file, name in sorted(of_others(package)):
        distributions = owners.get(name) or [NOT_INSTALLED.get(name, name)]
        # vLLM's CPU build is another distribution with the same module.
        if not {normal(one) for one in (*distributions, name)} & wanted:
            missing.append(f"{file}: {name}")
    return missing


def test_the_pacer_imports_the_standard_library_and_itself() -> None:
    assert of_others("pacer") == set()


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("gateway", ("ray", "postgresql")),
        ("workers", ("cpu",)),
        ("workers", ("gpu",)),
        ("pascal", ()),
        ("bench", ("cpu", "bench")),
        ("bench", ("gpu", "bench")),
        ("models", ("cpu", "dev")),
        ("scripts", ("dev",)),
        ("tests", ("cpu", "bench", "dev", "ray", "fuzz")),
        ("examples", ("dev",)),
    ],
)
def test_every_import_is_declared(package: str, extras: tuple[str, ...]) -> None:
    assert undeclared(package, *extras) == []


def test_an_import_that_is_not_declared_is_found() -> None:
    assert any("matplotlib" in line for line in undeclared("bench", "cpu"))
    assert any("numpy" not in line and "vllm" in line for line in undeclared("workers"))


@pytest.mark.parametrize("module", ["gateway.app", "pascal.serve", "pascal.drain", "pascal.check"])
def test_the_gateway_loads_no_plots_no_arrays_no_engine_and_no_driver(module: str) -> None:
    heavy = "{'matplotlib', 'numpy', 'torch', 'vllm', 'transformers', 'psycopg'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
