"""The plugin's scheduler in virtual time, without work that only a model runner would read.

Decides nothing of its own. A test holds its results against those of one that skips nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.request import Request, RequestStatus

from workers.scheduler import PhaseScheduler


class Clock:
    """The time of a simulation, seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        """As `time.monotonic`."""
        return self.now


class SimulatedScheduler(PhaseScheduler):
    """The plugin on a clock of its own, without what only a model runner would read."""

    clock: Clock
    exact: bool

    def now(self) -> float:
        """Virtual seconds."""
        return self.clock.now

    def skip_needless_work(self) -> None:
        """Leave the KV-cache manager alone where a token goes into a block that is there.

        Not for the last slot of a block: then it enters the prefix cache.
        """
        manager, size = self.kv_cache_manager, self.block_size
        allocate, nothing = manager.allocate_slots, manager.empty_kv_cache_blocks

        def allocate_slots(request: Request, num_new_tokens: int, **kw: Any) -> Any:
            inside = 0 < request.num_computed_tokens % size < size - 1
            if inside and num_new_tokens == 1 and len(kw) == 1:  # of a running request
                return nothing
            return allocate(request, num_new_tokens, **kw)

        manager.allocate_slots = allocate_slots

    def _update_request_with_output(
        self, request: Request, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        """One token; scripted requests end by their length, and only full blocks are hashed."""
        if self.exact:
            result: tuple[list[int], bool] = super()._update_request_with_output(
                request, new_token_ids, is_stale
            )
            return result
        token = new_token_ids[0]
        request._output_token_ids.append(token)
        request._all_token_ids.append(token)
        if len(request._all_token_ids) % self.block_size == 0:
            request.update_block_hashes()
        if len(request._output_token_ids) < request.max_tokens:
            return new_token_ids, False
        request.status = RequestStatus.FINISHED_LENGTH_CAPPED
        return new_token_ids, True

    def _make_cached_request_data(
        self,
        running_reqs: list[Request],
        resumed_reqs: list[Request],
        num_scheduled_tokens: dict[str, int],
        spec_decode_tokens: dict[str, list[int]],
        req_to_new_blocks: dict[str, KVCacheBlocks],
    ) -> CachedRequestData:
        """Only of requests with new blocks, or with one that is full: no other has changed."""
        if not self.exact:
            nothing = self.kv_cache_manager.empty_kv_cache_blocks
            running_reqs = [
                request
                for request in running_reqs
                if req_to_new_blocks[request.request_id] is not nothing
                or self._fills(request, num_scheduled_tokens[request.request_id])
            ]
        return super()._make_cached_request_data(
            running_reqs, resumed_reqs, num_scheduled_tokens, spec_decode_tokens, req_to_new_blocks
        )

    def _build_kv_connector_meta(self, connector: Any, scheduler_output: SchedulerOutput) -> Any:
        """Only with requests that fill a block: no other has anything to store."""
        if not self.exact:
            filling = {
                request_id: tokens
                for request_id, tokens in scheduler_output.num_scheduled_tokens.items()
                if self._fills(self.requests[request_id], tokens)
            }
            scheduler_output = replace(scheduler_output, num_scheduled_tokens=filling)
        return super()._build_kv_connector_meta(connector, scheduler_output)

    def _fills(self, request: Request, tokens: int) -> bool:
        """Whether the step that is being scheduled completes a block of the request."""
        full: bool = request.num_computed_tokens % self.block_size + tokens >= self.block_size
        return full
