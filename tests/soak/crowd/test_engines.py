"""The scripted workers keep to the worker link, and their text to what was asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from websockets.asyncio.client import unix_connect
from websockets.asyncio.server import unix_serve

from tests.soak.crowd.engines import STEP_S, ScriptedEngine
from workers import messages
from workers.messages import (
    Accepted,
    Cancel,
    ChatMessage,
    ForcedLengths,
    Hello,
    Pace,
    Rejected,
    Sampling,
    Step,
    Submit,
    ToGateway,
    TokenRun,
    Welcome,
)


def submit(name: str, lengths: ForcedLengths | None, known: int = 0) -> Submit:
    return Submit(
        request_id=name,
        messages=(ChatMessage(role="user", content="Hello."),),
        sampling=Sampling(),
        pace=Pace(tau_s=0.1),
        known_token_ids=(1,) * known,
        forced_lengths=lengths,
    )


async def test_requests_get_their_tokens_and_one_finish_each(tmp_path: Path) -> None:
    path = str(tmp_path / "worker.sock")
    lengths = ForcedLengths(reasoning_tokens=3, answer_tokens=4)
    engine = ScriptedEngine("worker-0")
    async with (
        asyncio.timeout(10),
        unix_serve(engine.handle, path),
        unix_connect(path) as socket,
    ):

        async def next_message() -> ToGateway:
            return messages.decode_to_gateway(await socket.recv(decode=False))

        await socket.send(messages.encode(Hello(protocol=messages.PROTOCOL, gateway="test")))
        assert isinstance(await next_message(), Welcome)
        for one in (
            submit("whole", lengths),
            submit("moved", lengths, known=5),
            submit("stopped", ForcedLengths(reasoning_tokens=1, answer_tokens=10_000)),
            submit("wrong", None),
        ):
            await socket.send(messages.encode(one))
        runs: dict[str, list[TokenRun]] = {"whole": [], "moved": [], "stopped": []}
        reasons: dict[str, str] = {}
        reasoning: dict[str, bool] = {}
        sequence = 0
        while len(reasons) < 3:
            message = await next_message()
            match message:
                case Accepted():
                    reasoning[message.request_id] = message.reasoning
                case Rejected():
                    assert message.request_id == "wrong"
                case Step():
                    assert message.sequence == sequence
                    sequence += 1
                    for run in message.runs:
                        runs[run.request_id].append(run)
                        if run.finish is not None:
                            reasons[run.request_id] = run.finish.reason
                    if len(runs["stopped"]) == 5:
                        await socket.send(messages.encode(Cancel(request_id="stopped")))
                        await asyncio.sleep(2 * STEP_S)
    assert reasons == {"whole": "stop", "moved": "stop", "stopped": "cancelled"}
    assert reasoning == {"whole": True, "moved": False, "stopped": True}
    assert [run.position for run in runs["whole"]] == list(range(7))
    assert [run.position for run in runs["moved"]] == [5, 6]
    turns = [[(turn.at, turn.phase) for turn in run.turns] for run in runs["whole"]]
    assert turns == [[], [], [(1, "answering")], [], [], [], []]
    assert [run.texts for run in runs["moved"]] == [run.texts for run in runs["whole"][5:]]
