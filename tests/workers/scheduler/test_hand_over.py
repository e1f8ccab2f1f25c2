"""Requests that arrive with a ticket, and requests that leave, under every policy, two steps deep.

Works as `tests.workers.scheduler.test_pipeline`, with the scheduler's side of KV migration. The
device reads KV of others, and others read its KV, in any number of steps. Reads may also fail.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from vllm.config import VllmConfig
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import KVConnectorOutput
from vllm.v1.request import Request, RequestStatus

from tests.workers.kv.test_offload_pipeline import config
from tests.workers.scheduler.test_pipeline import BLOCK, Pipeline, run_and_check
from workers.kv import tickets
from workers.kv.migration import kv_tokens_of, kv_transfer_config, pull_params
from workers.messages import Ticket
from workers.policy.settings import POLICIES
from workers.policy.view import Decision, RequestView
from workers.scheduler.hand_over import HANDED_OVER, ticket_of
from workers.scheduler.plugin import PhaseAsyncScheduler, PhaseScheduler

__all__ = ["config"]  # the fixture

HELD_S = 1000.0


class MovingPipeline(Pipeline):
    """A pipeline whose requests arrive with tickets and leave with tickets."""

    def __init__(
        self,
        kind: type[PhaseScheduler | PhaseAsyncScheduler],
        config: VllmConfig,
        seed: int,
        policy: str,
        migrates: bool = True,
    ) -> None:
        transfer = kv_transfer_config("127.0.0.1", HELD_S) if migrates else None
        self.transfer_rng = random.Random(seed)
        super().__init__(kind, config, seed, policy, transfer)
        self.records: dict[str, Request] = {}
        self.running_when_told: set[str] = set()
        self.left: dict[str, Ticket | None] = {}
        self.came: dict[str, int] = {}  # requests with a ticket, and its tokens
        self.told: dict[str, int] = {}  # requests, and the KV tokens that their first run reported
        self.read: set[str] = set()  # requests whose KV was read from the other engine
        self.failed: set[str] = set()
        self._reads: set[str] = set()  # on their way
        self._sends: set[str] = set()

    def extra_args(self, name: str) -> dict[str, Any]:
        if self.transfer_rng.random() < 0.5:
            return {}
        tokens = self.prompt[name] - self.transfer_rng.choice([0, 1, 5])
        self.came[name] = tokens
        data = tickets.TicketData(
            request_id=f"there-{name}",
            host="127.0.0.1",
            port=1,
            tp_size=1,
            block_size=BLOCK,
            block_ids=(tuple(range(-(-tokens // BLOCK))),),
        )
        ticket = Ticket(engine_id="there", data=tickets.encode(data), tokens=tokens, valid_s=1000.0)
        return {"kv_transfer_params": pull_params(ticket)}

    def add(self, name: str) -> None:
        super().add(name)
        self.records[name] = self.scheduler.requests[name]

    def change_paces(self) -> None:
        super().change_paces()
        if self.transfer_rng.random() < 0.1:
            name = self.transfer_rng.choice(list(self.prompt))
            record = self.records.get(name)
            if record is not None and record.status is RequestStatus.RUNNING:
                self.running_when_told.add(name)
            self.scheduler.hand_over(f"own-{name}")

    def execute(self, output: SchedulerOutput) -> KVConnectorOutput | None:
        meta = output.kv_connector_metadata
        if meta is None:
            return None
        for name, received in meta.reqs_to_recv.items():
            if not received.awaiting_kvs:
                continue  # it ended before it could read, which the other engine learns
            (ours,), (theirs,) = received.local_block_ids, received.remote.block_ids
            assert 0 < len(ours) <= len(theirs) == -(-self.readable(name) // BLOCK)
            self._reads.add(name)
        self._sends |= meta.reqs_to_send.keys()
        assert meta.reqs_to_send.keys() <= meta.reqs_in_batch
        came = {name for name in sorted(self._reads) if self.transfer_rng.random() < 0.4}
        failed = {name for name in sorted(came) if self.transfer_rng.random() < 0.3}
        went = {name for name in sorted(self._sends) if self.transfer_rng.random() < 0.2}
        self._reads -= came
        self._sends -= went
        self.read |= came - failed
        self.failed |= failed
        return KVConnectorOutput(
            finished_recving=came or None,
            failed_recving=failed or None,
            finished_sending=went or None,
        )

    def readable(self, name: str) -> int:
        return min(self.prompt[name], self.came[name])

    def update(self) -> None:
        output, result = self.in_flight.popleft()
        for batch in self.scheduler.update_from_output(output, result).values():
            for last in batch.outputs:
                name = last.request_id
                assert name not in self.left, "an output after the last one"
                if (kv_tokens := kv_tokens_of(last.kv_transfer_params)) is not None:
                    assert last.new_token_ids
                    assert not self.got[name]
                    self.told[name] = kv_tokens
                self.got[name] += last.new_token_ids
                if last.stop_reason == HANDED_OVER:
                    self.leave(name, ticket_of(last.kv_transfer_params))

    def leave(self, name: str, ticket: Ticket | None) -> None:
        """Check that all tokens were delivered, and that the ticket covers all but the last."""
        self.left[name] = ticket
        self.aborted.add(name)  # it ends with the tokens it has
        assert self.records[name].num_output_tokens == len(self.got[name])
        assert not any(name in o.num_scheduled_tokens for o, _ in self.in_flight)
        if ticket is not None:
            assert ticket.tokens == self.prompt[name] + len(self.got[name]) - 1
            (blocks,) = tickets.decode(ticket.data).block_ids
            assert len(blocks) == -(-ticket.tokens // BLOCK)

    def check_told(self) -> None:
        """Check that each request with a ticket reported what it read, once it had tokens."""
        assert self.told.keys() == {name for name in self.came if self.got[name]}
        for name, kv_tokens in self.told.items():
            assert kv_tokens == (0 if name in self.failed else self.readable(name)), name
        migration = self.scheduler.migration
        assert migration is not None
        assert migration._settled == {}

    def held_by_aborted(self) -> int:
        get_blocks = self.scheduler.kv_cache_manager.coordinator.get_blocks
        gone = [r for r in self.scheduler.requests.values() if r.is_finished()]
        stats = self.scheduler.phase_stats().migration
        if stats is not None:  # the others are those that ended while they were loading
            left = [r for r in gone if (r.kv_transfer_params or {}).get("do_remote_decode")]
            held = sum(len(get_blocks(r.request_id)[0]) for r in left)
            assert stats.held_blocks == held
        return sum(len(get_blocks(r.request_id)[0]) for r in gone)

    def loading(self) -> int:
        return sum(
            r.status is RequestStatus.WAITING_FOR_REMOTE_KVS
            and r.request_id not in self.scheduler.finished_recving_kv_req_ids
            for r in self.scheduler.kv_holding_waiting
        )

    def may_be_unready(self, request: RequestView) -> bool:
        return True

    def admitted(self, decision: Decision) -> set[str]:
        return set()  # they may load first; or leave


@pytest.mark.parametrize("kind", [PhaseScheduler, PhaseAsyncScheduler])
@pytest.mark.parametrize("policy", POLICIES)
def test_who_leaves_takes_every_token_along_and_leaks_no_block(
    config: VllmConfig,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[PhaseScheduler | PhaseAsyncScheduler],
    policy: str,
) -> None:
    with_ticket = without = read = failed = 0
    for seed in range(4):
        pipeline = MovingPipeline(kind, config, seed, policy)
        run_and_check(pipeline, monkeypatch, abort=True)
        stats = pipeline.scheduler.phase_stats().migration
        assert stats is not None
        given = [ticket for ticket in pipeline.left.values() if ticket is not None]
        assert stats.tickets_total == stats.expired_total == len(given)  # none was claimed
        assert stats.held_blocks == 0
        assert stats.read_requests_total == len(pipeline.read)
        assert stats.failed_total == len(pipeline.failed)
        pipeline.check_told()
        with_ticket += len(given)
        read += stats.read_requests_total
        failed += stats.failed_total
        without += len(pipeline.left) - len(given)
    assert min(with_ticket, read, failed) > 5
    assert without > 0


@pytest.mark.parametrize("kind", [PhaseScheduler, PhaseAsyncScheduler])
@pytest.mark.parametrize("why", ["no connector", "sliding windows"])
def test_where_kv_cannot_move_requests_leave_without_a_ticket(
    config: VllmConfig,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[PhaseScheduler | PhaseAsyncScheduler],
    why: str,
) -> None:
    pipeline = MovingPipeline(kind, config, 3, "slack", migrates=why != "no connector")
    if pipeline.scheduler.migration is not None:
        pipeline.scheduler.migration._is_hma_required = True
    run_and_check(pipeline, monkeypatch, abort=True)
    assert pipeline.running_when_told & pipeline.left.keys()
    assert set(pipeline.left.values()) == {None}
