"""KV that changes instances in virtual time: the held blocks, their claims, and the network.

The connector here is the scheduler's side of a KV connector, for vLLM's own scheduler. A request
that leaves keeps its blocks until they have been read. A request that arrives with a `Held` claims
those blocks as tokens that are computed already.

Only the copy is modelled. Each instance has one link to the network, which its transfers in both
directions share, in the order in which they begin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from vllm.config import KVTransferConfig
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.request import Request

from bench.simulator.request import Live
from workers.kv.offload import ResumeConnector

HELD_S = 10.0  # after that the memory is given back, read or not


@dataclass(slots=True)
class Held:
    """KV of a request that has left, in the memory of its old instance."""

    source: str  # name of the instance
    request_id: str
    tokens: int
    until_s: float
    release: Callable[[str], None]  # by the id of the request
    claimed: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """A request on its way between two instances, until its first token on the second."""

    request: Live
    source_id: str
    target_id: str
    generated: int  # tokens when it left
    kv_blocks: int
    boundary_s: float
    held: Held  # its KV, at the source
    leaving: ClassVar[bool] = False  # in virtual time a hand-over takes no time


class Network:
    """One link for each instance, to a switch that is never the bottleneck."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_s: dict[str, float] = {}
        self.taken_s: list[float] = []  # duration of each transfer, with its wait for the links

    def transfer(self, source: str, target: str, size: int, now: float) -> float:
        """Begin a transfer as soon as both links are free; return when it ends."""
        free_s = self._free_at_s
        begin_s = max(now, free_s.get(source, 0.0), free_s.get(target, 0.0))
        free_s[source] = free_s[target] = begin_s + size / self._bytes_per_s
        self.taken_s.append(free_s[source] - now)
        return free_s[source]


class SimulatedConnector(ResumeConnector):
    """The plugin's offloading connector, for requests that also come and go with their KV."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.leaving: set[str] = set()
        self.arriving: dict[str, Held] = {}
        self.claims: list[tuple[str, Held, int]] = []  # since they were last taken; tokens
        self.now: Callable[[], float]

    def get_num_new_matched_tokens(
        self, request: Request, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """Tokens of KV that another instance holds for the request, else those in host memory."""
        held = self.arriving.get(request.request_id)
        if held is not None and self.now() < held.until_s:
            tokens = held.tokens - num_computed_tokens
            if tokens > 0:
                return tokens, True
        return super().get_num_new_matched_tokens(request, num_computed_tokens)

    def update_state_after_alloc(
        self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int
    ) -> None:
        """The request has memory now, so its held KV can be transferred."""
        held = self.arriving.pop(request.request_id, None)
        if held is not None:
            if num_external_tokens and self.now() < held.until_s:
                held.claimed = True
                self.claims.append((request.request_id, held, num_external_tokens))
                return
            held.release(held.request_id)
        super().update_state_after_alloc(request, blocks, num_external_tokens)

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Keep the blocks of a request that leaves until they have been read."""
        delay, params = super().request_finished_all_groups(request, block_ids)
        if request.request_id in self.leaving:
            self.leaving.discard(request.request_id)
            return True, params
        return delay, params


def with_migration(config: KVTransferConfig) -> KVTransferConfig:
    """The offloading connector's configuration, for the connector above."""
    config.kv_connector = SimulatedConnector.__name__
    config.kv_connector_module_path = __name__
    return config
