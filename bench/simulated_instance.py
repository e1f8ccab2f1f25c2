"""One instance in virtual time: vLLM's real scheduler and KV-cache manager on a modelled device.

The scheduler is the one that a worker runs, stepped by hand: `schedule`, a step whose duration
comes from a `DeviceProfile`, `update_from_output` with scripted tokens. KV offload is the real
connector's scheduler side and its worker's bookkeeping; only the copies are modelled. Left out is
the engine's own work between two steps.

Knows one instance, no cluster.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import (
    OffloadingConnectorMetadata,
)
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from bench.simulated_migration import HELD_S, Held, SimulatedConnector
from bench.simulated_parts import BOUNDARY_ID, WORD_ID, InstanceSettings, SchedulerFactory
from bench.simulated_scheduler import Clock
from bench.simulated_view import Move, view_of
from bench.timeline import SLO_QOE, TAU_S, Timeline
from gateway.instance import ViewRules
from gateway.placement import InstanceView
from pacer import RunningQoE

_NOTHING: list[int] = []

_DEFAULT_VIEW = ViewRules()


@dataclass(slots=True)
class InstanceTotals:
    """What one instance did."""

    steps: int = 0
    busy_s: float = 0.0
    stall_s: float = 0.0  # of it, waiting for stores before a preempted request's blocks are reused
    computed_tokens: int = 0  # of prompts, lost KV and outputs
    generated_tokens: int = 0
    recomputed_tokens: int = 0  # KV that preemptions had lost
    reloaded_tokens: int = 0
    kv_peak_blocks: int = 0


class Live:
    """A request in an instance."""

    __slots__ = ("generated", "measured", "preemptions", "qoe", "request", "timeline")

    def __init__(self, request: Request, timeline: Timeline, measured: bool) -> None:
        self.request = request  # vLLM's record, another one on every instance
        self.timeline = timeline
        self.measured = measured
        self.generated = 0
        self.preemptions = 0  # on earlier instances
        self.qoe: RunningQoE | None = None  # from the first answering token on

    @property
    def kv_tokens(self) -> int:
        """Of its prompt and its output."""
        return self.timeline.lengths.prompt + self.generated

    @property
    def reasoning_ahead(self) -> int:
        """Tokens until its boundary; 0 or less after it."""
        return self.timeline.lengths.reasoning - self.generated

    def within_slo(self, now: float) -> bool:
        """As the gateway's pacer says it."""
        return self.qoe is None or self.qoe.at(now) >= SLO_QOE

    @property
    def tokens_ahead(self) -> int:
        """Until it comes to its answer, or else to its end."""
        left = self.reasoning_ahead
        return left if left > 0 else left + self.timeline.lengths.answer

    def produced(self, now: float) -> None:
        """One more token."""
        preemptions = self.preemptions + self.request.num_preemptions
        self.timeline.produced(self.generated, now, preemptions)
        if self.generated >= self.timeline.lengths.reasoning:
            if self.qoe is None:
                self.qoe = RunningQoE(tau_s=TAU_S, origin_s=now)
            self.qoe.deliver(now)
        self.generated += 1


@dataclass(frozen=True, slots=True)
class Ended:
    """What a step, or a leap, has brought."""

    tokens: dict[float, int]  # how many came when
    done: list[Live]
    crossed: list[Live]  # which have come to their answers with its end


