"""Which class of vLLM a value in our sources has, as far as names and annotations say.

No type checker: it knows imports, annotations, constructors, `isinstance`, loops over containers,
and the attributes that vLLM's own classes annotate.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import types
from dataclasses import dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin

_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
_CONTAINERS = {"list", "Sequence", "Iterable", "deque", "tuple", "set", "dict", "Mapping"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A class or an object of vLLM, or a container of such objects."""

    value: Any
    owner: str  # as `vllm_use.uses` names it
    container: str | None = None

    def has(self, member: str) -> bool:
        """Whether vLLM gives it this member; what a subclass of ours adds is none."""
        if isinstance(self.value, type):
            return member in members_of(self.value)
        return isinstance(self.value, types.ModuleType) and hasattr(self.value, member)


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """A class of ours, by what its attributes are."""

    fields: dict[str, Kind]


def name_of(cls: type) -> str:
    """``module.Class``."""
    return f"{cls.__module__}.{cls.__qualname__}"


@cache
def members_of(cls: type) -> frozenset[str]:
    """Everything that an object of the class has: methods, and what its methods assign."""
    return frozenset(dir(cls)).union(*(_says(part) for part in cls.__mro__))


@cache
def _body(cls: type) -> list[ast.stmt]:
    """What the source of the class defines; nothing if it has none."""
    if cls.__module__ == "builtins":
        return []
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):
        return []
    return node.body if isinstance(node, ast.ClassDef) else []


class Scope:
    """What the names of one function are."""

    def __init__(self, names: dict[str, Any], fields: dict[str, Kind]) -> None:
        """:param names: imported ones; :param fields: attributes of ``self``."""
        self._names = names
        self._kinds: dict[str, Kind] = {}
        self.fields = dict(fields)

    def learn(self, root: ast.AST) -> None:
        """Read parameters, assignments and checks; twice, for what is used before it is known."""
        for _ in range(2):
            for node in ast.walk(root):
                self._learn(node)

    def _learn(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                args = node.args
                for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs):
                    if arg.annotation is not None:
                        self._set(ast.Name(arg.arg), self.annotated(arg.annotation))
            case ast.AnnAssign(target=target, annotation=annotation):
                self._set(target, self.annotated(annotation))
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                        for one, its in zip(target.elts, value.elts, strict=False):
                            self._set(one, self.kind_of(its))
                    else:
                        self._set(target, self.kind_of(value))
            case ast.NamedExpr(target=target, value=value):
                self._set(target, self.kind_of(value))
            case (
                ast.For(target=target, iter=iterable)
                | ast.comprehension(target=target, iter=iterable)
            ):
                self._set(target, self._element(self.kind_of(iterable)))
            case ast.Call(func=ast.Name(id="isinstance"), args=[value, cls]):
                self._set(value, self.annotated(cls))

    def _set(self, target: ast.expr, kind: Kind | None) -> None:
        if kind is None:
            return
        match target:
            case ast.Name(id=name):
                self._kinds[name] = kind
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                self.fields[name] = kind

    def value_of(self, node: ast.expr) -> Any:
        """The class, function or module of vLLM that an expression names; else None."""
        match node:
            case ast.Name(id=name):
                return self._names.get(name)
            case ast.Attribute(value=value, attr=name):
                owner = self.value_of(value)
                return None if owner is None else getattr(owner, name, None)
        return None

    def annotated(self, node: ast.expr) -> Kind | None:
        """What an annotation, or the second argument of `isinstance`, says."""
        match node:
            case ast.Name() | ast.Attribute():
                return _instance(self.value_of(node))
            case ast.BinOp(left=left, right=right):
                return self.annotated(left) or self.annotated(right)
            case ast.Subscript(value=ast.Name(id=name), slice=inner) if name in _CONTAINERS:
                element = self.annotated(
                    inner.elts[-1 if name in ("dict", "Mapping") else 0]
                    if isinstance(inner, ast.Tuple)
                    else inner
                )
                return element and Kind(element.value, element.owner, _container(name))
        return None

    def kind_of(self, node: ast.expr) -> Kind | None:
        """What the value of an expression is."""
        match node:
            case ast.Name(id=name):
                if name in self._kinds:
                    return self._kinds[name]
                return _named(name, self._names.get(name))
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if name in self.fields:
                return self.fields[name]
            case ast.Attribute(value=value, attr=name):
                of = self.kind_of(value)
                if of is None or of.container is not None:
                    return None
                if isinstance(of.value, Own):
                    return of.value.fields.get(name)
                return attribute_kind(of.value, name) if isinstance(of.value, type) else None
            case ast.Call(func=ast.Name(id="next" | "sorted" | "list" | "reversed"), args=args):
                kind = self.kind_of(args[0])
                return self._element(kind) if node.func.id == "next" else kind  # type: ignore[attr-defined]
            case ast.Call(func=ast.Attribute(value=value, attr="values" | "copy" | "get" | "pop")):
                of = self.kind_of(value)
                if of is None or of.container is None:
                    return None
                keeps = node.func.attr in ("values", "copy")  # type: ignore[attr-defined]
                return Kind(of.value, of.owner, "list") if keeps else self._element(of)
            case ast.Call(func=func):
                made = self.value_of(func)
                if isinstance(made, type | Own):
                    return _instance(made)
                if made is not None:
                    return returned(made)
                if isinstance(func, ast.Attribute):
                    of = self.kind_of(func.value)
                    if of is not None and of.container is None and isinstance(of.value, type):
                        return returned(getattr(of.value, func.attr, None))
            case ast.Subscript(value=value):
                return self._element(self.kind_of(value))
            case ast.GeneratorExp(elt=elt) | ast.ListComp(elt=elt):
                kind = self.kind_of(elt)
                return kind and Kind(kind.value, kind.owner, "list")
            case ast.BoolOp(values=values):
                return next(filter(None, map(self.kind_of, values)), None)
            case ast.IfExp(body=body, orelse=orelse):
                return self.kind_of(body) or self.kind_of(orelse)
            case ast.Await(value=value) | ast.Starred(value=value):
                return self.kind_of(value)
        return None

    @staticmethod
    def _element(kind: Kind | None) -> Kind | None:
        if kind is None or kind.container is None:
            return None
        return Kind(kind.value, kind.owner)


