"""Headers that tell a client how much is left of the limits of its key.

They are made when the headers of a response are sent: of a stream before its first event, of a
whole response after its last token. Their names are OpenAI's; on the Messages API, Anthropic's as
well. A key without a limit gets no headers about it.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from gateway.keys.limits import Standing, Standings


def rate_headers(standings: Standings, *, messages: bool = False) -> dict[str, str]:
    """The headers.

    :param messages: whether the request is one of the Messages API.
    """
    headers: dict[str, str] = {}
    for what, standing in (("requests", standings.requests), ("tokens", standings.tokens)):
        if standing is None:
            continue
        headers |= {
            f"x-ratelimit-limit-{what}": str(standing.limit),
            f"x-ratelimit-remaining-{what}": str(standing.remaining),
            f"x-ratelimit-reset-{what}": _duration(standing),
        }
        if messages:
            headers |= {
                f"anthropic-ratelimit-{what}-limit": str(standing.limit),
                f"anthropic-ratelimit-{what}-remaining": str(standing.remaining),
                f"anthropic-ratelimit-{what}-reset": _time(standing),
            }
    return headers


def _duration(standing: Standing) -> str:
    """In OpenAI's form: "0s", "59s", "1m0s", "5h12m7s"."""
    minutes, seconds = divmod(math.ceil(standing.reset_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _time(standing: Standing) -> str:
    """The time of the reset (RFC 3339)."""
    at = datetime.fromtimestamp(math.ceil(time.time() + standing.reset_s), UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
