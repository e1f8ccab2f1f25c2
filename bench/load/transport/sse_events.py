"""Server-sent events, the client's side (WHATWG HTML, section 9.2): from bytes to events.

Pure. It keeps what of an event has not arrived yet, and must not know what events mean. Lines end
with LF or CRLF; a bare CR, which the standard allows and nobody sends, does not end one.
"""

from __future__ import annotations

from collections.abc import Iterator


class EventParser:
    """Give it what arrives with `feed`; it returns the events that are complete."""

    def __init__(self) -> None:
        self._rest = b""  # a line that is not complete
        self._data: list[bytes] = []  # of an event that is not complete
        self._event = ""

    @property
    def clean(self) -> bool:
        """Whether the stream may end here: nothing of an event is left over."""
        return not self._rest and not self._data

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """Name (empty: none was given) and data of every event that ends in ``chunk``."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line:
                if self._data:  # comments and retry hints alone are no event
                    yield self._event, b"\n".join(self._data)
                    self._data.clear()
                self._event = ""
            elif line.startswith(b"event:"):
                self._event = line[6:].removeprefix(b" ").decode(errors="replace")
