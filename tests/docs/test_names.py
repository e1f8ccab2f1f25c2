"""Files, modules, classes, settings and variables that the pages name exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import pytest
from vllm import envs as vllm_variables

from gateway import config as configuration
from tests.docs.support.pages import (
    PACKAGES,
    ROOT,
    Excerpt,
    code_blocks,
    code_spans,
    docstring_spans,
    module_file,
    names_in,
    pages,
    text_of,
    tracked,
)

_PATH = re.compile(r"[\w.*-]+(/[\w.*-]+)+/?")
_DOTTED = re.compile(r"(?<![\w./-])([a-z_]+(?:\.\w+)+)")
_SNAKE = re.compile(r"(?<![\w.])_?[a-z][a-z0-9]*(_[a-z0-9]+)+")
_VARIABLE = re.compile(r"\b(?:PASCAL|VLLM)_[A-Z][A-Z0-9_]*\b")
# Settings of nginx, metrics of the client library.
_FOREIGN = ("proxy_", "process_", "python_")


def settings() -> set[str]:
    """All keys of the configuration, as ``table.key``."""
    return {f"{key.table}.{key.key}" for key in configuration.described()}


def is_there(dotted: str) -> bool:
    """Whether this is a setting, a module, or a name in a module."""
    if dotted in settings():
        return True
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        file = module_file(".".join(parts[:count]))
        if file is not None:
            rest = ".".join(parts[count:])
            return not rest or rest in names_in(file)
    return "/".join(parts) in PACKAGES


def everything() -> Iterator[Excerpt]:
    """All code on pages and in docstrings."""
    yield from code_spans()
    yield from code_blocks()
    yield from docstring_spans()


def test_every_path_exists() -> None:
    folders = {name.partition("/")[0] for name in tracked() if "/" in name}
    paths = [
        span
        for span in code_spans()
        if _PATH.fullmatch(span.text) and span.text.partition("/")[0] in folders
    ]
    assert len(paths) > 40
    missing = [str(span) for span in paths if not any(ROOT.glob(span.text.rstrip("/")))]
    assert not missing, "\n".join(missing)


def test_every_setting_module_and_member_exists() -> None:
    tables = (*configuration.TABLES, *PACKAGES)
    names = [
        Excerpt(code.page, code.line, match[1])
        for code in everything()
        for match in _DOTTED.finditer(code.text)
        if match[1].partition(".")[0] in tables
        and not match[1].endswith((".py", ".toml", ".md", ".KEY"))
    ]
    assert len(names) > 60
    missing = [str(name) for name in names if not is_there(name.text)]
    assert not missing, "\n".join(missing)


def test_every_setting_in_the_file_of_defaults_is_mentioned_by_its_table() -> None:
    """Comments of ``config.toml`` only name settings that exist."""
    comments = re.findall(r"#(.*)", text_of("config.toml"))
    named = [
        match[1]
        for comment in comments
        for match in _DOTTED.finditer(comment)
        if match[1].partition(".")[0] in configuration.TABLES
    ]
    assert named
    assert not [name for name in named if not is_there(name)]


@cache
def words_of_the_sources() -> frozenset[str]:
    """Every word with an underscore in the sources, without docs and these tests."""
    words: set[str] = set()
    for name in tracked():
        source = name.endswith((".py", ".js", ".mjs", ".toml", ".yaml", ".json", ".html", ".csv"))
        if source and not name.startswith(("docs/", "tests/docs/", "web/vendor/")):
            words |= {match[0] for match in re.finditer(r"\w*_\w*", text_of(name))}
    return frozenset(words)


def test_every_name_with_an_underscore_occurs_in_the_sources() -> None:
    """Fields, functions, columns and events in code spans."""
    names = [
        Excerpt(span.page, span.line, match[0])
        for span in code_spans()
        for match in _SNAKE.finditer(span.text)
        if not match[0].startswith(_FOREIGN) and not _PATH.fullmatch(span.text.partition("::")[0])
    ]
    assert len(names) > 200
    known = words_of_the_sources()
    # A metric's suffix is added by the library; a trailing `*` names a family.
    missing = [
        str(name)
        for name in names
        if name.text not in known and name.text.removesuffix("_total") not in known
    ]
    assert not missing, "\n".join(missing)


def test_every_environment_variable_is_read_by_something() -> None:
    names = [
        Excerpt(page, number, match[0])
        for page in (*pages(), "config.toml", "docs/howto/kubernetes.yaml")
        for number, line in enumerate(text_of(page).splitlines(), 1)
        for match in _VARIABLE.finditer(line)
        if not line[match.end() :].startswith("<")  # PASCAL_<TABLE>_<KEY>
    ]
    assert len(names) > 10
    missing = [str(name) for name in names if not _is_read(name.text)]
    assert not missing, "\n".join(missing)


def _is_read(variable: str) -> bool:
    if variable.startswith("VLLM_"):
        return variable in vllm_variables.environment_variables
    if variable in configuration.ENV_FOREIGN:
        return True
    try:
        configuration.load(environment={variable: "1"})
    except configuration.ConfigError as error:
        return "unknown" not in str(error)
    return True


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("workers.policy.decide", True),
        ("workers.scheduler.PhaseScheduler", True),
        ("bench.migration.hand_over.measure", True),
        ("limits.max_request", False),
        ("workers.scheduler.PhaseSchedular", False),
        ("workers.schedulers", False),
        ("gateway.config.tables.Config.served_model_name", True),
    ],
)
def test_the_checks_can_fail(name: str, there: bool) -> None:
    assert is_there(name) is there
    assert not _is_read("PASCAL_LIMITS_MAX_REQUEST")
