"""What this project touches in vLLM's classes, read from the sources.

Of a class of vLLM: what a subclass of ours overrides or uses, and what is used of an object that
our sources call ``scheduler`` or ``request``. A call of a public function is not counted.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from tests.docs.pages import names_in, nodes_of, text_of, tracked, tree_of


@cache
def touched() -> dict[str, frozenset[str]]:
    """Members by class of vLLM (``module.Class``); a subclass of ours counts as its base class."""
    found: dict[str, set[str]] = {}
    for file in _files():
        for own in _classes(file):
            for base in _bases_of_vllm(file, own):
                members = members_of(base)
                defined = {node.name for node in own.body if isinstance(node, _FUNCTION)}
                names = defined | _attributes(ast.walk(own), ("self", "super()"))
                found.setdefault(_name_of(base), set()).update(names & members)
        for cls, names in _objects(file):
            found.setdefault(_name_of(cls), set()).update(names & members_of(cls))
    return {
        name: frozenset(member for member in members if not member.startswith("__"))
        for name, members in found.items()
        if members
    }


@cache
def private_of_others() -> dict[str, frozenset[str]]:
    """Private members of objects other than ``self`` that no source of ours defines: by name."""
    ours = {
        name.rpartition(".")[2]
        for file in tracked()
        if file.endswith(".py") and file.startswith(("workers/", "bench/", "gateway/"))
        for name in names_in(file)
    }
    found: dict[str, set[str]] = {}
    for file in _files():
        for node in nodes_of(file):
            if isinstance(node, ast.Attribute) and _private(node.attr):
                of = _dotted(node.value)
                if of not in ("self", "super()") and node.attr not in ours | {"_exit", "_replace"}:
                    found.setdefault(node.attr, set()).add(file)
    return {name: frozenset(files) for name, files in found.items()}


@cache
def members_of(cls: type) -> frozenset[str]:
    """Everything that an object of the class has: methods, and what its methods assign."""
    found = set(dir(cls))
    for part in cls.__mro__:
        if part is object:
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
        except (OSError, TypeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id == "self":
                    found.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return frozenset(found)


def class_named(dotted: str) -> type:
    """A class by its module and name; :raises AssertionError: if vLLM has none such."""
    module, _, name = dotted.rpartition(".")
    found: Any = getattr(importlib.import_module(module), name, None)
    assert isinstance(found, type), f"vLLM has no {dotted}"
    return found


_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def _files() -> list[str]:
    folders = ("workers/", "bench/")
    return [name for name in tracked() if name.endswith(".py") and name.startswith(folders)]


def _classes(file: str) -> Iterator[ast.ClassDef]:
    for node in tree_of(file).body:
        if isinstance(node, ast.ClassDef):
            yield node


def _bases_of_vllm(file: str, own: ast.ClassDef) -> list[type]:
    """The nearest base classes that are vLLM's; none for other classes."""
    found = []
    for base in own.bases:
        if not isinstance(base, ast.Name):
            continue
        module, name = _imports(file).get(base.id, ("", ""))
        if module.startswith("vllm."):
            found.append(class_named(f"{module}.{name}"))
        elif module.startswith(("workers.", "bench.")):
            other = module.replace(".", "/") + ".py"
            classes = [node for node in _classes(other) if node.name == name]
            found += [cls for node in classes for cls in _bases_of_vllm(other, node)]
        elif not module:
            classes = [node for node in _classes(file) if node.name == base.id]
            found += [cls for node in classes for cls in _bases_of_vllm(file, node)]
    return found


@cache
def _imports(file: str) -> dict[str, tuple[str, str]]:
    """By the name it has in the file: from which module, and its name there."""
    return {
        name.asname or name.name: (node.module or "", name.name)
        for node in nodes_of(file)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _objects(file: str) -> Iterator[tuple[type, set[str]]]:
    if file.startswith("workers/"):
        text = text_of(file)
        if "import Scheduler\n" in text:
            yield Scheduler, _attributes(nodes_of(file), ("scheduler", "self._scheduler"))
        if "vllm.v1.request import" in text:
            yield Request, _attributes(nodes_of(file), ("request",))


def _attributes(nodes: Iterable[ast.AST], of: tuple[str, ...]) -> set[str]:
    return {
        child.attr
        for child in nodes
        if isinstance(child, ast.Attribute) and _dotted(child.value) in of
    }


def _dotted(node: ast.expr) -> str:
    """A name, or an attribute of one, as written; `ast.unparse` is slow."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{_dotted(node.value)}.{node.attr}"
        case ast.Call(func=ast.Name(id="super")):
            return "super()"
    return ""


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
