"""Requests that leave one scheduler, to go on in another engine.

Decides when a request that is to leave ends here: as soon as no step in flight contains it. By then
every sampled token has been delivered, and its KV is complete except for the last token. Until then
it takes part in no new step.

It ends with an ordinary engine output, behind all its tokens. The output carries a ticket for its
KV, unless the request waits, is loading or has not finished its prompt: that little KV is not worth
a read.

Must not know where requests go.
"""

from __future__ import annotations

from typing import Any

import msgspec
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.request import Request, RequestStatus

from workers.kv.migration import MigrationScheduler
from workers.messages import Ticket

HANDED_OVER = "handed_over"  # stop reason of the output that ends such a request
_TICKET_KEY = "ticket"  # in its kv_transfer_params


def ticket_of(kv_transfer_params: dict[str, Any] | None) -> Ticket | None:
    """The ticket in the output of a request that was handed over."""
    if not kv_transfer_params or _TICKET_KEY not in kv_transfer_params:
        return None
    return Ticket(**kv_transfer_params[_TICKET_KEY])


class HandOver:
    """The requests of one scheduler that are about to leave."""

    def __init__(self, scheduler: Scheduler, migration: MigrationScheduler | None) -> None:
        """:param migration: None if KV cannot move: requests leave without a ticket."""
        self._scheduler = scheduler
        self._migration = migration
        self._leaving: set[str] = set()
        self._last: list[tuple[int, EngineCoreOutput]] = []  # by client; not yet sent

    def __bool__(self) -> bool:
        return bool(self._leaving or self._last)

    def begin(self, request_id: str) -> None:
        """Let a request leave as soon as it can; unknown and finished ones are ignored."""
        self._leaving.add(request_id)
        self._end_ready()

    def before_step(self) -> None:
        """Keep leaving requests out of the next step."""
        self._end_ready()
        for request_id in self._leaving:
            request = self._scheduler.requests[request_id]
            request.next_decode_eligible_step = self._scheduler.current_step + 2

    def after_step(self, outputs: dict[int, EngineCoreOutputs]) -> None:
        """Add the last output of those who have left."""
        self._end_ready()
        for client, last in self._last:
            outputs.setdefault(client, EngineCoreOutputs()).outputs.append(last)
        self._last.clear()

    def _end_ready(self) -> None:
        requests = self._scheduler.requests
        for request_id in list(self._leaving):
            request = requests.get(request_id)
            if request is None or request.is_finished():
                self._leaving.remove(request_id)  # it ended by itself, or was cancelled
            elif not request.num_in_flight_tokens:
                self._leaving.remove(request_id)
                self._end(request)

    def _end(self, request: Request) -> None:
        migration = self._migration
        if migration is not None and _has_kv(request):
            migration.leave(request)
        self._scheduler.finish_requests(request.request_id, RequestStatus.FINISHED_STOPPED)
        ticket = None if migration is None else migration.take_ticket(request.request_id)
        output = EngineCoreOutput(
            request_id=request.request_id,
            new_token_ids=[],
            finish_reason=FinishReason.STOP,
            stop_reason=HANDED_OVER,
            kv_transfer_params=ticket and {_TICKET_KEY: msgspec.structs.asdict(ticket)},
        )
        self._last.append((request.client_index, output))


def _has_kv(request: Request) -> bool:
    """Whether all its tokens have their KV here, but for the last one that was sampled."""
    running: bool = request.status == RequestStatus.RUNNING
    return running and request.num_computed_tokens == request.num_tokens - 1
