"""Baselines: two published schedulers for streamed text, in the terms of this project's policies.

Both know that a reader has buffered tokens. Neither knows phases. These are their rules for which
request to serve, not their code: the rules see the same views as all policies, and have the same
memory and the same ways to resume. A request that thinks or calls gives its reader nothing, so for
both its next token is due. As in the originals, age does not count: a request whose reader has
paused comes last.

    andes      "Andes: Defining and Enhancing Quality-of-Experience in LLM-Based Text Streaming
               Services" (arXiv 2404.16283): a knapsack. Serving a request for a while is worth
               the QoE that it gains, and weighs the request's KV. Greedy: most gain per block
               first
    tokenflow  "TokenFlow: Responsive LLM Text Streaming Serving under Request Burst via Preemptive
               Scheduling" (arXiv 2510.02758): the emptiest buffer first. A request makes
               room if its buffer lasts until it could be back
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from workers.policy.make_room import make_room
from workers.policy.settings import PolicySettings
from workers.policy.view import Decision, Memory, RequestView, has_reader, slack_s


def andes(
    settings: PolicySettings, requests: Sequence[RequestView], memory: Memory, now: float
) -> Decision:
    """Most gain per block first; preempts up to an average number of preemptions per request."""
    worth = {
        r.request_id: _gain_s(settings, r, now) / max(1, r.blocks_held, r.blocks_needed)
        for r in requests
    }
    spent = sum(r.preemptions for r in requests)
    may_preempt = spent < settings.preemptions_per_request * len(requests)

    def displaces(waiting: RequestView, running: RequestView) -> bool:
        return may_preempt and worth[waiting.request_id] > worth[running.request_id]

    order = sorted(requests, key=lambda r: (-worth[r.request_id], not r.running, r.arrival))
    preempt, admit = make_room(settings, order, memory, displaces)
    return Decision(tuple(r.request_id for r in order), preempt, admit)


def tokenflow(
    settings: PolicySettings, requests: Sequence[RequestView], memory: Memory, now: float
) -> Decision:
    """The emptiest buffer first; only full buffers make room, and only for an empty one."""
    buffered = {r.request_id: _buffered_s(r, now) for r in requests}

    def displaces(waiting: RequestView, running: RequestView) -> bool:
        if buffered[waiting.request_id] > settings.low_water_s:
            return False
        return bool(buffered[running.request_id]) and slack_s(running, now) >= settings.high_water_s

    order = sorted(requests, key=lambda r: (buffered[r.request_id], not r.running, r.arrival))
    preempt, admit = make_room(settings, order, memory, displaces)
    return Decision(tuple(r.request_id for r in order), preempt, admit)


def _gain_s(settings: PolicySettings, request: RequestView, now: float) -> float:
    """Seconds of waiting, within the horizon, that serving the request now spares its reader.

    A loss of QoE is an area; these seconds are its base.
    """
    comes_at = now if request.running else now + request.resume_s
    lacks_at = math.inf if request.dry_at is None else request.dry_at
    if not has_reader(request):
        lacks_at = now
    return max(0.0, now + settings.qoe_horizon_s - max(comes_at, lacks_at))


def _buffered_s(request: RequestView, now: float) -> float:
    """Seconds for which the reader has tokens."""
    if not has_reader(request):
        return 0.0
    return math.inf if request.dry_at is None else max(0.0, request.dry_at - now)
