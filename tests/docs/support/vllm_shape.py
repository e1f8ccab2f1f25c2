"""Whether vLLM still has a member as the table in `workers.vllm_members` describes it."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from typing import Any

from tests.docs.support.vllm_types import members_of

_EMPTY = inspect.Parameter.empty
_ALWAYS_OPTIONAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@cache
def owner_named(dotted: str) -> Any:
    """A module or a class; None if vLLM has none of this name."""
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError:
        return None


def problem_of(owner: str, member: str) -> str | None:
    """What is wrong with an entry of the table; None if vLLM is as it says."""
    where = owner_named(owner)
    if where is None:
        return f"vLLM has no {owner}"
    name = name_of_member(member)
    known = members_of(where) if isinstance(where, type) else vars(where)
    if name not in known and not hasattr(where, name):
        return f"{owner} has no {name}"
    value = getattr(where, name, None)
    if isinstance(value, type) or not (callable(value) and inspect.isroutine(value)):
        return f"{owner}.{name} is no function" if "(" in member else None
    there, relied_on = signature_of(value), member.partition(name)[2]
    awaited = inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)
    if awaited != member.startswith("async "):
        return f"{owner}.{name} is {'' if awaited else 'not '}asynchronous"
    if not _suits(relied_on, value):
        return f"{owner}.{name} is {name}{there}, and we rely on {name}{relied_on}"
    return None


def name_of_member(member: str) -> str:
    """Without signature."""
    return member.removeprefix("async ").partition("(")[0]


def signature_of(function: Any) -> str:
    """Parameters and defaults, without annotations."""
    signature = inspect.signature(function)
    bare = [parameter.replace(annotation=_EMPTY) for parameter in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=_EMPTY))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _suits(relied_on: str, function: Any) -> bool:
    if not relied_on.endswith(", ...)") and relied_on != "(...)":
        return relied_on == signature_of(function)
    wanted = iter([part for part in _parts(relied_on) if part not in ("*", "...")])
    expected = next(wanted, None)
    for parameter in inspect.signature(function).parameters.values():
        if str(parameter.replace(annotation=_EMPTY)) == expected:
            expected = next(wanted, None)
        elif parameter.default is _EMPTY and parameter.kind not in _ALWAYS_OPTIONAL:
            return False  # we do not pass it
    return expected is None


def _parts(signature: str) -> list[str]:
    """The parameters of a signature; a default may hold brackets."""
    return [part.strip() for part in re.split(r",\s*(?![^()]*\))", signature[1:-1])]
