"""The phase in which a request begins: as the worker says, or as the prompt of a stock server ends.

Must not know what a phase means for scheduling.
"""

from __future__ import annotations

from vllm.v1.request import Request

from workers.policy.phase import Markers, Phase, PhaseTracker
from workers.scheduler.request_facts import RequestFacts

# A chat template that opens or closes the thoughts itself ends the prompt with the marker and at
# most two tokens of white space. A marker further back may be the user's text.
_PROMPT_SPACE = 2


def tracker_of(
    request: Request, facts: RequestFacts | None, markers: Markers | None
) -> PhaseTracker:
    """Follows a new request.

    :param markers: of the model.
    """
    if facts is None:
        return PhaseTracker(markers, _phase_of_prompt(request, markers))
    if markers is not None and not facts.calls:
        markers = markers.without_calls
    known = facts.known_tokens
    before = (request.prompt_token_ids or [])[-known:] if known > 0 else []
    return PhaseTracker(markers, Phase(facts.phase), before)


def _phase_of_prompt(request: Request, markers: Markers | None) -> Phase:
    if markers is None or not markers.thinks or request.sampling_params is None:
        return Phase.ANSWERING
    tail = (request.prompt_token_ids or [])[-markers.longest - _PROMPT_SPACE :]
    return markers.phase_after(tail) or Phase.REASONING
