"""The service between a scripted engine and an outbox that the test reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.workers.support.formats import CONTEXT, chat_renderer, form_of
from workers import tracing
from workers.engine.interface import (
    EngineEvents,
    EngineFacts,
    EngineGone,
    EngineOutput,
    EngineRequest,
    EngineStep,
    TokenScores,
)
from workers.errors import RequestRejected
from workers.messages import (
    Accepted,
    ChatMessage,
    Endpoint,
    Finish,
    FinishReason,
    ForcedLengths,
    Heartbeat,
    Load,
    OtherLoads,
    Pace,
    PeerMet,
    PhaseCounts,
    PolicySet,
    Prefixes,
    Rejected,
    Sampling,
    Step,
    StepStats,
    Structure,
    Submit,
    Ticket,
    TokenRun,
    answers_after,
)
from workers.policy.phase import Phase
from workers.requests.chat_template import ChatRenderer
from workers.requests.detokenize import Decode
from workers.requests.gateways import Gateway
from workers.requests.service import Service

TICKET = Ticket(engine_id="e", data="{}", tokens=40, valid_s=5.0)
PEER = Endpoint(engine_id="f", host="127.0.0.1", port=9)

STATS = StepStats(
    reasoning=PhaseCounts(),
    answering=PhaseCounts(),
    kv_blocks_used=0,
    kv_blocks_total=8,
    preemptions_total=0,
    steps_total=0,
)


class ScriptedEngine:
    """An engine that reports what the test says, and records all calls."""

    def __init__(self) -> None:
        self.facts = EngineFacts("scripted", 512, 32, 8)
        self.calls: list[Any] = []  # without submits
        self.meeting: str | Exception | None = None  # how the next one ends
        self.meets = asyncio.Event()  # which it does not before this
        self.meets.set()
        self.requests: asyncio.Queue[EngineRequest] = asyncio.Queue()
        self.events: EngineEvents

    def start(self, events: EngineEvents) -> None:
        self.events = events

    def submit(self, request: EngineRequest) -> None:
        if request.sampling.temperature == 9:
            raise RequestRejected("invalid_value", "too hot", "sampling.temperature")
        self.requests.put_nowait(request)

    async def check_structure(self, structure: Structure, began: Phase) -> None:
        if structure.value == "(":
            raise RequestRejected("invalid_value", "no regex", "structure.value")
        self.calls.append(("structure", structure.kind, began))

    def vocabulary(self) -> Sequence[bytes]:
        return [bytes([token % 256]) for token in range(1024)]

    async def submitted(self) -> EngineRequest:
        return await self.requests.get()

    def cancel(self, request_id: str) -> None:
        self.calls.append(("cancel", request_id))

    def hand_over(self, request_id: str) -> None:
        self.calls.append(("hand_over", request_id))

    async def use_policy(self, policy: str) -> str | None:
        self.calls.append(("use_policy", policy))
        if policy == "broken":
            raise EngineGone("it has stopped")
        return "there is none" if policy == "lifo" else None

    async def meet_peer(self, peer: Endpoint) -> str | None:
        self.calls.append(("meet_peer", peer))
        await self.meets.wait()
        if isinstance(self.meeting, Exception):
            raise self.meeting
        return self.meeting

    def turn(self, request_id: str, phase: Phase) -> None:
        self.calls.append(("turn", request_id, phase))

    def set_pace(self, request_id: str, pace: Pace) -> None:
        self.calls.append(("set_pace", request_id, pace))

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def stats(self) -> StepStats:
        return STATS

    def since_step_s(self) -> float:
        return 1.5

    async def close(self) -> None:
        """Nothing to free."""


class Bench:
    """A service whose engine and outbox the test controls."""

    def __init__(self, renderer: ChatRenderer, tasks: asyncio.TaskGroup) -> None:
        self.engine = ScriptedEngine()
        self.failures: list[str] = []
        self.service = Service(self.engine, renderer, tasks, self.failures.append)
        self.engine.start(self.service)
        self.filled = asyncio.Event()
        self.cuts: list[str] = []  # why the gateway's connection must end
        self.gateway = self.connect("test")

    def connect(self, name: str) -> Gateway:
        """Connect a gateway."""
        gateway = Gateway(name, self.filled.set, self.cuts.append)
        self.service.connect(gateway)
        return gateway

    def sent(self) -> list[Any]:
        messages = []
        while (message := self.gateway.outbox.take()) is not None:
            messages.append(message)
        self.service.gateways.drained()
        self.filled.clear()
        return messages

    async def answered(self) -> list[Any]:
        await self.filled.wait()
        return self.sent()

    def submit(self, request_id: str = "a", text: str = "Hi", **fields: Any) -> None:
        values: dict[str, Any] = {
            "request_id": request_id,
            "messages": (ChatMessage(role="user", content=text),),
            "sampling": Sampling(),
            "pace": Pace(tau_s=0.1),
        }
        self.service.submit(self.gateway, Submit(**(values | fields)))

    async def running(self, request_id: str = "a", **fields: Any) -> EngineRequest:
        """Submit, and let the engine accept."""
        self.submit(request_id, **fields)
        request = await self.engine.submitted()
        self.engine.events.request_accepted(request_id)
        (accepted,) = self.sent()
        assert isinstance(accepted, Accepted)
        return request

    def step(self, *outputs: EngineOutput) -> None:
        self.engine.events.step_finished(EngineStep(outputs, STATS))

    def runs(self) -> list[TokenRun]:
        return [run for message in self.sent() if isinstance(message, Step) for run in message.runs]


@pytest.fixture(scope="module")
def renderer() -> ChatRenderer:
    return chat_renderer()


BAD_TOKEN = 77


class BrittleRenderer(ChatRenderer):
    """A renderer whose tokenizer does not know one of the tokens."""

    @property
    def decode(self) -> Decode:
        whole = super().decode

        def decode(ids: Sequence[int]) -> str:
            if BAD_TOKEN in ids:
                raise KeyError(f"the secret: {ids}")
            return whole(ids)

        return decode


@pytest.fixture(scope="module")
def brittle() -> ChatRenderer:
    return BrittleRenderer(form_of(), CONTEXT)


@pytest.fixture
async def bench(renderer: ChatRenderer) -> AsyncIterator[Bench]:
    async with asyncio.TaskGroup() as tasks:
        made = Bench(renderer, tasks)
        yield made
        made.service.close()


def ids(renderer: ChatRenderer, text: str) -> tuple[int, ...]:
    return renderer._encode(text)


async def test_tokens_become_runs_with_positions_and_texts(
    bench: Bench, renderer: ChatRenderer
) -> None:
    await bench.running()
    first, second = ids(renderer, "<think>Hm.</think>"), ids(renderer, "\nYes.")
    bench.step(EngineOutput("a", first, cached_tokens=32))
    (run,) = bench.runs()
    assert (run.position, run.token_ids, run.turns) == (0, first, answers_after(len(first) - 1))
    assert "".join(run.texts) == "Hm."
    bench.step(EngineOutput("a", second, "stop", preemptions=2))
    (run,) = bench.runs()
    assert (run.position, run.turns) == (len(first), ())
    assert "".join(run.texts) == "Yes."
    assert run.finish == Finish(reason="stop", preemptions=2, cached_tokens=32)


async def test_nothing_follows_a_finish(bench: Bench) -> None:
    await bench.running()
    bench.step(EngineOutput("a", (10,), "length"))
    assert len(bench.runs()) == 1
    bench.step(EngineOutput("a", (11,)))
    assert bench.runs() == []
    bench.service.cancel(bench.gateway, "a")
    assert bench.engine.calls == []


async def test_stop_string_ends_the_request_in_the_engine_too(
    bench: Bench, renderer: ChatRenderer
) -> None:
    await bench.running(sampling=Sampling(stop=("END",)), thinking=False)
    bench.step(EngineOutput("a", ids(renderer, "One END two")))
    (run,) = bench.runs()
    assert "".join(run.texts) == "One "
    assert run.finish == Finish(reason="stop", stop="END")
    assert ("cancel", "a") in bench.engine.calls
    bench.step(EngineOutput("a", (), "cancelled"))
    assert bench.runs() == []


async def test_wrong_requests_are_rejected_and_leave_nothing(bench: Bench) -> None:
    for fields in ({"messages": ()}, {"sampling": Sampling(temperature=9)}, {"text": "7" * 600}):
        bench.submit("bad", **fields)
        (answer,) = await bench.answered()
        assert isinstance(answer, Rejected)
    await bench.running("bad")  # the id is free


async def test_id_that_is_running_is_rejected_and_the_first_goes_on(bench: Bench) -> None:
    await bench.running()
    bench.submit("a")
    (answer,) = bench.sent()
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.param) == ("duplicate_request", "request_id")
    bench.step(EngineOutput("a", (10,)))
    assert len(bench.runs()) == 1


async def test_refusal_of_the_engine_itself_reaches_the_gateway(bench: Bench) -> None:
    bench.submit()
    await bench.engine.submitted()
    bench.engine.events.request_rejected("a", "token id 5000 is out of vocabulary")
    (answer,) = bench.sent()
    assert isinstance(answer, Rejected)
    assert "5000" in answer.message


async def test_cancel_while_the_prompt_is_rendered(bench: Bench) -> None:
    bench.submit()
    bench.service.cancel(bench.gateway, "a")
    accepted, step = await bench.answered()
    assert isinstance(accepted, Accepted)
    assert step.runs[0].finish == Finish(reason="cancelled")
    assert bench.engine.requests.empty()


async def test_cancel_before_the_engine_has_answered(bench: Bench) -> None:
    bench.submit()
    await bench.engine.submitted()
    bench.service.cancel(bench.gateway, "a")
    assert bench.engine.calls[-1] == ("cancel", "a")
    bench.engine.events.request_accepted("a")
    bench.step(EngineOutput("a", (), "cancelled"))
    accepted, step = bench.sent()
    assert isinstance(accepted, Accepted)
    assert step.runs[0].finish.reason == "cancelled"


async def test_hand_over_while_the_prompt_is_rendered(bench: Bench) -> None:
    bench.submit()
    bench.service.hand_over(bench.gateway, "a")
    accepted, step = await bench.answered()
    assert isinstance(accepted, Accepted)
    assert step.runs[0].finish == Finish(reason="handed_over")
    assert bench.engine.requests.empty()


async def test_a_cancellation_is_not_undone_by_a_hand_over(bench: Bench) -> None:
    bench.submit()
    bench.service.cancel(bench.gateway, "a")
    bench.service.hand_over(bench.gateway, "a")
    _, step = await bench.answered()
    assert step.runs[0].finish == Finish(reason="cancelled")


async def test_ticket_of_a_request_that_leaves_reaches_the_gateway(bench: Bench) -> None:
    await bench.running()
    bench.service.hand_over(bench.gateway, "a")
    bench.service.hand_over(bench.gateway, "unknown")
    assert bench.engine.calls == [("hand_over", "a")]
    bench.step(EngineOutput("a", (), "handed_over", preemptions=1, ticket=TICKET))
    (step,) = bench.sent()
    assert step.runs[0].finish == Finish(reason="handed_over", preemptions=1, ticket=TICKET)
    bench.service.hand_over(bench.gateway, "a")
    assert bench.engine.calls == [("hand_over", "a")]


async def test_ticket_of_a_request_that_comes_reaches_the_engine(
    bench: Bench, renderer: ChatRenderer
) -> None:
    request = await bench.running(known_token_ids=ids(renderer, "<think>So"), ticket=TICKET)
    assert request.ticket == TICKET


async def test_what_became_of_the_ticket_reaches_the_gateway_with_the_first_tokens(
    bench: Bench, renderer: ChatRenderer
) -> None:
    first, second, third = ids(renderer, "abc def ghi")[:3]
    await bench.running(ticket=TICKET)
    bench.step(EngineOutput("a", (), kv_tokens=7))  # as where a stop string holds tokens back
    bench.step(EngineOutput("a", (first,)))
    bench.step(EngineOutput("a", (second,)))
    (step,) = bench.sent()  # one frame, as the link takes them late
    bench.step(EngineOutput("a", (third,)))
    (later,) = bench.sent()
    assert [(r.token_ids, r.kv_tokens) for r in step.runs] == [((first, second), 7)]
    assert [(r.token_ids, r.kv_tokens) for r in later.runs] == [((third,), None)]


async def test_text_held_back_when_a_request_leaves_is_given_out_where_it_goes_on(
    bench: Bench, renderer: ChatRenderer
) -> None:
    whole = ids(renderer, "<think>a</think>é!")
    cut = next(i for i in range(1, len(whole)) if "\ufffd" in renderer.decode(whole[:i]))
    await bench.running()
    bench.step(EngineOutput("a", whole[:cut], "handed_over"))
    first = "".join(text for step in bench.sent() for run in step.runs for text in run.texts)
    await bench.running("b", known_token_ids=whole[:cut])
    bench.step(EngineOutput("b", whole[cut:], "stop"))
    rest = "".join(text for step in bench.sent() for run in step.runs for text in run.texts)
    assert first + rest == "aé!"
    assert "é" not in first


@pytest.mark.parametrize("error", [None, "nobody there"])
async def test_meeting_another_engine_is_answered(bench: Bench, error: str | None) -> None:
    bench.engine.facts = replace(bench.engine.facts, endpoint=PEER)
    bench.engine.meeting = error
    bench.service.meet_peer(bench.gateway, PEER)
    assert await bench.answered() == [PeerMet(engine_id="f", error=error)]
    assert bench.engine.calls == [("meet_peer", PEER)]


async def test_a_meeting_that_raises_is_answered_and_ends_nothing_else(bench: Bench) -> None:
    bench.engine.facts = replace(bench.engine.facts, endpoint=PEER)
    bench.engine.meeting = RuntimeError("the peer has died")
    await bench.running()
    bench.service.meet_peer(bench.gateway, PEER)
    assert await bench.answered() == [
        PeerMet(engine_id="f", error="RuntimeError: the peer has died")
    ]
    bench.step(EngineOutput("a", (10,)))
    assert len(bench.runs()) == 1


async def test_closing_ends_a_meeting_and_a_prompt_that_are_under_way(
    renderer: ChatRenderer,
) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        bench = Bench(renderer, tasks)
        bench.engine.facts = replace(bench.engine.facts, endpoint=PEER)
        bench.engine.meets.clear()
        bench.service.meet_peer(bench.gateway, PEER)
        bench.submit()
        bench.service.close()
    assert bench.sent() == []


async def test_tokens_that_cannot_be_decoded_end_one_request_only(brittle: ChatRenderer) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(brittle, tasks)
        for name in ("a", "b", "c"):
            await bench.running(name, x_request_id=f"req-{name}")
        assert tracing.add_x_request_id(None, "", {"request_id": "b"})["x_request_id"] == "req-b"
        bench.step(
            EngineOutput("a", (10,)), EngineOutput("b", (BAD_TOKEN,)), EngineOutput("c", (11,))
        )
        (step,) = bench.sent()
        assert [(run.request_id, run.token_ids) for run in step.runs] == [
            ("a", (10,)),
            ("b", ()),
            ("c", (11,)),
        ]
        finish = step.runs[1].finish
        assert finish == Finish(
            reason="error", message="the output could not be turned into text: KeyError"
        )
        assert bench.engine.calls == [("cancel", "b")]
        bench.step(EngineOutput("a", (12,)), EngineOutput("b", (), "cancelled"))
        assert [run.request_id for run in bench.runs()] == ["a"]
        # The next worker cannot decode the output either, so the request ends there.
        bench.submit("b", known_token_ids=(10, BAD_TOKEN))
        (rejected,) = await bench.answered()
        assert (rejected.code, "secret" in rejected.message) == ("internal_error", False)
        bench.service.close()


@pytest.mark.parametrize("tau_s", [0.0, -1.0, float("nan"), float("inf")])
async def test_a_pace_that_no_reader_can_have_does_not_reach_the_engine(
    bench: Bench, tau_s: float
) -> None:
    bench.submit(pace=Pace(tau_s=tau_s))
    (rejected,) = await bench.answered()
    assert (rejected.code, rejected.param) == ("invalid_value", "pace.tau_s")
    await bench.running()
    bench.service.set_pace(bench.gateway, "a", Pace(tau_s=tau_s))
    assert bench.engine.calls == []


async def test_an_error_of_the_engine_for_one_request_reaches_the_gateway(bench: Bench) -> None:
    await bench.running()
    bench.step(EngineOutput("a", (), "error", message="why"))
    (run,) = bench.runs()
    assert run.finish == Finish(reason="error", message="why")


@pytest.mark.parametrize("stage", ["unknown", "preparing", "queueing", "active"])
async def test_a_request_can_be_failed_wherever_it_stands(bench: Bench, stage: str) -> None:
    if stage != "unknown":
        bench.submit()
    if stage in ("queueing", "active"):
        await bench.engine.submitted()
    if stage == "active":
        bench.engine.events.request_accepted("a")
        bench.sent()
    bench.service.fail(bench.gateway, "a", "why")
    (answer,) = bench.sent()
    if stage == "active":
        assert answer.runs[0].finish == Finish(reason="error", message="why")
    else:
        assert (answer.code, answer.message) == ("internal_error", "why")
    assert bench.engine.calls == [("cancel", "a")] * (stage in ("queueing", "active"))
    await bench.running("a")  # the id is free


async def test_an_engine_whose_kv_cannot_move_meets_nobody(bench: Bench) -> None:
    bench.service.meet_peer(bench.gateway, PEER)
    (met,) = await bench.answered()
    assert met == PeerMet(engine_id="f", error="the KV of this engine cannot move")
    assert bench.engine.calls == []


async def test_pace_that_changes_while_the_prompt_is_rendered_is_not_lost(bench: Bench) -> None:
    faster = Pace(tau_s=0.01)
    bench.submit()
    bench.service.set_pace(bench.gateway, "a", faster)
    assert (await bench.engine.submitted()).pace == faster
    bench.service.set_pace(bench.gateway, "a", Pace(tau_s=0.2))
    assert bench.engine.calls[-1] == ("set_pace", "a", Pace(tau_s=0.2))


async def test_known_output_is_part_of_the_prompt_and_positions_go_on(
    bench: Bench, renderer: ChatRenderer
) -> None:
    known = ids(renderer, "<think>So")
    request = await bench.running(known_token_ids=known)
    assert request.prompt_token_ids[-len(known) :] == known
    assert request.max_tokens == 512 - len(request.prompt_token_ids)
    bench.step(EngineOutput("a", ids(renderer, " far</think>ok")))
    (run,) = bench.runs()
    assert run.position == len(known)
    assert "".join(run.texts) == " farok"


@pytest.mark.parametrize("reason", ["length", "stop"])
async def test_known_output_that_is_complete_needs_no_engine(
    bench: Bench, reason: FinishReason
) -> None:
    if reason == "length":
        bench.submit(known_token_ids=(10, 11), sampling=Sampling(max_tokens=2))
    else:
        forced = ForcedLengths(reasoning_tokens=1, answer_tokens=1)
        bench.submit(known_token_ids=(4, 11), forced_lengths=forced)
    _, step = await bench.answered()
    (run,) = step.runs
    assert (run.position, run.token_ids, run.finish.reason) == (2, (), reason)
    assert bench.engine.requests.empty()


async def test_engine_pauses_while_the_gateway_does_not_read(bench: Bench) -> None:
    await bench.running()
    for _ in range(8):
        bench.step(EngineOutput("a", (10,) * 1024))
    assert "pause" not in bench.engine.calls
    bench.step(EngineOutput("a", (10,)))
    assert bench.engine.calls[-1] == "pause"
    (run,) = bench.runs()
    assert len(run.token_ids) == 8 * 1024 + 1
    assert bench.engine.calls[-1] == "resume"


async def test_the_engine_does_not_wait_long_for_one_of_several_gateways(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.requests.gateways._PATIENCE_S", 0.0)
    await bench.running()
    bench.step(EngineOutput("a", (10,) * 9000))
    assert bench.engine.calls == ["pause"]
    bench.service.heartbeat(bench.gateway)
    assert bench.cuts == []  # nobody else waits
    bench.connect("second")
    bench.service.heartbeat(bench.gateway)
    assert bench.cuts == ["9000 tokens were not read for 0 s"]
    bench.service.disconnect(bench.gateway)
    assert bench.engine.calls == ["pause", ("cancel", "a"), "resume"]


async def test_each_gateway_gets_the_tokens_of_its_own_requests(bench: Bench) -> None:
    first, second = bench.gateway, bench.connect("second")
    bench.sent()
    await bench.running("a")
    bench.gateway = second
    bench.sent()
    await bench.running("b")
    bench.step(EngineOutput("a", (10,)), EngineOutput("b", (11,)))
    for gateway, request_id in ((first, "a"), (second, "b")):
        bench.gateway = gateway
        assert [run.request_id for run in bench.runs()] == [request_id]
    # A gateway without a part in the steps hears of the engine now and then, not every time.
    for _ in range(50):
        bench.step(EngineOutput("a", (10,)))
    bench.gateway = second
    assert len(bench.sent()) <= 1
    # No gateway can touch the request of another.
    for act in (bench.service.cancel, bench.service.hand_over):
        act(second, "a")
    bench.service.set_pace(second, "a", Pace(tau_s=0.2))
    bench.service.fail(second, "a", "a bug")
    (refused,) = bench.sent()
    assert (refused.request_id, refused.code) == ("a", "internal_error")
    assert bench.engine.calls == []
    bench.service.disconnect(second)
    assert bench.engine.calls == [("cancel", "b")]
    bench.gateway = first
    bench.step(EngineOutput("a", (10,)))
    assert [run.request_id for run in bench.runs()] == ["a"]


async def test_a_change_of_policy_is_told_to_all_and_a_refusal_to_the_one_that_asked(
    bench: Bench,
) -> None:
    first, second = bench.gateway, bench.connect("second")
    bench.sent()
    bench.service.set_policy(second, "rr")
    await bench.filled.wait()
    assert bench.sent() == [PolicySet(policy="rr")]
    bench.service.set_policy(second, "lifo")
    bench.gateway = second
    await bench.filled.wait()
    told = [message for message in bench.sent() if isinstance(message, PolicySet)]
    assert [message.error for message in told] == [None, "there is none"]
    bench.gateway = first
    assert bench.sent() == []


async def test_each_gateway_hears_what_the_others_have(bench: Bench) -> None:
    def heard(gateway: Gateway) -> list[Any]:
        bench.gateway = gateway
        return [message for message in bench.sent() if isinstance(message, OtherLoads)]

    first = bench.gateway
    assert heard(first) == []  # alone
    second = bench.connect("second")
    assert heard(first) == heard(second) == [OtherLoads(gateways=1, load=Load())]
    third = bench.connect("third")
    for gateway, requests in ((first, 1), (second, 10), (third, 100)):
        bench.service.gateways.told(gateway, Load(requests=requests, late_readers=requests))
    for gateway, requests in ((first, 110), (second, 101), (third, 11)):
        load = Load(requests=requests, late_readers=requests)
        assert heard(gateway) == [OtherLoads(gateways=2, load=load)]
    bench.service.disconnect(third)  # what it told goes with it
    assert heard(second) == [OtherLoads(gateways=1, load=Load(requests=1, late_readers=1))]
    bench.service.disconnect(second)
    assert heard(first) == [OtherLoads(gateways=0, load=Load())]


async def test_lost_gateway_cancels_everything(bench: Bench) -> None:
    await bench.running("a")
    bench.submit("b")  # still being rendered
    bench.service.disconnect(bench.gateway)
    assert bench.engine.calls == [("cancel", "a")]
    bench.gateway = bench.connect("again")
    # Both ids are free again; the end of the old request does not touch the new one.
    bench.submit("a")
    await bench.engine.submitted()
    bench.step(EngineOutput("a", (), "cancelled"))
    assert bench.runs() == []
    bench.engine.events.request_accepted("a")
    bench.step(EngineOutput("a", (10,)))
    assert len(bench.runs()) == 1
    await bench.running("b")


async def test_a_cancel_that_raises_does_not_keep_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.running("a")
    await bench.running("b")
    cancelled = []

    def cancel(request_id: str) -> None:
        cancelled.append(request_id)
        raise RuntimeError

    monkeypatch.setattr(bench.engine, "cancel", cancel)
    bench.service.disconnect(bench.gateway)
    assert cancelled == ["a", "b"]


async def test_a_change_of_policy_is_answered(bench: Bench) -> None:
    answers = []
    for policy in ("rr", "lifo", "broken"):
        bench.service.set_policy(bench.gateway, policy)
        (answer,) = await bench.answered()
        answers.append((answer.policy, answer.error))
    assert answers == [
        ("rr", None),
        ("lifo", "there is none"),
        ("broken", "EngineGone: it has stopped"),
    ]
    assert bench.service.policy == "rr"  # what a gateway that comes later is told


async def test_failed_engine_ends_every_request(bench: Bench) -> None:
    await bench.running("a")
    bench.submit("b")
    await bench.engine.submitted()
    bench.engine.events.engine_failed("it broke")
    rejected, step = bench.sent()
    assert isinstance(rejected, Rejected)
    assert (rejected.request_id, rejected.code) == ("b", "engine_failed")
    assert step.runs[0].finish == Finish(reason="error", message="it broke")
    assert bench.failures == ["it broke"]


async def test_heartbeat_tells_how_long_the_engine_has_not_moved(bench: Bench) -> None:
    bench.service.heartbeat(bench.gateway)
    assert bench.sent() == [Heartbeat(since_step_s=1.5, stats=STATS)]


async def test_the_gateway_is_told_which_conversations_the_engine_has(bench: Bench) -> None:
    long = "word " * 40
    bench.submit("old", text=long, prefixes=(9,))
    bench.engine.events.request_accepted((await bench.engine.submitted()).request_id)
    (accepted,) = bench.sent()
    beat = Heartbeat(since_step_s=1.5, stats=STATS)
    bench.service.heartbeat(bench.gateway)
    bench.service.heartbeat(bench.gateway)
    assert bench.sent() == [Prefixes(tokens={9: accepted.prompt_tokens}), beat]
    await bench.running("a", text=long, prefixes=(1, 2))
    bench.step(EngineOutput("a", (65,), finish="stop"))
    bench.sent()
    await bench.running("b", text=long + "again", prefixes=(1, 2, 3))
    bench.step(EngineOutput("b", (65,), cached_tokens=0, finish="stop"))
    bench.sent()
    bench.service.heartbeat(bench.gateway)
    (told, _) = bench.sent()
    assert told.tokens[9] == 0  # the cache had lost the turn before, so it has lost this
    assert told.tokens.keys() == {2, 3, 9}
    bench.service.disconnect(bench.gateway)
    bench.gateway = bench.connect("another")
    bench.service.heartbeat(bench.gateway)
    (told, _) = bench.sent()
    assert told.tokens.keys() == {2, 3}  # another gateway gets all


async def test_a_structure_is_tried_before_the_request_is_queued(bench: Bench) -> None:
    structure = Structure(kind="json_object")
    request = await bench.running("a", structure=structure, thinking=False)
    assert request.structure == structure
    assert request.began is Phase.ANSWERING
    assert bench.engine.calls == [("structure", "json_object", Phase.ANSWERING)]
    bench.submit("b", structure=Structure(kind="regex", value="("))
    (rejected,) = await bench.answered()
    assert (rejected.request_id, rejected.param) == ("b", "structure.value")
    assert bench.engine.requests.empty()


async def test_log_probabilities_come_with_their_tokens(bench: Bench) -> None:
    await bench.running("a", sampling=Sampling(logprobs=1))
    for token in (65, 66):  # two steps, which go out as one
        scores = TokenScores(-0.5, ((token, -0.5), (200, -1.0)))
        bench.step(EngineOutput("a", (token,), logprobs=(scores,)))
    (run,) = bench.runs()
    assert [(one.token, one.logprob, one.data) for one in run.logprobs] == [
        ("A", -0.5, (65,)),
        ("B", -0.5, (66,)),
    ]
    assert [(one.token, one.data) for one in run.logprobs[0].top] == [
        ("A", (65,)),
        ("\ufffd", (200,)),
    ]


async def test_the_engine_names_the_field_that_it_refuses(bench: Bench) -> None:
    bench.submit("a")
    await bench.engine.submitted()
    bench.engine.events.request_rejected("a", "no such token", param="sampling.logit_bias")
    (rejected,) = bench.sent()
    assert (rejected.code, rejected.param) == ("invalid_value", "sampling.logit_bias")
