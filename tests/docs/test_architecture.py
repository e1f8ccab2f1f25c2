"""What the page of the architecture says of imports and of tables is so."""

from __future__ import annotations

import ast
import re
import tomllib

from gateway.response.lifecycle import TRANSITIONS
from gateway.routing.route import Stage
from tests.docs.pages import module_file, nodes_of, text_of, tracked

PAGE = "docs/architecture.md"


def section(title: str) -> str:
    """The text of the page from this heading to the next."""
    return text_of(PAGE).partition(f"## {title}\n")[2].partition("\n## ")[0]


def imported(by: str, package: str) -> set[str]:
    """Files of a package that files of another one import."""
    found = set()
    for name in tracked():
        if name.startswith(f"{by}/") and name.endswith(".py"):
            for node in nodes_of(name):
                if isinstance(node, ast.ImportFrom) and node.module:
                    inner = [f"{node.module}.{alias.name}" for alias in node.names]
                    modules = [*inner, node.module]
                elif isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                else:
                    continue
                for module in modules:
                    if module.startswith(f"{package}.") and (file := module_file(module)):
                        found.add(file)
    return found


def test_the_pure_modules_are_those_of_the_contract() -> None:
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    pure = next(c["source_modules"] for c in contracts if c["id"] == "policies")
    named = section("What depends on what").partition("are pure: ")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([\w/]+\.py)`", named)) == {module_file(name) for name in pure}


def test_the_gateway_imports_of_the_workers_what_the_page_names() -> None:
    paragraph = section("What depends on what").partition("The gateway imports")[2]
    named = re.findall(r"`(workers/\w+\.py)`", paragraph.partition("\n\n")[0])
    assert sorted(imported("gateway", "workers")) == sorted(named)
    assert not imported("workers", "gateway")
    assert {file.partition("/")[0] for file in imported("pacer", "pacer")} == {"pacer"}


def test_bench_imports_of_the_gateway_what_the_page_names() -> None:
    paragraph = section("What depends on what").partition("Of `bench`")[2]
    named = re.findall(r"`(gateway/\w+\.py)`", paragraph.partition("\n\n")[0])
    assert sorted(imported("bench", "gateway")) == sorted(named)


def test_the_two_tables_of_a_request_are_where_the_page_says() -> None:
    text = section("The life of a request")
    assert "`gateway/response/lifecycle.py`" in text
    assert "`gateway/routing/route.py`" in text
    assert TRANSITIONS
    assert Stage.__module__ == "gateway.routing.route"
