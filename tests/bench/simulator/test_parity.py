"""What happens in a simulation, told to the gateway's own cluster: it decides the same.

Random simulations are recorded: arrivals, the tokens of every step, boundaries, ends, free memory,
and where requests went. Then a live `gateway.routing.cluster.Cluster`, with links that lead nowhere
and the simulation's clock, hears of the same events as messages of workers, and has to send each
request to the same instance, when it comes and at its boundary.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.simulator.cluster import Cluster, Watch, Window
from bench.simulator.defaults import MODEL
from bench.simulator.instance import Ended, Live, SimulatedInstance
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.view import Move, view_rules
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths
from gateway.config import PacingConfig
from gateway.policy.placement import Rules
from gateway.response.session import Session
from gateway.routing import cluster as live_cluster
from gateway.routing import router as live_router
from gateway.schemas.bodies import ResponsesBody, parse_body
from gateway.schemas.generation import default_targets, from_responses
from workers.emulation.profile import load_profile
from workers.messages import (
    PROTOCOL,
    Accepted,
    Endpoint,
    Finish,
    HandOver,
    Heartbeat,
    MeetPeer,
    PeerMet,
    PhaseCounts,
    Step,
    StepStats,
    Submit,
    Ticket,
    ToGateway,
    TokenRun,
    ToWorker,
    Welcome,
)
from workers.policy.settings import PolicySettings

PROFILE = load_profile("h100-qwen32b")
EVERYTHING = Window(0.0, 1e9)


# ---- what is recorded ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Came:
    at_s: float
    key: int
    prompt: int
    chosen: str
    idle: dict[str, int]  # free blocks of instances without work, by their heartbeats


@dataclass(frozen=True)
class Stepped:
    at_s: float
    instance: str
    free_blocks: int
    tokens: dict[int, list[float]]  # by request: when each came
    boundaries: frozenset[int]  # that come with the last of them
    done: frozenset[int]
    idle: dict[str, int]


@dataclass(frozen=True)
class Decided:
    at_s: float
    key: int
    chosen: str


Happening = Came | Stepped | Decided


class Recorder(Watch):
    """Keeps what a gateway would hear, and what the simulation decided."""

    def __init__(self) -> None:
        self.events: list[Happening] = []
        self.claimed: dict[int, bool] = {}  # whether a request's KV was read where it went
        self.cluster: Cluster
        self._keys: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._lives: list[Live] = []  # keeps ids valid
        self._moves: list[Move] = []

    def key(self, live: Live) -> int:
        return self._keys[id(live)]

    def idle(self) -> dict[str, int]:
        instances = self.cluster.instances.values()
        return {i.name: i.told_free_blocks for i in instances if not i.busy}

    def arrived(self, now: float, instance: SimulatedInstance, live: Live) -> None:
        key = self._keys[id(live)] = len(self._keys)
        self._seen[key] = 0
        self._lives.append(live)
        self.events.append(Came(now, key, live.timeline.lengths.prompt, instance.name, self.idle()))

    def step_ended(self, now: float, instance: SimulatedInstance, ended: Ended) -> None:
        tokens: dict[int, list[float]] = {}
        others = [live for live in instance.lives if live not in ended.crossed]
        for live in [*others, *ended.done, *ended.crossed]:  # in the order of vLLM's output
            key = self.key(live)
            if new := live.generated - self._seen[key]:
                tokens[key] = list(ended.tokens)
                assert len(tokens[key]) == new
                self._seen[key] = live.generated
        self.events.append(
            Stepped(
                now,
                instance.name,
                instance.told_free_blocks,
                tokens,
                frozenset(map(self.key, ended.crossed)),
                frozenset(map(self.key, ended.done)),
                self.idle(),
            )
        )

    def decided(self, now: float, here: SimulatedInstance, live: Live, chosen: str) -> None:
        self.events.append(Decided(now, self.key(live), chosen))

    def moved(self, now: float, there: SimulatedInstance, move: Move) -> None:
        self._moves.append(move)

    def closed(self, now: float) -> None:
        self.claimed = {self.key(move.live): move.held.claimed for move in self._moves}


# ---- the live cluster ---------------------------------------------------------------------------


class Time:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Link:
    """Leads nowhere: keeps what the gateway sends."""

    def __init__(self, name: str, blocks: int, clock: Time) -> None:
        self.welcome = Welcome(
            protocol=PROTOCOL,
            instance_id=name,
            pid=1,
            model="m",
            max_model_len=1_000_000,
            block_size=16,
            kv_blocks_total=blocks,
            engine="none",
            endpoint=Endpoint(engine_id=name, host="h", port=1),
        )
        self.full = False
        self.sent: list[ToWorker] = []
        self.hear: Callable[[ToGateway], None]
        self._clock = clock

    @property
    def last_heard_s(self) -> float:
        return self._clock.now

    def send(self, message: ToWorker) -> None:
        self.sent.append(message)

    async def run(self, handle: Callable[[ToGateway], None]) -> None:
        self.hear = handle
        await asyncio.Event().wait()


class LiveCluster:
    """The gateway's cluster, to be told what happened, and asked where requests are."""

    def __init__(self, clock: Time, rules: Rules, numbers: PolicySettings, recorder: Recorder):
        self.clock = clock
        self.recorder = recorder
        self.cluster = live_cluster.Cluster(
            on_progress=lambda session: None, rules=rules, view_rules=view_rules(numbers)
        )
        self.sessions: dict[int, Session] = {}
        self.links: dict[str, Link] = {}
        self.prompts: dict[int, int] = {}
        self._blocks = 0

    async def join(self, names: list[str], blocks: int) -> list[asyncio.Task[None]]:
        """:return: those that serve the links."""
        self._blocks = blocks
        tasks = []
        for name in names:
            link: Any = Link(name, blocks, self.clock)
            self.links[name] = link
            tasks.append(asyncio.ensure_future(self.cluster.serve(link)))
            await asyncio.sleep(0)
        self.pump()
        return tasks

    def pump(self) -> None:
        """Answer as workers do, at once."""
        while any(link.sent for link in self.links.values()):
            for name, link in self.links.items():
                sent, link.sent = link.sent, []
                for message in sent:
                    self._answer(name, link, message)

    def _answer(self, name: str, link: Link, message: ToWorker) -> None:
        match message:
            case MeetPeer(peer=peer):
                link.hear(PeerMet(engine_id=peer.engine_id))
            case Submit(request_id=wire_id, known_token_ids=known):
                key = int(wire_id.partition(".")[0])
                link.hear(
                    Accepted(
                        request_id=wire_id,
                        prompt_tokens=self.prompts[key],
                        reasoning=not known,
                    )
                )
            case HandOver(request_id=wire_id):
                session = self.sessions[int(wire_id.partition(".")[0])]
                ticket = Ticket(engine_id=name, data="", tokens=session.kv_tokens, valid_s=10.0)
                claimed = self.recorder.claimed.get(int(session.response_id), False)
                run = TokenRun(
                    request_id=wire_id,
                    position=len(session.token_ids),
                    token_ids=(),
                    texts=(),
                    finish=Finish(reason="handed_over", ticket=ticket if claimed else None),
                )
                instance = self.cluster.instances[name]
                assert instance.stats is not None
                self._frame(link, (run,), instance.stats)

    def _frame(self, link: Link, runs: tuple[TokenRun, ...], stats: StepStats) -> None:
        link.hear(Step(sequence=0, runs=runs, stats=stats))

    def stats(self, free_blocks: int) -> StepStats:
        return StepStats(
            reasoning=PhaseCounts(),
            answering=PhaseCounts(),
            kv_blocks_used=self._blocks - free_blocks,
            kv_blocks_total=self._blocks,
            preemptions_total=0,
            steps_total=0,
        )

    def read(self, now: float) -> None:
        """Readers get what is due."""
        for session in self.sessions.values():
            while (at_s := session.next_release_s()) is not None and at_s <= now:
                session.release(at_s)

    def holder(self, key: int) -> str | None:
        route = self.cluster.router.routes.get(str(key))
        return None if route is None else route.holder

    def came(self, event: Came) -> None:
        self.clock.now = event.at_s
        self.read(event.at_s)
        self.beat(event.idle)
        body = parse_body({"input": "?"}, ResponsesBody)
        session = Session(
            str(event.key),
            from_responses(body, (), default_targets(PacingConfig(), {})),
            model="m",
            owner="",
            created_at=0.0,
            now=event.at_s,
            log_capacity=100_000,
        )
        self.sessions[event.key] = session
        self.prompts[event.key] = event.prompt
        self.cluster.router.begin(session)
        self.pump()

    def beat(self, idle: dict[str, int]) -> None:
        """Heartbeats of those who have nothing else to say."""
        for name, free_blocks in idle.items():
            self.links[name].hear(Heartbeat(since_step_s=0.0, stats=self.stats(free_blocks)))

    def stepped(self, event: Stepped) -> None:
        self.beat(event.idle)
        times = sorted({at_s for all_s in event.tokens.values() for at_s in all_s})
        for at_s in times or [event.at_s]:
            self.clock.now = at_s
            self.read(at_s)
            last = not times or at_s == times[-1]
            runs = tuple(self._run(event, key, last) for key in event.tokens)
            self._frame(self.links[event.instance], runs, self.stats(event.free_blocks))
        self.clock.now = event.at_s
        self.pump()

    def _run(self, event: Stepped, key: int, last: bool) -> TokenRun:
        boundary = last and key in event.boundaries
        route = self.cluster.router.routes[str(key)]
        with_kv = route.migration is not None and route.migration.with_kv
        return TokenRun(
            request_id=route.wire_id,
            position=len(self.sessions[key].token_ids),
            kv_tokens=self.sessions[key].kv_tokens if with_kv else None,
            token_ids=(1,),
            texts=("" if boundary else "x",),
            boundary=0 if boundary else None,
            finish=Finish(reason="length") if last and key in event.done else None,
        )


