"""Fields of dataclasses and msgspec structs, with the comments that explain them in the source.

A comment explains a field if it stands on the field's own lines, or else directly above it.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import tokenize
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any

_WORDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class SourceField:
    """One field of a class."""

    name: str
    kind: Any  # its resolved type
    default: str | None  # the source of its default; None: the field is required
    comment: str


def fields_of(cls: type) -> list[SourceField]:
    """All fields that the class itself declares, in order."""
    hints = typing.get_type_hints(cls)
    comments = _comments_of(cls)
    fields = []
    for node in _tree_of(cls).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            kind = hints[node.target.id]
            if typing.ClassVar in (kind, typing.get_origin(kind)):
                continue
            default = None if node.value is None else ast.unparse(node.value)
            fields.append(SourceField(node.target.id, kind, default, _comment_on(comments, node)))
    return fields


def type_words(kind: Any, linked: frozenset[str] = frozenset()) -> str:
    """A type in words, as JSON has it.

    :param linked: classes that have a heading of their own on the page.
    """
    if kind in _WORDS:
        return _WORDS[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return type_words(arguments[0], linked)
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        words = " or ".join(type_words(one, linked) for one in arguments)
        return words.replace("true or false or", "true, false or")
    if origin is tuple:
        words = type_words(arguments[0], linked)
        return f"list of {words}s" if arguments[0] in _WORDS else f"list of {words}"
    name = kind.__name__
    return f"[`{name}`](#{name.lower()})" if name in linked else f"`{name}`"


@cache
def _source_of(cls: type) -> str:
    return inspect.cleandoc("\n" + inspect.getsource(cls))


@cache
def _tree_of(cls: type) -> ast.ClassDef:
    node = ast.parse(_source_of(cls)).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def _comments_of(cls: type) -> dict[int, tuple[str, bool]]:
    """By line: the text of the comment, and whether it has the line to itself."""
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(_source_of(cls)).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            comments[token.start[0]] = token.string.lstrip("# "), alone
    return comments


def _comment_on(comments: dict[int, tuple[str, bool]], node: ast.AnnAssign) -> str:
    assert node.end_lineno is not None
    lines = range(node.lineno, node.end_lineno + 1)
    texts = [comments[line][0] for line in lines if line in comments]
    if not texts:
        line = node.lineno - 1
        while line in comments and comments[line][1]:
            texts.insert(0, comments[line][0])
            line -= 1
    return ended(" ".join(texts))


def ended(text: str) -> str:
    """The text with a full stop at its end, and code as Markdown writes it."""
    text = text.replace("``", "`").strip()
    return text if not text or text[-1] in ".!?:" else f"{text}."


def sentence(text: str) -> str:
    """The same with a capital letter at its beginning."""
    text = ended(text)
    return text[:1].upper() + text[1:]
