"""What the scheduler is told about a request besides vLLM's own parameters.

In a stock server anybody can write it, and what raises in the scheduler ends the engine: facts that
are wrong count as none.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import structlog

from workers.messages import Pace, PhaseName

_log = structlog.get_logger()


class RequestFacts(msgspec.Struct):
    """As `workers.engine.sampling` writes them, as far as the scheduler reads them."""

    phase: PhaseName  # of the first token to generate
    request_id: str  # the worker's own
    pace: Pace
    user: str | None = None
    calls: bool = True  # False: it may call nothing, so what would open a call is text
    known_tokens: int = 0  # at the end of the prompt: output that exists already
    # Of the first token of the output, for requests with a structure; None: vLLM finds it out.
    began: Literal["reasoning", "answering"] | None = None


def facts_of(value: object) -> RequestFacts | None:
    """The facts; None if there are none, or wrong ones."""
    if value is None:
        return None
    try:
        facts = msgspec.convert(value, RequestFacts)
        if not facts.pace.possible:
            raise msgspec.ValidationError("tau_s must be above 0 - at `$.pace.tau_s`")
    except msgspec.ValidationError as error:
        _log.warning("request_facts_ignored", reason=str(error))
        return None
    return facts