# ---- the two together ---------------------------------------------------------------------------

NUMBERS = {"quantum_tokens": 60, "demotion_tokens": 100}


@dataclass(frozen=True)
class Case:
    """A simulation to come."""

    seed: int
    instances: int
    policy: str
    kv_blocks: int
    gap_s: float  # between arrivals
    leaps: bool
    rules: Rules


CASES = st.builds(
    Case,
    seed=st.integers(0, 10**6),
    instances=st.integers(2, 4),
    policy=st.sampled_from(["slack", "pascal", "rr", "fcfs"]),
    kv_blocks=st.integers(60, 200),
    gap_s=st.sampled_from([0.05, 0.2, 0.5]),
    leaps=st.booleans(),
    rules=st.builds(
        Rules,
        new=st.sampled_from(["pascal", "pascal", "round_robin", "least_kv"]),
        boundary=st.sampled_from(["balance", "always", "adaptive", "off"]),
        balance_gap=st.sampled_from([0.1, 0.5, 1.0]),
        headroom=st.sampled_from([0.0, 0.02, 0.2]),
        cost_check=st.booleans(),
        max_migrations=st.sampled_from([0, 2, 16]),
        max_migrations_per_instance=st.sampled_from([0, 1, 4]),
    ),
)


def recorded(case: Case, requests: int = 25) -> Recorder:
    chance = random.Random(case.seed)
    at_s = 0.0
    arrivals = []
    for _ in range(requests):
        at_s += chance.expovariate(1 / case.gap_s)
        lengths = Lengths(chance.randint(1, 200), chance.randint(1, 200), chance.randint(1, 150))
        arrivals.append(Arrival(at_s, lengths))
    instance = InstanceSettings(
        profile=PROFILE,
        model=str(MODEL),
        policy=case.policy,
        policy_numbers=NUMBERS,
        kv_blocks=case.kv_blocks,
        migration=True,
        leaps=case.leaps,
    )
    recorder = Recorder()
    recorder.cluster = Cluster(instance, case.instances, EVERYTHING, case.rules, recorder)
    recorder.cluster.run(iter(arrivals))
    return recorder


