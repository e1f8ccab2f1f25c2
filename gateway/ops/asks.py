"""What a viewer may ask of the watch: one request to follow, and the worst behind one figure.

A viewer has at most one of each, so that what it costs is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.api.documents.frames import Figure, Follow
from gateway.api.documents.schemas import ASKS
from gateway.ops.life import details
from gateway.ops.watch import Seen, Watch
from gateway.schemas.bodies import parse_json_object
from gateway.schemas.errors import InvalidRequest, convert


@dataclass(slots=True)
class Asked:
    """What one viewer has asked for."""

    number: int | None = None
    figure: Figure | None = None
    fresh: bool = False  # the figure was asked for, and nothing was sent yet
    _seen: Seen | None = None  # the request of that number

    def take(self, text: str) -> None:
        """Take in a message.

        :raises InvalidRequest: it is not one of `ASKS`.
        """
        document = parse_json_object(text)
        type_ = document.get("type")
        if not isinstance(type_, str) or type_ not in ASKS:
            known = " or ".join(f"'{name}'" for name in ASKS)
            raise InvalidRequest(f"'type' must be {known}.", param="type")
        ask = convert(document, ASKS[type_])
        if isinstance(ask, Follow):
            self.number, self._seen = ask.number, None
        else:
            self.figure, self.fresh = ask.figure, ask.figure is not None

    def request(self, watch: Watch, now: float) -> dict[str, Any] | None:
        """The frame about the request that is followed; None if there is nothing to say.

        Of a request that has ended there is a last one, and one that says so if it is not known.
        """
        number = self.number
        if number is None:
            return None
        if self._seen is None:
            seen = (one for one in watch.seen.values() if one.number == number)
            self._seen = next(seen, None)
        one = self._seen
        if one is None:
            self.number = None
            return {"type": "unknown_request", "number": number}
        if watch.seen.get(one.session.response_id) is not one:
            self.number = self._seen = None
        frame = details(number, one.session, one.life, watch.names, now)
        return {"type": "request", **frame}
