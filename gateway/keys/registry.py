"""Which API keys there are, and to whom a text belongs that a client sent as one.

Two kinds of keys: those of ``server.api_keys`` may do everything without limits; those of the store
have scopes and limits. As soon as there is a key of either kind, a key is asked for.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.keys.making import digest_of, prefix_of
from gateway.store import SCOPES, Scope, StoredKey

_NO_DIGEST = bytes(32)  # of no key: is compared where there is none to compare
_ALL = frozenset(SCOPES)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    owner: str  # of what it makes: empty without keys, else fixed for a key
    scopes: frozenset[Scope]
    key: StoredKey | None = None  # with limits

    def may(self, scope: Scope) -> bool:
        """Whether it has a scope; ``admin`` includes ``operations``."""
        return scope in self.scopes or (scope == "operations" and "admin" in self.scopes)


ANYBODY = Caller("", _ALL)  # without keys


class Registry:
    """The keys that are valid now.

    :param plain: those of ``server.api_keys``.
    """

    def __init__(self, plain: Sequence[str]) -> None:
        self.stored = False  # whether a key was ever stored
        self._plain = [key.encode() for key in plain]
        self._owners = {_fingerprint(key) for key in self._plain}
        self._by_id: dict[str, StoredKey] = {}
        self._by_prefix: dict[str, list[StoredKey]] = {}

    @property
    def asked_for(self) -> bool:
        """Whether clients have to send a key."""
        return bool(self._plain) or self.stored

    @property
    def keys(self) -> Iterable[StoredKey]:
        """The stored keys."""
        return self._by_id.values()

    def set_stored(self, keys: Iterable[StoredKey], *, any_ever: bool) -> None:
        """Take these keys of the store, and no others.

        :param any_ever: whether the store has keys, which may all be revoked.
        """
        self.stored = any_ever
        self._by_id = {key.key_id: key for key in keys}
        self._by_prefix = {}
        for key in self._by_id.values():
            self._by_prefix.setdefault(key.prefix, []).append(key)

    def find(self, text: str) -> Caller | None:
        """The caller with this key; None: it is no key.

        The time does not depend on how much of a key the text has in common with one. Its
        beginning, by which stored keys are looked up, is no secret.
        """
        offered = text.encode(errors="surrogateescape")
        plain = [key for key in self._plain if hmac.compare_digest(key, offered)]
        digest = digest_of(text)
        found = None
        for key in self._by_prefix.get(prefix_of(text), ()):
            if hmac.compare_digest(key.digest, digest):
                found = key
        hmac.compare_digest(_NO_DIGEST, digest)
        if plain:
            return Caller(_fingerprint(plain[0]), _ALL)
        return None if found is None else Caller(found.key_id, found.scopes, found)

    def key_of(self, owner: str) -> StoredKey | None:
        """The stored key of an owner; None: it has none, or none any longer."""
        return self._by_id.get(owner)

    def is_valid(self, owner: str) -> bool:
        """Whether an owner's key may still be used."""
        return owner in self._by_id or owner in self._owners or not self.asked_for


def _fingerprint(key: bytes) -> str:
    """The owner of what a key of ``server.api_keys`` makes."""
    return hashlib.sha256(key).hexdigest()[:16]
