"""The target's end of KV migration: the part of the connector that runs beside the model.

Decides when blocks may be read: after the source has granted the claim. Decides whether they may be
used: if they arrived while the source still held the memory. Calls that wait for another engine run
in the thread of vLLM's handshakes. See `workers.kv.migration`.
"""

from __future__ import annotations

from workers.kv import nixl  # noqa: F401  # first: it decides what vLLM's connector sees

# isort: split
import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import zip_longest
from typing import Any

import structlog
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.utils import BlockIds
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorTransferResults
from vllm.distributed.kv_transfer.kv_connector.v1.nixl import NixlPullConnectorWorker
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata import (
    NixlConnectorMetadata,
    ReqMeta,
)
from vllm.distributed.nixl_utils import NixlWrapper, nixl_agent_config
from vllm.platforms import current_platform
from vllm.v1.kv_cache_interface import KVCacheConfig

from workers.kv.claims import ClaimClient
from workers.messages import Endpoint

_log = structlog.get_logger()


class MigrationMetadata(NixlConnectorMetadata):
    """Messages of one step from the scheduler's side to the worker's."""

    def __init__(self) -> None:
        super().__init__()
        self.released: set[str] = set()  # tickets whose memory no engine will read


class MigrationWorker(NixlPullConnectorWorker):
    """Reads blocks of other engines for this one."""

    def __init__(
        self, vllm_config: VllmConfig, engine_id: str, kv_cache_config: KVCacheConfig
    ) -> None:
        """Set up NIXL; no other engine is connected yet."""
        cores = os.sched_getaffinity(0)
        super().__init__(vllm_config, engine_id, kv_cache_config)
        # On a CPU vLLM moves this thread, which computes, to the last core: all engines to one.
        os.sched_setaffinity(0, cores)
        if current_platform.is_cpu():
            # Nor has a CPU engine a core to spare for NIXL's own thread, which never sleeps: on
            # the host itself a read needs none, else each engine step carries it on.
            config = nixl_agent_config(enable_prog_thread=False, capture_telemetry=True)
            self.nixl_wrapper = NixlWrapper(str(uuid.uuid4()), config)
        self._until: dict[str, float] = {}  # granted claims, by request: when the memory goes
        self._claims = ClaimClient()  # used by the other thread
        self._meetings: dict[str, Future[Any]] = {}  # by engine: the greeting, then the handshake
        self._done_sending: set[str] = set()

    # ---- meeting other engines

    def meet(self, peer: Endpoint) -> str | None:
        """Connect to another engine; ask again until it is known.

        :return: None: not known yet; "": its KV can be read; else why not.
        """
        try:
            return self._meet(peer)
        except Exception as error:  # noqa: BLE001 (a peer that dies must not take this engine along)
            self._meetings.pop(peer.engine_id, None)
            return f"{type(error).__name__}: {error}"

    def _meet(self, peer: Endpoint) -> str | None:
        meeting = self._meetings.get(peer.engine_id)
        if meeting is None:
            if peer.engine_id in self._remote_agents or peer.engine_id == self.engine_id:
                return ""
            # A greeting comes first: a handshake with a host that does not answer waits long.
            greet = partial(self._claims.greet, peer.host, peer.port)
            self._meetings[peer.engine_id] = self._in_background(greet)
            return None
        if not meeting.done():
            return None
        if (error := meeting.exception()) is not None:
            del self._meetings[peer.engine_id]
            return f"{type(error).__name__}: {error}"
        handshake = self._ensure_handshake(peer.engine_id, peer.host, peer.port, self.world_size)
        if handshake is not None:
            self._meetings[peer.engine_id] = handshake
            return None
        del self._meetings[peer.engine_id]
        for agent in self._remote_agents[peer.engine_id].values():
            self.nixl_wrapper.make_connection(agent)
        return ""

    # ---- claims

    def _read_blocks_for_req(self, req_id: str, meta: ReqMeta) -> None:
        """Claim the ticket first; a granted one comes here again, and its blocks are read."""
        assert meta.remote is not None
        if req_id in self._until:
            try:
                super()._read_blocks_for_req(req_id, meta)
            except Exception as error:  # noqa: BLE001 (this request computes its KV, as others go on)
                self._log_failure("read_not_begun", req_id, error=error, meta=meta)
                self._handle_failed_transfer(req_id, None, self._recv_failures)
                return
            if not meta.awaiting_kvs and meta.remote.engine_id in self._remote_agents:
                del self._until[req_id]  # no block is missing; vLLM has notified the source
            return
        theirs, ours = meta.remote.block_ids, meta.local_block_ids
        if ours and not _fits(ours, theirs):
            self._log_failure("ticket_does_not_fit", req_id, meta=meta)
            self._failed_recv_reqs.put(req_id)
            return
        remote = meta.remote
        reader = f"{self.engine_id} {req_id}"
        claim = self._in_background(
            partial(self._claims.claim, remote.host, remote.port, remote.request_id, reader)
        )
        claim.add_done_callback(partial(self._claimed, req_id, meta))

    def _claimed(self, req_id: str, meta: ReqMeta, claim: Future[float | None]) -> None:
        error = claim.exception()
        until = None if error else claim.result()
        if until is None:
            _log.warning(
                "ticket_refused",
                engine_id=meta.remote.engine_id if meta.remote else None,
                reason=str(error) if error else "used, expired or unknown",
            )
            self._failed_recv_reqs.put(req_id)
        else:
            self._until[req_id] = until
            self._ready_requests.put((req_id, meta))

    def _in_background(self, work: Callable[[], Any]) -> Future[Any]:
        return self._handshake_initiation_executor.submit(work)

    def _get_new_notifs(self) -> set[str]:
        """Tickets that were used; a malformed message is dropped."""
        try:
            used: set[str] = super()._get_new_notifs()
        except Exception as error:  # noqa: BLE001 (from any engine; what is lost expires)
            _log.warning("peer_message_refused", reason=f"{type(error).__name__}: {error}")
            return set()
        return used

    # ---- what has arrived

    def start_load_kv(self, metadata: NixlConnectorMetadata) -> None:
        """Also free the memory of released tickets."""
        super().start_load_kv(metadata)
        assert isinstance(metadata, MigrationMetadata)
        for ticket in metadata.released & self._reqs_to_send.keys():
            self._reqs_to_process.discard(ticket)
            del self._reqs_to_send[ticket]
            self._done_sending.add(ticket)

    def get_transfer_results(self) -> KVConnectorTransferResults:
        """Also report the released tickets."""
        results = super().get_transfer_results()
        results.finished_sending |= self._done_sending
        self._done_sending = set()
        for req_id in results.finished_recving:
            self._until.pop(req_id, None)
        return results

    def _pop_done_transfers(self, transfers: dict[str, list[int]]) -> tuple[set[str], set[str]]:
        """Transfers that have ended; one that ended after its memory was freed has failed."""
        done, failed = super()._pop_done_transfers(transfers)
        now = time.monotonic()
        for req_id in done:
            if now >= self._until[req_id]:
                self._log_failure("read_too_late", req_id)
                failed.add(req_id)
        return done, failed


def _fits(ours: BlockIds, theirs: BlockIds) -> bool:
    """Whether every block to fill has one to read: vLLM asserts it, and the engine would die."""
    groups = zip_longest(ours, theirs, fillvalue=())
    return all(len(our) <= len(their) for our, their in groups)