async def replayed(case: Case, recorder: Recorder, clock: Time) -> tuple[int, int]:
    """Hold every decision against the live cluster's; :return: requests that stayed, and moved."""
    numbers = PolicySettings.of({"policy": case.policy, **NUMBERS})
    live = LiveCluster(clock, case.rules, numbers, recorder)
    stayed = moved = 0
    before: dict[int, str | None] = {}
    tasks = await live.join(list(recorder.cluster.instances), case.kv_blocks - 1)
    for event in recorder.events:
        match event:
            case Came():
                live.came(event)
                assert live.holder(event.key) == event.chosen, event
            case Stepped():
                before = {key: live.holder(key) for key in event.boundaries}
                live.stepped(event)
            case Decided():
                assert live.holder(event.key) == event.chosen, event
                moved += event.chosen != before[event.key]
                stayed += event.chosen == before[event.key]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return stayed, moved


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(live_cluster, "time", clock)
    monkeypatch.setattr(live_router, "time", clock)
    return clock


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=CASES)
def test_the_gateway_decides_as_the_simulation_did(case: Case, clock: Time) -> None:
    asyncio.run(replayed(case, recorded(case), clock))


def test_requests_stay_and_move(clock: Time) -> None:
    """Else the test above would show nothing."""
    rules = Rules(boundary="always", cost_check=False, max_migrations_per_instance=2)
    case = Case(1, 3, "pascal", 100, 0.2, True, rules)
    stayed, moved = asyncio.run(replayed(case, recorded(case), clock))
    assert min(stayed, moved) > 3
