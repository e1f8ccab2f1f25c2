"""New API keys: their text, which is shown once, and what is stored of it.

The text has 256 random bits, so that one round of SHA-256 protects it: nobody can guess it, and a
slow hash would only slow down the gateway.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable

from gateway.store import KeyLimits, Priority, Scope, StoredKey

MARK = "sk-pascal-"  # every key begins with it, so that scanners for leaked secrets can find it
PREFIX_LENGTH = len(MARK) + 8  # of the text; this much is stored and shown
NAME = re.compile(r"(?!key_)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BYTES = 32


def new_key(
    name: str,
    scopes: Iterable[Scope] = ("chat",),
    limits: KeyLimits = KeyLimits(),
    priority: Priority = "normal",
) -> tuple[str, StoredKey]:
    """Make a key; return its text and what is to be stored.

    :param name: one that `NAME` matches.
    """
    text = MARK + secrets.token_urlsafe(_BYTES)
    key = StoredKey(
        key_id=f"key_{secrets.token_hex(8)}",
        name=name,
        prefix=prefix_of(text),
        digest=digest_of(text),
        scopes=frozenset(scopes),
        limits=limits,
        priority=priority,
        created_at=round(time.time(), 3),
    )
    return text, key


def prefix_of(text: str) -> str:
    """The part of a key that is no secret."""
    return text[:PREFIX_LENGTH]


def digest_of(text: str) -> bytes:
    """What is stored instead of the text."""
    # Header bytes that are not UTF-8 arrive as surrogates, which no key contains.
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()