@cache
def attribute_kind(cls: type, name: str) -> Kind | None:
    """What vLLM's class says about its attribute."""
    for part in cls.__mro__:
        if part.__module__ == "builtins":
            continue
        space = vars(sys.modules[part.__module__])
        if isinstance(declared := vars(part).get(name), property):
            return returned(declared.fget)
        if not part.__module__.startswith("vllm."):
            continue
        for node in _says(part).get(name, ()):
            if isinstance(node, ast.AnnAssign):
                return Scope(space, {}).annotated(node.annotation)
            inner = Scope(space, {})
            inner.learn(node)
            if name in inner.fields:
                return _if_vllm(inner.fields[name])
    return None


@cache
def _says(cls: type) -> dict[str, list[ast.AST]]:
    """Where the class's source says what an attribute is: annotations, and methods that set it."""
    found: dict[str, list[ast.AST]] = {}
    for node in _body(cls):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.setdefault(node.target.id, []).append(node)
        elif isinstance(node, _FUNCTION):
            stored = {
                child.attr
                for child in ast.walk(node)
                if isinstance(child, ast.Attribute)
                and isinstance(child.ctx, ast.Store)
                and isinstance(child.value, ast.Name)
                and child.value.id == "self"
            }
            for name in stored:
                found.setdefault(name, []).append(node)
    return found


def returned(function: Any) -> Kind | None:
    """What a function of vLLM is annotated to return."""
    try:
        annotation = inspect.signature(function).return_annotation
    except (TypeError, ValueError):
        return None
    if isinstance(annotation, str):
        space = vars(sys.modules[function.__module__])
        return _if_vllm(Scope(space, {}).annotated(ast.parse(annotation, mode="eval").body))
    return _typed(annotation)


def _typed(annotation: Any) -> Kind | None:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return next(filter(None, map(_typed, args)), None)
    if origin in (list, tuple, set, dict):
        element = _typed(args[-1 if origin is dict else 0])
        return element and Kind(element.value, element.owner, "list")
    return _instance(annotation) if isinstance(annotation, type) else None


def _instance(value: Any) -> Kind | None:
    if isinstance(value, Own):
        return Kind(value, "")
    return _if_vllm(Kind(value, name_of(value))) if isinstance(value, type) else None


def _named(name: str, value: Any) -> Kind | None:
    """An imported class, module or object itself: its members are used by name."""
    if isinstance(value, type):
        return _if_vllm(Kind(value, name_of(value)))
    if isinstance(value, types.ModuleType):
        return Kind(value, value.__name__) if value.__name__.startswith("vllm") else None
    if value is None or isinstance(value, Own) or callable(value):
        return None
    vllms = [part for part in type(value).__mro__ if part.__module__.startswith("vllm.")]
    # The platform, say, is of another class on each machine: the first one has what all have.
    return Kind(vllms[-1], name_of(vllms[-1])) if vllms else None


def _if_vllm(kind: Kind | None) -> Kind | None:
    return kind if kind is not None and kind.owner.startswith("vllm") else None


def _container(name: str) -> str:
    return "dict" if name in ("dict", "Mapping") else "list"
