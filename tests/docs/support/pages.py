"""Reads the pages of the project: their prose, code, links and headings."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("bench", "gateway", "models", "pacer", "pascal", "scripts", "tests", "workers")
_DOCUMENTED = ("bench/", "gateway/", "pacer/", "pascal/", "scripts/", "workers/")
_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A piece of a page, and where it stands."""

    page: str  # path in the repository
    line: int  # where its paragraph or block begins
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@cache
def tracked() -> tuple[str, ...]:
    """All files of the project, including new ones, without those that git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(name for name in names.splitlines() if (ROOT / name).is_file())


@cache
def pages() -> tuple[str, ...]:
    """All Markdown pages."""
    return tuple(name for name in tracked() if name.endswith(".md"))


@cache
def text_of(page: str) -> str:
    """The text of a file of the project."""
    return (ROOT / page).read_text(encoding="utf-8")


def code_blocks() -> Iterator[Excerpt]:
    """Fenced and indented code."""
    for page in pages():
        for token in _tokens(page):
            if token.type in ("fence", "code_block"):
                first = _line(token) + (token.type == "fence")
                yield Excerpt(page, first, token.content)


def code_spans() -> Iterator[Excerpt]:
    """Code within a line of prose or of a table; line breaks in it are spaces."""
    for page, line, inline in _inline():
        if inline.type == "code_inline":
            yield Excerpt(page, line, " ".join(inline.content.split()))


def docstring_spans() -> Iterator[Excerpt]:
    """Words in backquotes in the docstrings of all packages but models and tests."""
    for name in tracked():
        if name.endswith(".py") and name.startswith(_DOCUMENTED):
            for node in nodes_of(name):
                documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
                if isinstance(node, documented) and (text := ast.get_docstring(node)):
                    line = 1 if isinstance(node, ast.Module) else node.lineno
                    for span in re.finditer(r"(`{1,2})([^`]+)\1", text):
                        yield Excerpt(name, line, " ".join(span[2].split()))


def links() -> Iterator[Excerpt]:
    """The targets of links and images."""
    for page, line, inline in _inline():
        target = inline.attrGet("href") or inline.attrGet("src")
        if target is not None:
            yield Excerpt(page, line, str(target))


@cache
def anchors(page: str) -> frozenset[str]:
    """The anchors of the page's headings, formed as GitHub forms them."""
    tokens = _tokens(page)
    headings = [
        tokens[index + 1].content
        for index, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
    )


def table(page: str, header: str) -> list[list[str]]:
    """The rows of the first table whose first column has this heading.

    :raises AssertionError: the page has no such table.
    """
    lines = iter(text_of(page).splitlines())
    for line in lines:
        if line.startswith(f"| {header} |"):
            next(lines)
            rows: list[list[str]] = []
            for row in lines:
                if not row.startswith("|"):
                    return rows
                cells = re.split(r"(?<!\\)\|", row)[1:-1]
                rows.append([cell.strip() for cell in cells])
            return rows
    raise AssertionError(f"{page} has no table '{header}'")


@cache
def module_file(name: str) -> str | None:
    """The file of a module of this project; None if there is none."""
    path = name.replace(".", "/")
    known = set(tracked())
    files = (f"{path}.py", f"{path}/__init__.py", f"{path}/__main__.py")
    return next((file for file in files if file in known), None)


@cache
def tree_of(file: str) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse(text_of(file))


@cache
def nodes_of(file: str) -> tuple[ast.AST, ...]:
    """All nodes of the syntax tree of a source file."""
    return tuple(ast.walk(tree_of(file)))


@cache
def names_in(file: str) -> frozenset[str]:
    """The names at the top level of a module, and ``Class.member`` for its classes."""
    names: set[str] = set()
    for node in tree_of(file).body:
        names |= set(_bound(node))
        if isinstance(node, ast.ClassDef):
            members = {name for member in ast.walk(node) for name in _bound(member)}
            names |= {f"{node.name}.{member}" for member in members}
    return frozenset(names)


def _bound(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Assign():
            for target in node.targets:
                yield from _targets(target)
        case ast.AnnAssign():
            yield from _targets(node.target)
        case ast.ImportFrom() | ast.Import():
            yield from (name.asname or name.name for name in node.names)


def _targets(target: ast.expr) -> Iterator[str]:
    match target:
        case ast.Name():
            yield target.id
        case ast.Attribute(value=ast.Name(id="self")):
            yield target.attr
        case ast.Tuple():
            for element in target.elts:
                yield from _targets(element)


@cache
def _tokens(page: str) -> list[Token]:
    return _MARKDOWN.parse(text_of(page))


def _line(token: Token) -> int:
    return 1 if token.map is None else token.map[0] + 1


def _inline() -> Iterator[tuple[str, int, Token]]:
    for page in pages():
        for token in _tokens(page):
            for child in token.children or ():
                yield page, _line(token), child
