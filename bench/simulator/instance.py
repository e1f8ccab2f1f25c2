"""One instance in virtual time: vLLM's real scheduler and KV-cache manager on a modelled device.

The scheduler is the one that a worker runs, stepped by hand: `schedule`, a step whose duration
comes from a `DeviceProfile`, `update_from_output` with scripted tokens. KV offload is the real
connector's scheduler side and its worker's bookkeeping; only the copies are modelled. The engine's
own work between two steps is left out.

The module must not know the cluster.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import (
    OffloadingConnectorMetadata,
)
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.request import RequestStatus

from bench.simulator.migration import HELD_S, Held, SimulatedConnector
from bench.simulator.request import Live
from bench.simulator.scheduler import Clock
from bench.simulator.scheduler_factory import (
    BOUNDARY_ID,
    CALL_ID,
    CALLED_ID,
    WORD_ID,
    InstanceSettings,
    SchedulerFactory,
)
from bench.simulator.timeline import Timeline
from bench.workloads.lengths import Lengths
from gateway.policy.cluster_view import Occupancy

__all__ = ["Ended", "InstanceTotals", "Live", "SimulatedInstance"]

_NOTHING: list[int] = []


@dataclass(slots=True)
class InstanceTotals:
    """What one instance computed."""

    steps: int = 0
    busy_s: float = 0.0
    stall_s: float = 0.0  # part of it: waits for stores before blocks are reused
    computed_tokens: int = 0  # of prompts, lost KV and outputs
    generated_tokens: int = 0
    recomputed_tokens: int = 0  # KV that preemptions had lost
    reloaded_tokens: int = 0
    kv_peak_blocks: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of a step or a leap."""

    tokens: dict[float, int]  # number of tokens by the time they came, since the step before
    done: list[Live]
    crossed: list[Live]  # requests that have reached their boundary with its end


