"""A real worker process with the embedded model, over its real socket."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed

from tests.workers.support.harness import (
    TOKEN,
    Gateway,
    Output,
    WorkerProcess,
)
from workers.messages import (
    PROTOCOL,
    Cancel,
    ForcedLengths,
    Hello,
    Pace,
    Sampling,
    SetPace,
    encode,
)

pytestmark = [pytest.mark.engine, pytest.mark.slow]

QUESTION = "What is 12 + 30?"


def text_of(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=True)
    return text


async def greedy_output(gateway: Gateway, request_id: str, **fields: Any) -> Output:
    await gateway.submit(request_id, QUESTION, **fields)
    return await gateway.finished(request_id)


async def test_worker_introduces_itself(gateway: Gateway, worker: WorkerProcess) -> None:
    welcome = gateway.welcome
    assert (welcome.protocol, welcome.instance_id, welcome.model) == (PROTOCOL, "worker-0", "tiny")
    assert welcome.pid == worker.process.pid
    assert welcome.max_model_len == 1024
    assert (welcome.kv_blocks_total, welcome.block_size) == (48, 32)
    stats = await gateway.idle_stats()
    assert (stats.kv_blocks_used, stats.steps_total >= 0) == (0, True)


async def test_model_thinks_and_answers(gateway: Gateway, tokenizer: Tokenizer) -> None:
    output = await greedy_output(gateway, "a")
    accepted = gateway.accepted["a"]
    assert accepted.reasoning
    assert output.finish is not None
    assert output.finish.reason == "stop"
    assert output.boundary is not None
    assert output.token_ids[output.boundary] == tokenizer.token_to_id("</think>")
    cut = output.boundary
    thoughts = text_of(tokenizer, output.token_ids[:cut]).removeprefix("<think>")
    assert output.reasoning == thoughts.lstrip()
    assert output.answer == text_of(tokenizer, output.token_ids[cut + 1 :]).lstrip()
    assert output.reasoning
    assert output.answer


async def test_one_frame_per_step_carries_the_phases(gateway: Gateway) -> None:
    await gateway.force("a", 40, 20)
    await gateway.finished("a")
    prompt = gateway.accepted["a"].prompt_tokens
    seen = 0
    for frame in gateway.frames:
        runs = [run for run in frame.runs if run.request_id == "a"]
        seen += sum(len(run.token_ids) for run in runs)
        reasoning, answering = frame.stats.reasoning, frame.stats.answering
        if seen == 60:
            assert (reasoning.running, answering.running) == (0, 0)
            assert frame.stats.kv_blocks_used == 0
            continue
        assert (reasoning.running, answering.running) == ((1, 0) if seen < 40 else (0, 1))
        assert (reasoning.waiting, answering.waiting) == (0, 0)
        assert reasoning.kv_blocks + answering.kv_blocks == frame.stats.kv_blocks_used
        # The newest token has no KV yet.
        assert frame.stats.kv_blocks_used == -(-(prompt + seen - 1) // 32)
    assert seen == 60
    steps = [frame.stats.steps_total for frame in gateway.frames]
    assert steps == sorted(steps)


async def test_forced_lengths_are_exact_through_preemptions(
    gateway: Gateway, tokenizer: Tokenizer
) -> None:
    before = await gateway.idle_stats()
    # Together more than twice the KV memory of 48 blocks of 32 tokens.
    lengths = {f"r{i}": (100 + 13 * i, 90 - 5 * i) for i in range(14)}
    for request_id, (reasoning, answer) in lengths.items():
        await gateway.force(request_id, reasoning, answer)
    vocabulary = tokenizer.get_vocab()
    eos, end = vocabulary["<|im_end|>"], vocabulary["</think>"]
    for request_id, (reasoning, answer) in lengths.items():
        output = await gateway.finished(request_id)
        assert len(output.token_ids) == reasoning + answer
        assert output.boundary == reasoning - 1
        assert output.token_ids.count(end) == 1
        assert eos not in output.token_ids
        assert output.finish is not None
        assert output.finish.reason == "stop"
    after = await gateway.idle_stats()
    preemptions = after.preemptions_total - before.preemptions_total
    assert preemptions > 0
    assert after.reloaded_tokens_total > before.reloaded_tokens_total
    recomputed = after.recomputed_tokens_total - before.recomputed_tokens_total
    assert 0 < recomputed <= 2 * 32 * preemptions  # what had not filled a block
    finishes = [output.finish for output in gateway.outputs.values() if output.finish is not None]
    assert sum(finish.preemptions for finish in finishes) == preemptions
    assert after.kv_blocks_used == 0
    assert any(frame.stats.reasoning.waiting > 0 for frame in gateway.frames)


async def test_cancel_frees_the_memory_at_once(gateway: Gateway) -> None:
    await gateway.force("a", 600, 10)
    await gateway.started("a", 40)
    assert gateway.frames[-1].stats.kv_blocks_used > 0
    await gateway.cancel("a")
    output = await gateway.finished("a")
    assert output.finish is not None
    assert output.finish.reason == "cancelled"
    assert len(output.token_ids) < 610
    (last,) = [frame for frame in gateway.frames if any(run.finish for run in frame.runs)]
    assert last.stats.kv_blocks_used == 0
    assert last.stats.reasoning.running == 0


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"sampling": Sampling(temperature=5.0)}, "invalid_value", "sampling.temperature"),
        ({"sampling": Sampling(max_tokens=0)}, "invalid_value", "sampling.max_tokens"),
        ({"text": "7" * 1100}, "context_length_exceeded", "messages"),
        ({"known_token_ids": (99999,)}, "invalid_value", None),
        (
            {"forced_lengths": ForcedLengths(reasoning_tokens=900, answer_tokens=900)},
            "context_length_exceeded",
            "forced_lengths",
        ),
    ],
)
async def test_wrong_request_is_rejected_and_harms_no_other(
    gateway: Gateway, fields: dict[str, Any], code: str, param: str | None
) -> None:
    await gateway.force("good", 30, 10)
    await gateway.started("good")
    await gateway.submit("bad", **fields)
    await gateway.wait(lambda: "bad" in gateway.rejected)
    rejected = gateway.rejected["bad"]
    assert (rejected.code, rejected.param) == (code, param)
    assert len((await gateway.finished("good")).token_ids) == 40
    assert "bad" not in gateway.accepted


@pytest.mark.parametrize("part", ["thoughts", "answer"])
async def test_known_output_is_continued_token_by_token(gateway: Gateway, part: str) -> None:
    whole = await greedy_output(gateway, "whole")
    assert whole.boundary is not None
    cut = whole.boundary // 2 if part == "thoughts" else whole.boundary + 5
    known = tuple(whole.token_ids[:cut])
    rest = await greedy_output(gateway, "rest", known_token_ids=known)
    assert [*known, *rest.token_ids] == whole.token_ids
    assert [*whole.texts[:cut], *rest.texts] == whole.texts
    assert rest.boundary == (whole.boundary - cut if part == "thoughts" else None)


async def test_stop_string_cuts_the_answer_only(gateway: Gateway) -> None:
    whole = await greedy_output(gateway, "whole")
    stop = whole.answer[len(whole.answer) // 2 :][:6]
    expected = whole.answer[: whole.answer.index(stop)]
    cut = await greedy_output(gateway, "cut", sampling=Sampling(temperature=0.0, stop=(stop,)))
    assert cut.reasoning == whole.reasoning
    assert cut.answer == expected
    assert cut.finish is not None
    assert cut.finish.reason == "stop"
    assert (await gateway.idle_stats()).kv_blocks_used == 0


async def test_thinking_budget_is_an_upper_bound(gateway: Gateway) -> None:
    whole = await greedy_output(gateway, "whole")
    assert whole.boundary is not None
    short = await greedy_output(
        gateway, "short", sampling=Sampling(temperature=0.0, thinking_budget=12)
    )
    assert short.boundary == 11
    assert short.token_ids[:11] == whole.token_ids[:11]
    assert short.answer
    long = await greedy_output(
        gateway, "long", sampling=Sampling(temperature=0.0, thinking_budget=900)
    )
    assert long.token_ids == whole.token_ids


async def test_without_thinking_there_is_no_boundary(gateway: Gateway) -> None:
    output = await greedy_output(gateway, "a", thinking=False)
    assert not gateway.accepted["a"].reasoning
    assert output.boundary is None
    assert output.answer


async def test_max_tokens_ends_with_length(gateway: Gateway) -> None:
    output = await greedy_output(gateway, "a", sampling=Sampling(temperature=0.0, max_tokens=7))
    assert len(output.token_ids) == 7
    assert output.finish is not None
    assert output.finish.reason == "length"


async def test_seed_makes_sampling_repeatable(gateway: Gateway) -> None:
    sampling = Sampling(temperature=1.0, seed=7, max_tokens=40)
    outputs = [await greedy_output(gateway, name, sampling=sampling) for name in ("a", "b")]
    assert outputs[0].token_ids == outputs[1].token_ids


async def test_second_turn_finds_the_first_in_the_prefix_cache(gateway: Gateway) -> None:
    long_question = "Please count: " + "7 " * 100
    for name in ("a", "b"):
        await gateway.submit(name, long_question, Sampling(max_tokens=2))
        await gateway.finished(name)
    finish = gateway.outputs["b"].finish
    assert finish is not None
    assert finish.cached_tokens >= 96


async def test_running_id_is_refused_twice_but_may_be_used_again(gateway: Gateway) -> None:
    await gateway.force("a", 200, 10)
    await gateway.started("a")
    await gateway.submit("a")
    await gateway.wait(lambda: "a" in gateway.rejected)
    assert gateway.rejected.pop("a").code == "duplicate_request"
    assert len((await gateway.finished("a")).token_ids) == 210


async def test_messages_about_unknown_requests_are_ignored(gateway: Gateway) -> None:
    await gateway.send(Cancel(request_id="nobody"))
    await gateway.send(SetPace(request_id="nobody", pace=Pace(tau_s=1.0)))
    await gateway.force("a", 20, 20)
    await gateway.started("a")
    await gateway.send(SetPace(request_id="a", pace=Pace(tau_s=1.0, paused=True)))
    assert len((await gateway.finished("a")).token_ids) == 40


async def test_lost_gateway_leaves_nothing_running(worker: WorkerProcess) -> None:
    async with Gateway(worker.path) as first:
        for name in ("a", "b"):
            await first.force(name, 700, 10)
            await first.started(name, 5)
    async with Gateway(worker.path) as second:
        while (await second.idle_stats()).kv_blocks_used:
            pass
        stats = second.heartbeats[-1].stats
        assert (stats.reasoning.running, stats.reasoning.waiting) == (0, 0)
        await second.force("a", 5, 5)
        assert len((await second.finished("a")).token_ids) == 10


async def test_gateway_that_dies_without_a_word_is_noticed(worker: WorkerProcess) -> None:
    logged = len(worker.log.read_text())
    async with Gateway(worker.path) as first:
        await first.force("a", 700, 10)
        await first.started("a", 5)
        first.drop()
    async with Gateway(worker.path) as second:
        while (await second.idle_stats()).kv_blocks_used:
            pass
    assert "Traceback" not in worker.log.read_text()[logged:]


async def close_code_after(path: Path, *frames: bytes | str) -> int | None:
    """The answer of the worker to a connection that begins with these frames."""
    connection = await unix_connect(str(path), compression=None)
    for frame in frames:
        await connection.send(frame)
    try:
        async for _ in connection:
            pass
    except ConnectionClosed:
        pass
    await connection.wait_closed()
    return connection.close_code


HELLO = encode(Hello(protocol=PROTOCOL, gateway="test", token=TOKEN))


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ((b"not a message",), 1007),
        ((encode(Cancel(request_id="a")),), 1008),
        ((encode(Hello(protocol=PROTOCOL + 1, gateway="test", token=TOKEN)),), 1002),
        ((encode(Hello(protocol=PROTOCOL, gateway="test")),), 1008),
        ((encode(Hello(protocol=PROTOCOL, token=TOKEN)),), 1008),
        ((encode(Hello(protocol=PROTOCOL, gateway="x" * 129, token=TOKEN)),), 1008),
        ((encode(Hello(protocol=PROTOCOL, gateway="test", token="Secret")),), 1008),
        ((HELLO, b'{"type":"submit"}'), 1007),
        ((HELLO, "\u2603"), 1007),
        ((HELLO, HELLO), 1008),
    ],
)
async def test_wrong_frames_close_the_connection_and_not_the_worker(
    worker: WorkerProcess, frames: tuple[bytes | str, ...], code: int
) -> None:
    assert await close_code_after(worker.path, *frames) == code
    async with Gateway(worker.path) as gateway:
        await gateway.submit("a", sampling=Sampling(max_tokens=1))
        await gateway.finished("a")


async def test_two_gateways_have_requests_of_their_own(
    gateway: Gateway, worker: WorkerProcess
) -> None:
    alone = await greedy_output(gateway, "alone")
    async with Gateway(worker.path, name="second") as second:
        ones = asyncio.create_task(greedy_output(gateway, "one"))
        others = asyncio.create_task(greedy_output(second, "other"))
        assert (await ones).token_ids == (await others).token_ids == alone.token_ids
        assert "other" not in gateway.outputs
        assert "one" not in second.outputs
        await second.submit("long", sampling=Sampling(max_tokens=400, ignore_eos=True))
        await second.started("long")
        await gateway.send(Cancel(request_id="long"))  # of another gateway: ignored
        await greedy_output(gateway, "after")
        await gateway.submit("long")
        await gateway.wait(lambda: "long" in gateway.rejected)
        assert gateway.rejected["long"].code == "duplicate_request"
        assert second.outputs["long"].finish is None
        second.drop()  # its request ends with it
    await gateway.wait(lambda: gateway.heartbeats[-1].stats.kv_blocks_used == 0)
    assert len((await greedy_output(gateway, "last")).token_ids) > 0


async def test_worker_survives_an_interrupt(gateway: Gateway, worker: WorkerProcess) -> None:
    worker.process.send_signal(signal.SIGINT)
    output = await greedy_output(gateway, "a")
    assert output.finish is not None
    assert worker.process.poll() is None
