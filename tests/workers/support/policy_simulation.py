"""A few lines of engine around the pure policies: blocks, slots, one token a step, readers.

It admits and evicts as vLLM does. It admits in the order of the decision, up to the first request
that does not fit. When memory runs out during a step, it evicts the last running request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.policy.decide import decide, queue_of
from workers.policy.phase import Phase
from workers.policy.settings import PolicySettings
from workers.policy.view import Decision, Memory, RequestView

BLOCK = 4  # tokens
STEP_S = 0.05
STEP_TOKENS = 256

Check = Callable[[PolicySettings, Sequence[RequestView], Memory, float, Decision], None]


@dataclass
class Request:
    """A request: first its parameters, then its results."""

    name: str
    arrives: int  # step
    prompt: int
    reasoning: int
    answer: int
    tau_s: float = 0.1
    paused: tuple[int, int] = (0, 0)  # steps in which the reader does not read
    aborted: int | None = None  # step
    user: str | None = None

    running = False
    blocks = 0
    tokens = 0
    queue = 0
    queue_position = 0
    left = 0
    quanta = 0
    run_tokens = 0
    decided_preemptions = 0
    evictions = 0
    run_ended = 0  # step
    waiting_since = 0.0
    urgent = False
    boundary_at: float | None = None
    read = 0.0  # tokens
    starved_steps = 0  # in which its reader had begun to read and had nothing left

    @property
    def phase(self) -> Phase:
        return Phase.REASONING if self.tokens < self.reasoning else Phase.ANSWERING

    def needs(self, extra: int) -> int:
        return -(-(self.prompt + self.tokens + extra) // BLOCK)


class Simulation:
    """Steps until every request has finished or was aborted."""

    def __init__(
        self, settings: PolicySettings, requests: list[Request], blocks: int, slots: int
    ) -> None:
        self.settings = settings
        self.coming = sorted(requests, key=lambda r: r.arrives)
        self.here: list[Request] = []
        self.blocks, self.slots = blocks, slots
        self.step = 0
        self.positions = 0
        self.preemptions = 0

    @property
    def now(self) -> float:
        return self.step * STEP_S

    def run(self, check: Check, limit: int) -> None:
        while self.coming or self.here:
            self.advance(check)
            assert self.step <= limit, f"unfinished: {self.coming + self.here}"

    def advance(self, check: Check) -> None:
        self.step += 1
        while self.coming and self.coming[0].arrives <= self.step:
            request = self.coming.pop(0)
            request.waiting_since = self.now
            request.queue = queue_of(self.settings, request.phase, 0)
            self.new_turn(request)
            self.here.append(request)
        self.here = [r for r in self.here if r.aborted is None or self.step < r.aborted]
        if not self.here:
            return
        views = [self.view(r) for r in self.here]
        memory = Memory(self.free(), self.slots - sum(r.running for r in self.here), STEP_TOKENS)
        decision = decide(self.settings, views, memory, self.now)
        check(self.settings, views, memory, self.now, decision)
        by_name = {r.name: r for r in self.here}
        for r in self.here:
            r.urgent = r.name in decision.urgent
        for name in decision.preempt:
            by_name[name].decided_preemptions += 1
            self.preemptions += 1
            self.stop(by_name[name])
        self.execute([by_name[name] for name in decision.order], set(decision.hold))

    def execute(self, order: list[Request], hold: set[str]) -> None:
        evicted = False
        working: list[Request] = []
        for r in order:
            if not r.running or r.name in hold:
                continue
            while r.needs(1) - r.blocks > self.free():
                worst = next(v for v in reversed(order) if v.running)
                worst.evictions += 1
                evicted = True
                self.stop(worst)
                if worst is r:
                    break
            else:
                r.blocks = r.needs(1)
                working.append(r)
        budget = STEP_TOKENS - len(working)
        for r in order:
            if r.running or r.run_ended == self.step:
                continue
            slots = self.slots - sum(v.running for v in order)
            if evicted or slots <= 0 or budget <= 0 or r.needs(1) > self.free():
                break
            budget -= r.prompt + r.tokens
            r.running, r.blocks = True, r.needs(1)
            working.append(r)
        assert self.free() >= 0
        assert sum(r.running for r in order) <= self.slots
        for r in order:
            reads = not r.paused[0] <= self.step < r.paused[1]
            if reads and r.tokens > r.reasoning:
                wanted = r.read + STEP_S / r.tau_s
                r.read = min(wanted, r.tokens - r.reasoning)
                r.starved_steps += r.read < wanted
        for r in working:
            if r.running:
                self.produce(r)

    def produce(self, r: Request) -> None:
        r.tokens += 1
        r.run_tokens += 1
        r.left -= 1
        if r.tokens == r.reasoning:
            r.boundary_at, r.quanta = self.now, 0
        if r.tokens == r.reasoning + r.answer:
            self.here.remove(r)
            return
        reasoned = min(r.tokens, r.reasoning)
        queue = queue_of(self.settings, r.phase, reasoned)
        if r.left <= 0:
            r.quanta += 1
        if r.left <= 0 or queue != r.queue:
            r.queue = queue
            self.new_turn(r)

    def new_turn(self, r: Request) -> None:
        self.positions += 1
        r.queue_position, r.left = self.positions, self.settings.quantum_tokens

    def stop(self, r: Request) -> None:
        r.running, r.blocks, r.run_tokens = False, 0, 0
        r.run_ended, r.waiting_since = self.step, self.now

    def free(self) -> int:
        return self.blocks - sum(r.blocks for r in self.here)

    def view(self, r: Request) -> RequestView:
        dry_at = None
        if r.phase is Phase.ANSWERING and not r.paused[0] <= self.step < r.paused[1]:
            dry_at = self.now + (r.tokens - r.reasoning - r.read) * r.tau_s
        return RequestView(
            request_id=r.name,
            phase=r.phase,
            arrival=r.arrives,
            running=r.running,
            blocks_held=r.blocks,
            blocks_needed=r.needs(1),
            tokens_needed=1 if r.running else r.prompt + r.tokens,
            queue=r.queue,
            queue_position=r.queue_position,
            quanta=r.quanta,
            run_tokens=r.run_tokens,
            preemptions=r.decided_preemptions,
            dry_at=dry_at,
            resume_s=STEP_S,
            waiting_since=r.waiting_since,
            urgent=r.urgent,
            user=r.user,
        )
