"""The project's pages as the tests of this folder read them: prose, code, links, headings."""

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

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("bench", "gateway", "models", "pacer", "scripts", "tests", "workers")
_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True, slots=True)
class Found:
    """Something that a page says, and where."""

    page: str  # path in the repository
    line: int  # where its paragraph or block begins
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@cache
def tracked() -> tuple[str, ...]:
    """Every file of the project, new ones included, ignored ones not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(name for name in names.splitlines() if (ROOT / name).is_file())


@cache
def pages() -> tuple[str, ...]:
    """All Markdown pages."""
    return tuple(name for name in tracked() if name.endswith(".md"))


@cache
def text_of(page: str) -> str:
    """A file of the project."""
    return (ROOT / page).read_text(encoding="utf-8")


def code_blocks() -> Iterator[Found]:
    """Fenced and indented code."""
    for page in pages():
        for token in _tokens(page):
            if token.type in ("fence", "code_block"):
                first = _line(token) + (token.type == "fence")
                yield Found(page, first, token.content)


def code_spans() -> Iterator[Found]:
    """Code within a line of prose or of a table; line breaks in it are spaces."""
    for page, line, inline in _inline():
        if inline.type == "code_inline":
            yield Found(page, line, " ".join(inline.content.split()))


def docstring_spans() -> Iterator[Found]:
    """What docstrings of the product and of its measurements have in backquotes."""
    for name in tracked():
        if name.endswith(".py") and name.startswith(("bench/", "gateway/", "pacer/", "workers/")):
            for node in nodes_of(name):
                documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
                if isinstance(node, documented) and (text := ast.get_docstring(node)):
                    line = 1 if isinstance(node, ast.Module) else node.lineno
                    for span in re.finditer(r"(`{1,2})([^`]+)\1", text):
                        yield Found(name, line, " ".join(span[2].split()))


def links() -> Iterator[Found]:
    """Targets of links and images."""
    for page, line, inline in _inline():
        target = inline.attrGet("href") or inline.attrGet("src")
        if target is not None:
            yield Found(page, line, str(target))


@cache
def anchors(page: str) -> frozenset[str]:
    """What a link to a heading of this page may name: the rule of GitHub."""
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
    """The rows of the page's table whose first column has this heading."""
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
    """The file of a module of this project."""
    path = name.replace(".", "/")
    known = set(tracked())
    files = (f"{path}.py", f"{path}/__init__.py", f"{path}/__main__.py")
    return next((file for file in files if file in known), None)


@cache
def tree_of(file: str) -> ast.Module:
    """The parsed source."""
    return ast.parse(text_of(file))


@cache
def nodes_of(file: str) -> tuple[ast.AST, ...]:
    """All of its syntax tree."""
    return tuple(ast.walk(tree_of(file)))


@cache
def names_in(file: str) -> frozenset[str]:
    """What a module has at its top level, and ``Class.member`` of its classes."""
    found: set[str] = set()
    for node in tree_of(file).body:
        own = set(_bound(node))
        found |= own
        if isinstance(node, ast.ClassDef):
            members = {name for member in ast.walk(node) for name in _bound(member)}
            found |= {f"{node.name}.{member}" for member in members}
    return frozenset(found)


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
