"""API keys in the store of a running gateway, added as a command in another process adds them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gateway.keys.making import new_key
from gateway.service import ResponseService
from gateway.store import KeyLimits, Priority, Scope, add_key, key_file, revoke_key

FILE = "store.sqlite3"  # of a scripted service, in its folder


def add(
    folder: Path,
    name: str = "alice",
    scopes: Iterable[Scope] = ("chat",),
    priority: Priority = "normal",
    **limits: int,
) -> str:
    """Add a key; return its text."""
    text, key = new_key(name, scopes, KeyLimits(**limits), priority)
    with key_file(folder / FILE, create=True) as connection:
        add_key(connection, key)
    return text


def revoke(folder: Path, name: str = "alice") -> None:
    with key_file(folder / FILE) as connection:
        assert revoke_key(connection, name, 1.0)


async def added(
    folder: Path,
    service: ResponseService,
    name: str = "alice",
    scopes: Iterable[Scope] = ("chat",),
    priority: Priority = "normal",
    **limits: int,
) -> dict[str, str]:
    """Add a key that the gateway then knows; return the header of its client."""
    text = add(folder, name, scopes, priority, **limits)
    await service.keys.refresh()
    return {"Authorization": f"Bearer {text}"}
