"""Parser of server-sent events (WHATWG HTML, section 9.2): from bytes to events.

Pure. It keeps incomplete events until the rest arrives, and must not know what events mean. Lines
end with LF or CRLF. A bare CR does not end a line: the standard allows it, but no server uses it.
"""

from __future__ import annotations

from collections.abc import Iterator


class EventParser:
    """Pass bytes to `feed` as they arrive; it returns complete events."""

    def __init__(self) -> None:
        self._rest = b""  # an incomplete line
        self._data: list[bytes] = []  # of an incomplete event
        self._event = ""

    @property
    def clean(self) -> bool:
        """Whether the stream may end here, which it may not within an event."""
        return not self._rest and not self._data

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """Name (empty if there is none) and data of every event that ends in ``chunk``."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line:
                if self._data:  # comments and retry hints alone are not an event
                    yield self._event, b"\n".join(self._data)
                    self._data.clear()
                self._event = ""
            elif line.startswith(b"event:"):
                self._event = line[6:].removeprefix(b" ").decode(errors="replace")
