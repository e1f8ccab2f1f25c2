"""A reader of a response's events, without a client."""

from __future__ import annotations


class Reader:
    """Notes what it is called for."""

    def __init__(self, *, wants_events: bool = True) -> None:
        self.wants_events = wants_events
        self.taken: list[int] = []
        self.data: list[bytes] = []
        self.grew = 0
        self.ended = False
        self.error: Exception | None = None

    def take(self, sequence: int, type_: str, data: bytes) -> None:
        self.taken.append(sequence)
        self.data.append(data)

    def text_grew(self) -> None:
        self.grew += 1

    def log_ended(self) -> None:
        self.ended = True

    def fail(self, error: Exception) -> None:
        self.error = error
