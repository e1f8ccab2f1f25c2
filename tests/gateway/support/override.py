"""Replaces methods of one object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def override(target: Any, **methods: Callable[..., Any] | None) -> None:
    """Replace methods of one object, which may have slots."""
    kind = type(target)
    assert all(hasattr(kind, name) for name in methods), "a method of this name"
    slots = {} if hasattr(target, "__dict__") else {"__slots__": ()}
    target.__class__ = type(kind.__name__, (kind,), {**slots, **methods})
