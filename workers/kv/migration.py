"""KV that follows its request to another engine: vLLM's NIXL connector, made safe in mid-decode.

The source (`workers.scheduler.hand_over`) keeps the KV blocks of a request that leaves, and gives a
ticket. The target reads the blocks out of that memory. vLLM's connector is made for requests that
leave after their prompt. This module adds or replaces:

    MigrationScheduler  Gives tickets only to requests that leave. Claims no KV for the last sampled
                        token, which has none yet. Recognizes a ticket of its own engine.
    MigrationWorker     Reads nothing before the source has granted the claim. Throws away KV that
                        arrives when the memory is no longer held (see `workers.kv.tickets`).
    MigrationConnector  Both of them, under the name by which vLLM loads them.

When anything goes wrong, the request computes its KV: `kv_load_failure_policy` is "recompute".

Must not know why a request leaves or where it goes.
"""

from __future__ import annotations

from workers.kv import nixl  # first: it decides what vLLM's connector sees

# isort: split
import time
import uuid
from collections.abc import Iterable
from threading import Event
from typing import Any

import msgspec
import structlog
from vllm.config import KVTransferConfig, VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1 import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.nixl import (
    NixlPullConnector,
    NixlPullConnectorScheduler,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector import NixlBaseConnector
from vllm.platforms import current_platform
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.outputs import KVConnectorOutput
from vllm.v1.request import Request

from workers.kv.claims import ClaimDesk
from workers.kv.connectors import may_move
from workers.kv.pull import MigrationMetadata, MigrationWorker
from workers.kv.tickets import TicketBook, TicketData, decode, encode
from workers.messages import Endpoint, MigrationStats, Ticket

_log = structlog.get_logger()

_HOST_KEY = "side_channel_host"  # in kv_connector_extra_config
_KV_TOKENS_KEY = "kv_tokens"  # in the kv_transfer_params of an output


def available() -> bool:
    """Whether the NIXL library is installed and can be loaded."""
    return nixl.PROBLEM is None


def kv_transfer_config(host: str, held_s: float) -> KVTransferConfig:
    """Settings with which KV can move between this engine and others.

    :param host: address of this machine under which the other engines reach it.
    :param held_s: seconds for which the KV of a request that left is held.
    """
    return KVTransferConfig(
        kv_connector=MigrationConnector.__name__,
        kv_connector_module_path=__name__,
        kv_role="kv_both",
        engine_id=str(uuid.uuid4()),  # so that tickets of an earlier process do not fit
        kv_buffer_device="cpu" if current_platform.is_cpu() else "cuda",
        kv_load_failure_policy="recompute",
        # No threads of NIXL's own per transfer: reads are few, and CPU engines have one core.
        kv_connector_extra_config={
            _HOST_KEY: host,
            "num_threads": 0,
            "kv_lease_duration": held_s,
        },
    )


def pull_params(ticket: Ticket) -> dict[str, Any] | None:
    """The ticket as a request carries it into vLLM; None if it cannot be read."""
    try:
        data = decode(ticket.data)
    except msgspec.MsgspecError as error:
        _log.warning("ticket_unreadable", reason=str(error))
        return None
    return {
        "do_remote_prefill": True,
        "remote_engine_id": ticket.engine_id,
        "remote_request_id": data.request_id,
        "remote_host": data.host,
        "remote_port": data.port,
        "remote_block_ids": data.block_ids,
        "remote_num_tokens": ticket.tokens,
        "tp_size": data.tp_size,
        "block_size": data.block_size,
        "valid_s": ticket.valid_s,
    }


def kv_tokens_of(kv_transfer_params: dict[str, Any] | None) -> int | None:
    """Tokens whose KV a ticket brought; None if this output says nothing about a ticket."""
    return None if not kv_transfer_params else kv_transfer_params.get(_KV_TOKENS_KEY)


class MigrationScheduler(NixlPullConnectorScheduler):
    """The scheduler's side. The side channel answers in a thread of its own."""

    def __init__(
        self, vllm_config: VllmConfig, engine_id: str, kv_cache_config: KVCacheConfig
    ) -> None:
        """:raises OSError: if there is no port for the side channel."""
        super().__init__(vllm_config, engine_id, kv_cache_config)
        transfer = vllm_config.kv_transfer_config
        assert transfer is not None
        self.side_channel_host = transfer.kv_connector_extra_config[_HOST_KEY]
        self.book = TicketBook(self._kv_lease_duration)
        self._movable = may_move(kv_cache_config)
        self._desk = ClaimDesk(self.side_channel_host, self.book)
        self.side_channel_port = self._desk.port
        self._tickets: dict[str, Ticket] = {}  # made and not yet taken
        self._released: set[str] = set()
        self._reading: dict[str, tuple[float, int]] = {}  # requests: since when, how many tokens
        # Requests whose ticket was used or found of no use, until their first tokens say so: how
        # many tokens have their KV by it.
        self._settled: dict[str, int] = {}
        self._read_requests = 0
        self._read_s = 0.0
        self._failed = 0

    # ---- what the project's scheduler asks

    def endpoint(self) -> Endpoint:
        """Where other engines ask for this one's KV."""
        return Endpoint(
            engine_id=self.engine_id, host=self.side_channel_host, port=self.side_channel_port
        )

    def stats(self) -> MigrationStats:
        """Sums since the engine started."""
        return MigrationStats(
            held_blocks=self.book.blocks,
            tickets_total=self.book.given,
            expired_total=self.book.expired,
            read_requests_total=self._read_requests,
            read_s_total=self._read_s,
            failed_total=self._failed,
        )

    def leave(self, request: Request) -> None:
        """When the request is finished, as it is about to be, it leaves its KV behind.

        Not where a request has other memory than a block for every so many tokens.
        """
        if self._movable and not self._is_hma_required:
            request.kv_transfer_params = {"do_remote_decode": True}

    def take_ticket(self, request_id: str) -> Ticket | None:
        """The ticket of a request that has left; None if there is nothing to read."""
        return self._tickets.pop(request_id, None)

    def tell_settled(self, outputs: Iterable[EngineCoreOutput]) -> None:
        """Add what became of its ticket to the first tokens of each request that had one."""
        if not self._settled:
            return
        for output in outputs:
            if output.new_token_ids:
                kv_tokens = self._settled.pop(output.request_id, None)
                if kv_tokens is not None:
                    output.kv_transfer_params = {_KV_TOKENS_KEY: kv_tokens}

    def forget(self, request_id: str) -> None:
        """A request has ended."""
        self._settled.pop(request_id, None)

    # ---- vLLM's override points

    def on_new_request(self, request: Request) -> None:
        """Begin to count a ticket's time. Its memory is not kept alive by heartbeats."""
        params = request.kv_transfer_params
        if params and params.get("do_remote_prefill"):
            params["deadline"] = time.monotonic() + params["valid_s"]

    def get_num_new_matched_tokens(
        self, request: Request, num_computed_tokens: int
    ) -> tuple[int, bool]:
        """Claim the KV that is there and that this engine has not got."""
        params = request.kv_transfer_params
        if not params or not params.get("do_remote_prefill") or self._is_own(params):
            return 0, False
        if (
            not self._movable
            or time.monotonic() > params["deadline"]
            or params["block_size"] != self.block_size
        ):
            params["do_remote_prefill"] = False
            self._failed += 1
            self._settled[request.request_id] = 0
            return 0, False
        missing = self._readable(request) - num_computed_tokens
        return (missing, True) if missing > 0 else (0, False)

    def update_state_after_alloc(
        self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int
    ) -> None:
        """Use the ticket, or give back what it holds if nothing is missing here."""
        params = request.kv_transfer_params
        if not params or not params.get("do_remote_prefill"):
            return
        if self._is_own(params):
            # It came back: the prefix cache has found its full blocks.
            self._release(params)
            return
        # vLLM pairs the blocks of the two engines from the end: the lists must end alike.
        count = -(-self._readable(request) // self.block_size)
        params["remote_block_ids"] = [list(ids[:count]) for ids in params["remote_block_ids"]]
        # Until it is known to be otherwise: what the prefix cache has is as good as read.
        self._settled[request.request_id] = self._readable(request)
        if num_external_tokens:
            self._reading[request.request_id] = (time.monotonic(), num_external_tokens)
        super().update_state_after_alloc(request, blocks, num_external_tokens)

    def request_finished(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Hold the blocks of a request that leaves."""
        params = request.kv_transfer_params
        if params and params.get("do_remote_prefill") and self._is_own(params):
            self._release(params)
        held, ticket = super().request_finished(request, block_ids)
        if not held:
            return held, ticket
        assert ticket is not None
        request_id = request.request_id
        self._reqs_in_batch.add(request_id)  # else the worker's side does not know it
        held_ids = ticket["remote_block_ids"]
        self.book.give(request_id, sum(map(len, held_ids)), self._reqs_need_send[request_id])
        data = TicketData(
            request_id=request_id,
            host=self.side_channel_host,
            port=self.side_channel_port,
            tp_size=self.transfer_tp_size,
            block_size=self.block_size,
            block_ids=tuple(map(tuple, held_ids)),
        )
        self._tickets[request_id] = Ticket(
            engine_id=self.engine_id,
            data=encode(data),
            tokens=ticket["remote_num_tokens"],
            valid_s=self.book.valid_s,
        )
        return True, None

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> MigrationMetadata:
        """Add the tickets that are released."""
        meta = MigrationMetadata()
        meta.__dict__ |= super().build_connector_meta(scheduler_output).__dict__
        meta.released, self._released = self._released, set()
        return meta

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        """Count what has arrived, and close tickets before their memory is freed."""
        super().update_connector_output(connector_output)
        for ticket in connector_output.finished_sending or ():
            self.book.close(ticket, time.perf_counter())
        failed = connector_output.failed_recving or ()
        for request_id in connector_output.finished_recving or ():
            since, tokens = self._reading.pop(request_id, (0.0, 0))
            if request_id in failed:
                self._failed += 1
                if request_id in self._settled:
                    self._settled[request_id] = 0
            elif tokens:
                self._read_requests += 1
                self._read_s += time.monotonic() - since

    def _nixl_handshake_listener(
        self, handshakes: dict[tuple[int, int], bytes], ready: Event, stop: Event, *_: Any
    ) -> None:
        """Runs in the thread that vLLM starts for its own one."""
        ready.set()
        self._desk.serve(handshakes, stop)

    def _release(self, params: dict[str, Any]) -> None:
        """Free what a ticket of this engine holds, unless another one is reading it."""
        params["do_remote_prefill"] = False
        ticket = params["remote_request_id"]
        if self.book.claim(ticket, self.engine_id, time.perf_counter()) is not None:
            self._released.add(ticket)

    def _is_own(self, params: dict[str, Any]) -> bool:
        return bool(params["remote_engine_id"] == self.engine_id)

    def _readable(self, request: Request) -> int:
        """Tokens of the request whose KV the ticket gives: all but the last sampled one."""
        assert request.kv_transfer_params is not None
        return min(int(request.num_prompt_tokens), request.kv_transfer_params["remote_num_tokens"])


class MigrationConnector(NixlPullConnector):
    """Loaded by vLLM; see the module."""

    def __init__(
        self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig
    ) -> None:
        """Make one of the two sides."""
        # Not the constructor in between: it makes vLLM's own sides.
        NixlBaseConnector.__init__(self, vllm_config, role, kv_cache_config)
        self.connector_scheduler: MigrationScheduler | None = None
        self.connector_worker: MigrationWorker | None = None
        if role is KVConnectorRole.SCHEDULER:
            self.connector_scheduler = MigrationScheduler(
                vllm_config, self.engine_id, kv_cache_config
            )
        else:
            self.connector_worker = MigrationWorker(vllm_config, self.engine_id, kv_cache_config)

    @property
    def requires_kv_delivery(self) -> bool:
        """No: a request that is preempted has not left, and one that leaves is not preempted."""
        return False
