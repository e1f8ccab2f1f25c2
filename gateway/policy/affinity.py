"""What clients say that their requests have in common, and where the last of them ran.

Some clients name their session in a header, or with ``prompt_cache_key``. It is a weaker hint than
a prefix that an instance is known to hold (`gateway.policy.prefixes`): a session may go on with
another prompt. It helps where no prefix is known, for example after a client has replaced its
conversation by a summary: system prompt and tools are then still the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

LONGEST_KEY = 512  # characters
_MOST_PLACES = 16_384
# The first of these headers that has a usable value counts.
HEADERS = (
    "x-claude-code-session-id",
    "x-session-affinity",
    "session-id",
    "session_id",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the last request with a key ran."""

    instance_id: str
    tokens: int  # of its prompt


class LastPlaces:
    """The place of each key; those that were not used for longest are forgotten first."""

    def __init__(self, most: int = _MOST_PLACES) -> None:
        self._most = most
        self._places: dict[int, Place] = {}

    def note(self, key: int | None, instance_id: str, tokens: int) -> None:
        """An instance has taken a request with this key, whose prompt has so many tokens."""
        if key is None:
            return
        self._places.pop(key, None)
        self._places[key] = Place(instance_id, tokens)
        if len(self._places) > self._most:
            del self._places[next(iter(self._places))]

    def find(self, key: int | None) -> Place | None:
        """Where the last request with this key ran; None if that is not known."""
        return None if key is None else self._places.get(key)

    def lose(self, instance_id: str) -> None:
        """An instance is gone, and its KV with it."""
        kept = {k: place for k, place in self._places.items() if place.instance_id != instance_id}
        self._places = kept


def usable(text: str) -> bool:
    """Whether a text can be a key: 1 to `LONGEST_KEY` characters, all printable."""
    return 0 < len(text) <= LONGEST_KEY and text.isprintable()


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key that the headers of a request name; values that cannot be one are ignored."""
    texts = (headers.get(name, "").strip() for name in HEADERS)
    return next(filter(usable, texts), None)


def key_of(owner: str, text: str | None) -> int | None:
    """The number of a key; keys of different owners have nothing in common.

    :return: below 2^63; None without a key.
    """
    if not text:
        return None
    digest = blake2b(f"{owner}\0{text}".encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
