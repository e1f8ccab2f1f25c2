"""What this project touches in vLLM, read from its sources.

The sources say it in three ways, and each is followed as far as names and annotations lead:

    imports     every name that a source imports from vLLM
    subclasses  what a class of ours overrides, or uses of ``self`` and ``super()``
    objects     what is used of a value whose class is known: from an annotation, a constructor, an
                `isinstance`, or an attribute of another such value (`vllm_types`)

A private member of any other object counts too, if no source of ours defines that name.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any

from tests.docs.support.pages import module_file, names_in, nodes_of, tracked, tree_of
from tests.docs.support.vllm_types import Kind, Own, Scope, members_of, name_of

FOLDERS = ("workers/", "bench/", "examples/", "models/")
Uses = dict[tuple[str, str], set[str]]  # files by owner (a module, or module.Class) and member

# Dictionaries of these sources go into vLLM's `AsyncEngineArgs` elsewhere.
_MORE_ARGUMENTS = ("workers/emulation/executor.py",)
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
# Private names of the standard library.
_OTHERS = {"_exit", "_replace"}


@cache
def uses() -> dict[tuple[str, str], frozenset[str]]:
    """The files that touch each member: by owner (a module, or ``module.Class``) and name."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    found: Uses = {}
    for file in files():
        _Reader(file, found).read()
        if file in _MORE_ARGUMENTS:
            for name in _keys(file) & set(AsyncEngineArgs.__dataclass_fields__):
                found.setdefault((name_of(AsyncEngineArgs), name), set()).add(file)
    return {key: frozenset(where) for key, where in found.items()}


@cache
def private_of_others() -> dict[str, frozenset[str]]:
    """Private members, by name, of objects other than ``self`` that no source of ours defines."""
    ours = {
        name.rpartition(".")[2]
        for file in tracked()
        if file.endswith(".py") and file.startswith((*FOLDERS, "gateway/"))
        for name in names_in(file)
    }
    found: dict[str, set[str]] = {}
    for file in files():
        for node in nodes_of(file):
            if isinstance(node, ast.Attribute) and _private(node.attr):
                of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                if not of_self and not _is_super(node.value) and node.attr not in ours | _OTHERS:
                    found.setdefault(node.attr, set()).add(file)
    return {name: frozenset(files) for name, files in found.items()}


@cache
def files() -> tuple[str, ...]:
    """The sources that are read."""
    return tuple(name for name in tracked() if name.endswith(".py") and name.startswith(FOLDERS))