class SimulatedInstance:
    """One modelled device under a real scheduler."""

    def __init__(
        self, name: str, settings: InstanceSettings, factory: SchedulerFactory, clock: Clock
    ) -> None:
        self.name = name
        self.totals = InstanceTotals()
        self.busy = False  # between `begin_step` and `end_step`
        # Called with the new end when a leap will end sooner than `begin_step` said.
        self.cut: Callable[[float], None] = lambda end_s: None
        self.window_to_s = math.inf  # a leap ends with the first step that ends at or after this
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
        self._last_free_blocks = self._free_blocks()  # after its last step
        scheduler.look_at_s = self._look_at_s
        self._ends: list[float] = []  # of the step that is under way, or the steps of a leap
        self._seen = 0  # of them, those whose tokens have been counted already
        self._planned_s: float | None = None  # when a leap began that vLLM has not computed yet
        self._tokens: dict[float, int] = {}  # number by time, since they were last taken
        self._output: SchedulerOutput
        self._result: ModelRunnerOutput

    def add(self, name: str, timeline: Timeline, measured: bool) -> Live:
        """Queue a request under a unique name."""
        self._interfere()
        request = self._factory.request(
            name, timeline.lengths, self._clock.now, timeline.conversation
        )
        live = self._live[name] = Live(request, timeline, measured)
        self._scheduler.add_request(request)
        return live

    @property
    def lives(self) -> Collection[Live]:
        """Its requests, including those on their way to it."""
        return self._live.values()

    @property
    def kv_blocks(self) -> tuple[int, int]:
        """KV blocks in use now, and in total."""
        pool = self._scheduler.kv_cache_manager.block_pool
        total = pool.num_gpu_blocks - 1
        used = total - pool.get_num_free_blocks()
        return used + self._blocks_taken(self._seen + 1), total

    def final_totals(self) -> InstanceTotals:
        """Its totals until now, with the scheduler's own counts."""
        self._interfere()
        stats = self._scheduler.phase_stats()
        self.totals.recomputed_tokens = stats.recomputed_tokens_total
        self.totals.reloaded_tokens = stats.reloaded_tokens_total
        return self.totals

    def occupancy(self) -> Occupancy:
        """What it holds now, as its worker has reported it to a gateway."""
        self._catch_up(self._clock.now)
        return Occupancy(
            instance_id=self.name,
            block_size=self._scheduler.block_size,
            kv_blocks_total=self._scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1,
            kv_blocks_free=self.reported_free_blocks,
            requests=self._live.values(),
        )

    @property
    def reported_free_blocks(self) -> int:
        """Free blocks after its last step; now, by its heartbeat, if it is idle."""
        return self._last_free_blocks if self.busy else self._free_blocks()

    def _free_blocks(self) -> int:
        return int(self._scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def computing(self) -> list[Timeline]:
        """Timelines of the requests in the step, or the leap, that began last."""
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
        """Queue a request from another instance, with its KV."""
        self._interfere()
        live.preemptions += live.request.num_preemptions
        live.request = self._factory.answering(name, live.request, self._clock.now)
        self._live[name] = live
        assert self._connector is not None
        if held.tokens:
            self._connector.arriving[name] = held
        self._scheduler.add_request(live.request)

    def _release(self, name: str) -> None:
        """Free the KV of a request that left, because it was read or its time is over."""
        if name in self._held:
            self._interfere()
            del self._held[name]
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

    # ---- steps

    def begin_step(self) -> float | None:
        """Begin a step or a leap; return its end, or None if there is nothing to do."""
        scheduler, now = self._scheduler, self._clock.now
        self._last_free_blocks = self.reported_free_blocks
        self.busy = scheduler.has_requests()
        if not self.busy:
            return None
        self._ends = scheduler.plan_leap()
        if self._ends:
            self._planned_s = now
        else:
            self._take(now)
        return self._ends[-1]

    def _take(self, now: float) -> None:
        """Let vLLM take the step that begins now, or the leap that began at ``now``."""
        scheduler = self._scheduler
        leap = scheduler.step_ends = self._ends
        output = self._output = scheduler.schedule()
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
            self._result = ModelRunnerOutput(req_ids=[], req_id_to_index={})
            self._ends = [self._idle_until_s()]
            return
        step_s = self._run(output)
        if leap:  # it was planned for exactly these
            steps = len(leap) * len(scheduler.running)
            assert output.total_num_scheduled_tokens == steps
        ends = self._ends = leap or [begin_s + step_s]
        totals = self.totals
        totals.steps += len(ends)
        totals.stall_s += begin_s - now
        for end_s in ends:  # one by one: the sum is that of single steps to the last bit
            totals.busy_s += end_s - now
            now = end_s

    def _idle_until_s(self) -> float:
        """When to try again, if no request can be computed."""
        now = self._clock.now
        copied_s = self._transfers.next_due_s() if self._transfers is not None else None
        read_s = self._coming[0][0] if self._coming else None
        due_s = min((due for due in (copied_s, read_s) if due is not None), default=None)
        # A transfer has ended only for an engine that looks after its end. Without a transfer, the
        # engine looks again soon.
        return now + _IDLE_STEP_S if due_s is None else max(due_s, now) + _AFTER_S

    def _take_leap(self, steps: int) -> None:
        """Let vLLM take the first steps of the planned leap, as if at its beginning.

        Only this instance sees the clock go back, and nothing has happened to it since then.
        """
        began_s, now = self._planned_s, self._clock.now
        assert began_s is not None
        self._planned_s = None
        self._ends = self._ends[:steps]
        self._clock.now = began_s
        try:
            self._take(began_s)
        finally:
            self._clock.now = now

    def _interfere(self) -> None:
        """End a leap with the step under way, because something is about to happen here."""
        now = self._clock.now
        self._catch_up(now)
        if self._planned_s is None:
            return
        planned, begun = len(self._ends), self._seen + 1
        self._take_leap(begun)
        if begun < planned:
            self.cut(self._ends[-1])

    def catch_up(self, now: float) -> dict[float, int]:
        """Count the tokens of those steps of a leap that have ended.

        :return: the number of tokens by time, since they were last taken.
        """
        self._catch_up(now)
        return self._take_tokens()

    @property
    def step_ended_s(self) -> float:
        """When the latest ended step of the current leap ended; 0 if none has."""
        return self._ends[self._seen - 1] if self._seen else 0.0

    def _catch_up(self, now: float) -> None:
        """Count the tokens of those steps of a leap that have ended."""
        seen, ended = self._seen, bisect_left(self._ends, now)
        if ended == len(self._ends):
            ended -= 1  # the tokens of the last step are counted in `end_step`
        if ended <= seen:
            return
        times_s = self._ends[seen:ended]
        self._seen = ended
        self._last_free_blocks = self._free_blocks() - self._blocks_taken(ended)
        running = self._scheduler.running
        for request in running:
            self._live[request.request_id].produced(times_s)
        self._count(times_s, len(running))

    def _count(self, times_s: Sequence[float], requests: int) -> None:
        """Count one token for each of ``requests`` requests at each of these times."""
        tokens = requests * len(times_s)
        self.totals.generated_tokens += tokens
        self._tokens.update(dict.fromkeys(times_s, requests))

    def _take_tokens(self) -> dict[float, int]:
        tokens, self._tokens = self._tokens, {}
        return tokens

    def _blocks_taken(self, steps: int) -> int:
        """Blocks that ``steps`` steps of a leap need, while vLLM has not computed it yet."""
        if self._planned_s is None:
            return 0
        size = self._scheduler.block_size
        return sum(
            -(-max(0, steps - -request.num_computed_tokens % size) // size)
            for request in self._scheduler.running
        )

    def _look_at_s(self) -> float:
        """When a leap must end: KV arrives, held KV expires, or the window ends."""
        window_s = self.window_to_s if self._clock.now < self.window_to_s else math.inf
        read_s = self._coming[0][0] if self._coming else math.inf
        held_s = (held.until_s for held in self._held.values() if not held.claimed)
        return min([window_s, read_s, *held_s])

    def end_step(self) -> Ended:
        """End the step or the leap, and take its tokens."""
        now = self._clock.now
        if self._planned_s is not None:
            self._take_leap(len(self._ends))
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
        times_s = self._ends[self._seen :]
        self._ends, self._seen = [], 0
        requests = 0  # number that got a token in each step
        for batch in self._scheduler.update_from_output(self._output, self._result).values():
            for output in batch.outputs:
                live = self._live[output.request_id]
                if output.new_token_ids:
                    requests += 1
                    live.produced(times_s)
                    if not live.reasoning_ahead and live.timeline.lengths.answer:
                        crossed.append(live)
                if output.finish_reason is not None:
                    del self._live[output.request_id]
                    live.timeline.finished_s = now
                    done.append(live)
        self._count(times_s, requests)
        self._last_free_blocks = self._free_blocks()
        self._store_filled()
        return Ended(self._take_tokens(), done, crossed)

    def _store_filled(self) -> None:
        """Store the blocks that a leap has filled, with the next step."""
        if self._worker is None or (meta := self._scheduler.store_filled()) is None:
            return
        assert isinstance(meta, OffloadingConnectorMetadata)
        self._worker.prepare_store_kv(meta)

    def _run(self, output: SchedulerOutput) -> float:
        """Script the tokens of a step; return the seconds that it takes, unless it is a leap."""
        requests, live, totals = self._scheduler.requests, self._live, self.totals
        decodes = decode_kv = prefill = prefill2 = 0
        steps, seen = len(self._scheduler.step_ends) or 1, self._seen
        words, thought = [WORD_ID] * steps, [*[WORD_ID] * (steps - 1), BOUNDARY_ID]
        tokens: list[list[int]] = []
        for request_id, count in output.num_scheduled_tokens.items():
            request = requests[request_id]
            computed = request.num_computed_tokens  # this step's included
            sampled = _NOTHING
            if not request.is_prefill_chunk:
                one = live[request_id]
                lengths = one.timeline.lengths
                last = lengths.reasoning - steps + seen
                sampled = thought if one.generated == last else words
                if lengths.call and one.generated > last:
                    marker = _marker_of_call(lengths, one.generated - seen + steps - 1)
                    sampled = [*words[:-1], marker] if marker is not None else words
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


def _marker_of_call(lengths: Lengths, place: int) -> int | None:
    """The token that opens or closes the call, if it is at this place of the output."""
    begin = lengths.reasoning + lengths.answer
    if place == begin:
        return CALL_ID
    return CALLED_ID if place == begin + lengths.call - 1 else None


_IDLE_STEP_S = 1e-3
_AFTER_S = 1e-6
