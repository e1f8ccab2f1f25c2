"""How deep a client's JSON may be nested: what reads it later calls itself for each level."""

from __future__ import annotations

from typing import Any

from gateway.schemas.errors import InvalidRequest

MOST_LEVELS = 64  # of objects and lists within each other; vLLM's bound for schemas


def check_depth(value: Any, what: str, where: str) -> None:
    """Check a decoded value.

    :param what: its name in the message, as the subject of a sentence.
    :param where: its path within the body.
    :raises InvalidRequest: it is nested too deep.
    """
    level = [value] if _nests(value) else []
    for _ in range(MOST_LEVELS):
        level = [inner for outer in level for inner in _values(outer) if _nests(inner)]
        if not level:
            return
    raise InvalidRequest(f"{what} is nested more than {MOST_LEVELS} levels deep.", param=where)


def _values(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _nests(value: Any) -> bool:
    return isinstance(value, dict | list)