class _Reader:
    """Reads one source."""

    def __init__(self, file: str, found: Uses) -> None:
        self._file = file
        self._found = found
        self._names: dict[str, Any] = {}  # what each imported name of vLLM is

    def read(self) -> None:
        """Add what the source touches."""
        for node in nodes_of(self._file):
            match node:
                case ast.ImportFrom(module=str(module)) if _of_vllm(module):
                    for alias in node.names:
                        self._add(module, alias.name)
                        value = getattr(importlib.import_module(module), alias.name, None)
                        self._names[alias.asname or alias.name] = value
                case ast.Import():
                    for alias in node.names:
                        if _of_vllm(alias.name):
                            self._names[alias.asname or alias.name] = importlib.import_module(
                                alias.name
                            )
        tree = tree_of(self._file)
        self._own_classes(tree)
        if not self._names:
            return
        fields = _fields(tree, self._names)
        for name, own in fields.items():
            self._names.setdefault(name, Own(own))
        for owner, function in _functions(tree):
            scope = Scope(self._names | {"cls": self._names.get(owner)}, fields.get(owner, {}))
            scope.learn(function)
            self._objects(function, scope)
        top = Scope(self._names, {})
        for statement in tree.body:
            if not isinstance(statement, _FUNCTION | ast.ClassDef):
                top.learn(statement)
                self._objects(statement, top)
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                for base in bases_of_vllm(self._file, node):
                    self._subclass(node, base)

    def _own_classes(self, tree: ast.Module) -> None:
        """A class of ours stands for the class of vLLM that it extends."""
        for name, (module, its) in _imports(self._file).items():
            if module.startswith(("workers.", "bench.")):
                other = module_file(module)
                for node in tree_of(other).body if other else ():
                    if isinstance(node, ast.ClassDef) and node.name == its:
                        for base in bases_of_vllm(other or "", node):
                            self._names[name] = base
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                for base in bases_of_vllm(self._file, node):
                    self._names[node.name] = base

    def _subclass(self, own: ast.ClassDef, base: type) -> None:
        members = members_of(base)
        if not any("__init__" in vars(part) for part in base.__mro__ if _of_vllm(part.__module__)):
            members -= {"__init__"}
        for node in ast.walk(own):
            if isinstance(node, ast.Attribute):
                of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                if (of_self or _is_super(node.value)) and node.attr in members:
                    self._add(name_of(base), node.attr)
        for node in own.body:
            if isinstance(node, _FUNCTION) and node.name in members:
                self._add(name_of(base), node.name)

    def _objects(self, root: ast.AST, scope: Scope) -> None:
        for node in ast.walk(root):
            if isinstance(node, ast.Attribute):
                kind = scope.kind_of(node.value)
                if kind is not None and kind.container is None and kind.has(node.attr):
                    self._add(kind.owner, node.attr)
            elif isinstance(node, ast.Call):
                made = scope.value_of(node.func)
                if isinstance(made, type) and _of_vllm(made.__module__):
                    self._constructed(made, node)

    def _constructed(self, cls: type, call: ast.Call) -> None:
        if issubclass(cls, Enum):
            return
        fields = set(getattr(cls, "__dataclass_fields__", ())) | set(
            getattr(cls, "__struct_fields__", ())
        )
        if fields and not call.args:
            names = {keyword.arg for keyword in call.keywords}
            if None in names:  # a dictionary, made somewhere in this source
                names |= _keys(self._file) & fields
            for name in filter(None, names):
                self._add(name_of(cls), name)
        else:
            self._add(name_of(cls), "__init__")

    def _add(self, owner: str, member: str) -> None:
        if not _dunder(member) or member == "__init__":
            self._found.setdefault((owner, member), set()).add(self._file)


def bases_of_vllm(file: str, own: ast.ClassDef) -> list[type]:
    """The nearest base classes that are vLLM's; none for other classes."""
    found = []
    for base in own.bases:
        if not isinstance(base, ast.Name):
            continue
        module, name = _imports(file).get(base.id, ("", ""))
        if _of_vllm(module):
            cls: Any = getattr(importlib.import_module(module), name)
            found.append(cls)
        elif module.startswith(("workers.", "bench.")):
            other = module.replace(".", "/") + ".py"
            for node in tree_of(other).body:
                if isinstance(node, ast.ClassDef) and node.name == name:
                    found += bases_of_vllm(other, node)
        elif not module:
            for node in tree_of(file).body:
                if isinstance(node, ast.ClassDef) and node.name == base.id:
                    found += bases_of_vllm(file, node)
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


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every function of the module, with the name of its class or an empty one."""
    for node in tree.body:
        if isinstance(node, _FUNCTION):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, _FUNCTION):
                    yield node.name, child


def _fields(tree: ast.Module, names: dict[str, Any]) -> dict[str, dict[str, Kind]]:
    """For each class of the module, what its own attributes are."""
    found: dict[str, dict[str, Kind]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            fields: dict[str, Kind] = {}
            for child in node.body:
                match child:
                    case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                        if (kind := Scope(names, {}).annotated(annotation)) is not None:
                            fields[name] = kind
                    case ast.FunctionDef() | ast.AsyncFunctionDef():
                        scope = Scope(names, fields)
                        scope.learn(child)
                        fields |= scope.fields
            found[node.name] = fields
    return found


@cache
def _keys(file: str) -> frozenset[str]:
    """All texts in the source that may be keys of such a dictionary."""
    return frozenset(
        node.value
        for node in nodes_of(file)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _of_vllm(module: str) -> bool:
    return module == "vllm" or module.startswith("vllm.")


def _is_super(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    )


def _private(name: str) -> bool:
    return name.startswith("_") and not _dunder(name)


def _dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