class SimulatedInstance:
    """One modelled device under a real scheduler."""

    def __init__(
        self, name: str, settings: InstanceSettings, factory: SchedulerFactory, clock: Clock
    ) -> None:
        self.name = name
        self.totals = InstanceTotals()
        self.busy = False  # between `begin_step` and `end_step`
        self.boundary_s = math.inf  # until then none of its requests comes to its answer
        self._factory = factory
        self._network = factory.network
        self._clock = clock
        self._steps = settings.profile.step
        self._bytes_per_token = settings.profile.kv.bytes_per_token
        self._live: dict[str, Live] = {}
        self._transfers, self._worker = factory.offload(clock)
        scheduler = self._scheduler = factory.scheduler(clock)
        scheduler.tokens_ahead = lambda request: self._live[request.request_id].tokens_ahead
        if self._transfers is not None:
            scheduler.next_load_s = self._transfers.next_load_s
        connector = scheduler.connector
        self._connector = connector if isinstance(connector, SimulatedConnector) else None
        if self._connector is not None:
            self._connector.now = clock.read
        self._coming: list[tuple[float, str, Held]] = []  # KV on its way here, by its end
        self._held: dict[str, Held] = {}  # of requests that have left
        self._told_free_blocks = self._free_blocks()  # by its last step
        self._output: SchedulerOutput
        self._result: ModelRunnerOutput

    def add(self, name: str, timeline: Timeline, measured: bool) -> Live:
        """Queue a request, named as no other."""
        request = self._factory.request(name, timeline.lengths, self._clock.now)
        live = self._live[name] = Live(request, timeline, measured)
        soonest_s = self._clock.now + timeline.lengths.reasoning * self._steps.base_s
        self.boundary_s = min(self.boundary_s, soonest_s)
        self._scheduler.add_request(request)
        return live

    @property
    def lives(self) -> Collection[Live]:
        """Its requests, with those that come from elsewhere."""
        return self._live.values()

    @property
    def scheduled(self) -> SchedulerOutput:
        """What its last step was to do."""
        return self._output

    @property
    def kv_blocks(self) -> tuple[int, int]:
        """In use now, and in all."""
        pool = self._scheduler.kv_cache_manager.block_pool
        total = pool.num_gpu_blocks - 1
        return total - pool.get_num_free_blocks(), total

    def final_totals(self) -> InstanceTotals:
        """What it did until now, with what the scheduler counts."""
        stats = self._scheduler.phase_stats()
        self.totals.recomputed_tokens = stats.recomputed_tokens_total
        self.totals.reloaded_tokens = stats.reloaded_tokens_total
        return self.totals

    def view(
        self,
        rules: ViewRules = _DEFAULT_VIEW,
        moves: Sequence[Move] = (),
        at_boundary: Live | None = None,
    ) -> InstanceView:
        """What placement sees of it; see `bench.simulated_view`."""
        return view_of(
            self.name,
            self._live.values(),
            block_size=self._scheduler.block_size,
            free_blocks=self.told_free_blocks,
            total_blocks=self._scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1,
            now=self._clock.now,
            rules=rules,
            moves=moves,
            at_boundary=at_boundary,
        )

    @property
    def told_free_blocks(self) -> int:
        """As its last step said, or if it is idle what its heartbeat says."""
        return self._told_free_blocks if self.busy else self._free_blocks()

    def _free_blocks(self) -> int:
        return int(self._scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def computing(self) -> list[Timeline]:
        """Of the requests that the step computes for which has begun last."""
        live = self._live
        return [live[request.request_id].timeline for request in self._scheduler.running]

    # ---- requests that change instances

    def hand_over(self, live: Live) -> Held:
        """Let a request go; its KV stays until it has been read."""
        request, connector = live.request, self._connector
        assert connector is not None
        name = request.request_id
        running = request.status is RequestStatus.RUNNING
        held = Held(
            self.name,
            name,
            request.num_computed_tokens if running else 0,
            self._clock.now + HELD_S,
            self._release,
        )
        if running:
            connector.leaving.add(name)
            self._held[name] = held
        del self._live[name]
        self._scheduler.finish_requests([name], RequestStatus.FINISHED_ABORTED)
        return held

    def receive(self, live: Live, name: str, held: Held) -> None:
        """Go on with a request from another instance."""
        live.preemptions += live.request.num_preemptions
        live.request = self._factory.answering(name, live.request, self._clock.now)
        self._live[name] = live
        assert self._connector is not None
        if held.tokens:
            self._connector.arriving[name] = held
        self._scheduler.add_request(live.request)

    def _release(self, name: str) -> None:
        """Its KV has been read, or never will be."""
        if self._held.pop(name, None) is not None:
            self._scheduler.give_back(name)

    def _fetch(self, begin_s: float) -> None:
        """Start the transfers of requests that got their memory in this step."""
        assert self._connector is not None
        for name, held, tokens in self._connector.claims:
            size = tokens * self._bytes_per_token
            due_s = self._network.transfer(held.source, self.name, size, begin_s)
            heapq.heappush(self._coming, (due_s, name, held))
        self._connector.claims.clear()
        for held in [h for h in self._held.values() if not h.claimed and h.until_s <= begin_s]:
            self._release(held.request_id)

    def _arrived(self) -> set[str]:
        names = set()
        while self._coming and self._coming[0][0] <= self._clock.now:
            _, name, held = heapq.heappop(self._coming)
            held.release(held.request_id)
            names.add(name)
        return names

    def begin_step(self) -> float | None:
        """Schedule a step and start it; :return: its end, or None if there is nothing to do."""
        now = self._clock.now
        self._told_free_blocks = self.told_free_blocks
        self.busy = self._scheduler.has_requests()
        if not self.busy:
            return None
        output = self._output = self._scheduler.schedule()
        begin_s = now
        if self._worker is not None and self._transfers is not None:
            meta = output.kv_connector_metadata
            assert isinstance(meta, OffloadingConnectorMetadata)
            self._worker.handle_preemptions(meta)
            begin_s = max(now, self._transfers.waited_until_s)
            self._worker.start_kv_transfers(meta)
            self._worker.prepare_store_kv(meta)
        if self._connector is not None:
            self._fetch(begin_s)
        if not output.num_scheduled_tokens:
            self._ends = [now]
            self._result = ModelRunnerOutput(req_ids=[], req_id_to_index={})
            copied_s = self._transfers.next_due_s() if self._transfers is not None else None
            read_s = self._coming[0][0] if self._coming else None
            due_s = min((due for due in (copied_s, read_s) if due is not None), default=None)
            # A transfer has ended for who asks after its end; with none, the engine looks again.
            return now + _IDLE_STEP_S if due_s is None else max(due_s, now) + _AFTER_S
        totals = self.totals
        step_s = self._run(output)
        ends = self._ends = self._scheduler.step_ends or [begin_s + step_s]
        totals.steps += len(ends)
        totals.stall_s += begin_s - now
        began_s = now
        for ended_s in ends:  # one by one: the sum is that of single steps to the last bit
            totals.busy_s += ended_s - began_s
            began_s = ended_s
        if self._connector is not None:
            self._look_ahead(ends)
        return ends[-1]

    def end_step(self) -> Ended:
        """Take the tokens of the step."""
        now = self._clock.now
        if self._worker is not None:
            _, loaded = self._worker.get_finished(set())
            loaded = {*(loaded or ()), *self._arrived()}
            meta = self._worker.build_connector_worker_meta()
            if loaded or meta:
                self._result.kv_connector_output = KVConnectorOutput(
                    finished_recving=loaded or None, kv_connector_worker_meta=meta
                )
        done: list[Live] = []
        crossed: list[Live] = []
        ends = self._ends
        requests = 0  # that got a token in each step
        for batch in self._scheduler.update_from_output(self._output, self._result).values():
            for output in batch.outputs:
                if output.new_token_ids:
                    requests += 1
                    live = self._live[output.request_id]
                    for end_s in ends:
                        live.produced(end_s)
                    if not live.reasoning_ahead:
                        crossed.append(live)
                if output.finish_reason is not None:
                    live = self._live.pop(output.request_id)
                    live.timeline.finished_s = now
                    done.append(live)
        self.totals.generated_tokens += requests * len(ends)
        self._told_free_blocks = self._free_blocks()
        return Ended(dict.fromkeys(ends, requests), done, crossed)

    def _look_ahead(self, ends: Sequence[float]) -> None:
        """Bound from below when a request comes to its answer; a step takes the base at least."""
        steps, end_s = len(ends), ends[-1]
        running = {request.request_id for request in self._scheduler.running}
        ahead = min(
            (
                live.reasoning_ahead - (steps if name in running else 0)
                for name, live in self._live.items()
                if live.reasoning_ahead > 0
            ),
            default=math.inf,
        )
        self.boundary_s = end_s + max(0.0, ahead) * self._steps.base_s

    def _run(self, output: SchedulerOutput) -> float:
        """Script the tokens of a step; :return: seconds that it takes, unless it is a leap."""
        requests, live, totals = self._scheduler.requests, self._live, self.totals
        decodes = decode_kv = prefill = prefill2 = 0
        steps = len(self._scheduler.step_ends) or 1
        words, thought = [WORD_ID] * steps, [*[WORD_ID] * (steps - 1), BOUNDARY_ID]
        tokens: list[list[int]] = []
        for request_id, count in output.num_scheduled_tokens.items():
            request = requests[request_id]
            computed = request.num_computed_tokens  # this step's included
            sampled = _NOTHING
            if not request.is_prefill_chunk:
                mine = live[request_id]
                last = mine.timeline.lengths.reasoning - steps
                sampled = thought if mine.generated == last else words
            tokens.append(sampled)
            if count == steps and sampled:
                decodes += 1
                decode_kv += computed
            else:
                prefill += count
                prefill2 += count * (2 * computed - count)
        ids = list(output.num_scheduled_tokens)
        self._result = ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={request_id: index for index, request_id in enumerate(ids)},
            sampled_token_ids=tokens,
        )
        totals.computed_tokens += output.total_num_scheduled_tokens
        pool = self._scheduler.kv_cache_manager.block_pool
        used = pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()
        totals.kv_peak_blocks = max(totals.kv_peak_blocks, used)
        return self._steps.seconds(decodes, decode_kv, prefill, prefill2)


_IDLE_STEP_S = 1e-3
_AFTER_S = 1e-6
