"""Emulated workers: a real engine core, scheduler and KV-cache manager, and no model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.workers.support.harness import START_TIMEOUT_S, Gateway, Output, WorkerProcess
from workers.emulation.profile import DeviceProfile, load_profile
from workers.emulation.script import Script, Words
from workers.messages import DeviceStats, ForcedLengths, Sampling
from workers.policy.phase import Markers

pytestmark = [pytest.mark.engine, pytest.mark.slow]

# As the shipped profile, but fast, because steps take real time and the tests wait for them.
PROFILE = """
[step]
base_s = 0.4e-3
per_request_s = 2e-6
per_kv_token_s = 1e-8
prefill_base_s = 0.2e-3
prefill_per_token_s = 3e-6
prefill_per_token2_s = 1e-10

[kv]
layers = 64
heads = 8
head_dim = 128
dtype_bytes = 2
tokens = 1552
block_size = 16

[links]
host_bytes_per_s = 25e9
network_bytes_per_s = 12.5e9

[host]
offload_bytes = 200e9
"""
BLOCK = 16
BLOCKS = 1552 // BLOCK - 1  # one is vLLM's null block


@pytest.fixture(scope="module")
def profile_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "fast.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def profile(profile_path: Path) -> DeviceProfile:
    return load_profile(str(profile_path))


STOCK_CONNECTOR = {
    "kv_connector": "OffloadingConnector",
    "kv_role": "kv_both",
    "kv_connector_extra_config": {"cpu_bytes_to_use": 2**33, "offload_prompt_only": False},
}
WORKERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ours": {"kv_offload_gib": 0.1, "kv_resume": "reload"},
    "stock": {"engine_args": {"kv_transfer_config": STOCK_CONNECTOR}},
    "refused": {"max_model_len": 2000},
}


@pytest.fixture(scope="module")
def workers(
    profile_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, WorkerProcess]]:
    """All workers that the tests need. They start together: a start would disturb a measurement.

    Their KV memory is so small that a few requests preempt each other.
    """
    running = {
        name: WorkerProcess(
            tmp_path_factory.mktemp(name),
            **{"emulate": str(profile_path), "kv_blocks": None, "block_size": None, **settings},
        )
        for name, settings in WORKERS.items()
    }
    try:
        for name, worker in running.items():
            if name == "refused":
                worker.process.wait(START_TIMEOUT_S)
            else:
                asyncio.run(worker.started())
        yield running
        for name, worker in running.items():
            assert name == "refused" or worker.terminate() == 0, worker.log.read_text()
    finally:
        for worker in running.values():
            worker.kill()


@pytest.fixture
async def gateway(workers: dict[str, WorkerProcess]) -> AsyncIterator[Gateway]:
    async with Gateway(workers["plain"].path) as connected:
        yield connected


@pytest.fixture
def words(tokenizer: Tokenizer) -> Words:
    vocabulary = tokenizer.get_vocab()
    return Words.of(
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        Markers.of_vocabulary(vocabulary),
        vocabulary["<|im_end|>"],
    )


def expected(words: Words, reasoning: int, answer: int) -> list[int]:
    script = Script(words, 0, reasoning, None)
    return [script.token(index) for index in range(reasoning + answer)]


async def device(gateway: Gateway) -> DeviceStats:
    stats = (await gateway.idle_stats()).device
    assert stats is not None
    return stats


def reason(output: Output) -> str:
    assert output.finish is not None
    return output.finish.reason


async def test_worker_says_what_it_is(gateway: Gateway) -> None:
    welcome = gateway.welcome
    assert welcome.engine.endswith(" emulated fast")
    assert (welcome.block_size, welcome.kv_blocks_total) == (16, BLOCKS)
    assert welcome.max_model_len == 1024


async def test_forced_lengths_give_the_script_and_readable_text(
    gateway: Gateway, words: Words
) -> None:
    await gateway.force("a", 60, 40)
    output = await gateway.finished("a")
    assert output.token_ids == expected(words, 60, 40)
    assert (output.boundary, reason(output)) == (59, "stop")
    assert output.reasoning.startswith("Let me think about this step by step. First I look")
    assert output.answer.startswith("This text is a script, not the answer of a model")


async def test_streams_are_exact_through_preemptions(gateway: Gateway, words: Words) -> None:
    before = await gateway.idle_stats()
    # Together more than twice the KV memory.
    lengths = {f"r{i}": (150 + 13 * i, 120 - 5 * i) for i in range(14)}
    for request_id, (reasoning, answer) in lengths.items():
        await gateway.force(request_id, reasoning, answer)
    for request_id, (reasoning, answer) in lengths.items():
        output = await gateway.finished(request_id)
        assert output.token_ids == expected(words, reasoning, answer)
        assert (output.boundary, reason(output)) == (reasoning - 1, "stop")
    after = await gateway.idle_stats()
    assert after.preemptions_total > before.preemptions_total
    assert after.kv_blocks_used == 0
    counts = [(f.stats.reasoning.running, f.stats.answering.running) for f in gateway.frames]
    assert any(reasoning and answering for reasoning, answering in counts)


async def test_device_computes_for_as_long_as_the_profile_says(
    gateway: Gateway, profile: DeviceProfile
) -> None:
    for request_id in ("new", "cached"):
        await gateway.idle_stats()
        before = await device(gateway)  # a heartbeat later: the device has been idle for long
        began_s = time.monotonic()
        await gateway.submit(
            request_id,
            "How long does this take? " * 5,
            forced_lengths=ForcedLengths(reasoning_tokens=70, answer_tokens=50),
        )
        output = await gateway.finished(request_id)
        lasted_s = time.monotonic() - began_s
        after = await device(gateway)
        assert output.finish is not None
        prompt, cached = gateway.accepted[request_id].prompt_tokens, output.finish.cached_tokens
        assert (cached > 16) == (request_id == "cached")
        new = prompt - cached
        assert new > 1
        modelled_s = profile.step.seconds(0, 0, new, new * (2 * cached + new)) + sum(
            profile.step.seconds(1, prompt + index, 0, 0) for index in range(1, 120)
        )
        assert after.steps - before.steps == 120
        assert after.busy_s - before.busy_s == pytest.approx(modelled_s, rel=1e-9)
        # The device can only starve while there is work.
        assert 0.0 <= after.starved_s - before.starved_s <= lasted_s - modelled_s
        assert before.late_s < after.late_s


async def test_the_next_step_is_in_flight_when_the_last_one_ends(gateway: Gateway) -> None:
    before = await device(gateway)
    await gateway.submit("a", "Be short.", Sampling(thinking_budget=5))
    output = await gateway.finished("a")
    assert reason(output) == "stop"
    after = await device(gateway)
    # The engine could not foresee this end, so it had scheduled one more token.
    assert after.steps - before.steps == len(output.token_ids) + 1


async def test_cancel_frees_the_memory_at_once(gateway: Gateway) -> None:
    await gateway.force("a", 900, 10)
    await gateway.started("a", 40)
    assert gateway.frames[-1].stats.kv_blocks_used > 0
    await gateway.cancel("a")
    output = await gateway.finished("a")
    assert reason(output) == "cancelled"
    (last,) = [frame for frame in gateway.frames if any(run.finish for run in frame.runs)]
    assert last.stats.kv_blocks_used == 0
    await gateway.force("b", 20, 5)  # the step that was in flight does no harm
    assert len((await gateway.finished("b")).token_ids) == 25


async def test_a_request_known_in_part_goes_on_where_it_was(gateway: Gateway, words: Words) -> None:
    whole = expected(words, 40, 30)
    for known in (10, 40, 55):
        await gateway.submit(
            f"from-{known}",
            forced_lengths=ForcedLengths(reasoning_tokens=40, answer_tokens=30),
            known_token_ids=tuple(whole[:known]),
        )
        output = await gateway.finished(f"from-{known}")
        assert output.token_ids == whole[known:]


async def test_lengths_are_drawn_where_a_request_gives_none(gateway: Gateway, words: Words) -> None:
    sampling = Sampling(thinking_budget=12)
    for request_id in ("one", "two"):
        await gateway.submit(request_id, "In brief?", sampling)
    one, two = await gateway.finished("one"), await gateway.finished("two")
    assert one.boundary == 11
    assert one.token_ids == two.token_ids  # the same question
    assert reason(one) == "stop"
    assert one.token_ids[-1] == words.end_of_turn
    assert one.token_ids[:-1] == expected(words, 12, len(one.token_ids) - 13)


async def test_answers_at_once_where_thinking_is_switched_off(gateway: Gateway) -> None:
    await gateway.submit("a", sampling=Sampling(max_tokens=30), thinking=False)
    output = await gateway.finished("a")
    assert output.boundary is None
    assert output.answer.startswith("This text is a script")
    assert len(output.token_ids) == 30


@pytest.mark.parametrize("connector", ["ours", "stock"])
async def test_kv_of_preempted_requests_goes_to_the_host_and_comes_back(
    workers: dict[str, WorkerProcess], words: Words, connector: str
) -> None:
    async with Gateway(workers[connector].path) as gateway:
        lengths = {f"r{i}": (150 + 13 * i, 120 - 5 * i) for i in range(14)}
        for request_id, (reasoning, answer) in lengths.items():
            await gateway.force(request_id, reasoning, answer)
        for request_id, (reasoning, answer) in lengths.items():
            output = await gateway.finished(request_id)
            assert output.token_ids == expected(words, reasoning, answer)
        await gateway.force("last", 20, 5)  # steps in which the last stores are done
        await gateway.finished("last")
        stats = await gateway.idle_stats()
        assert stats.preemptions_total > 0
        # Without host memory they would recompute all KV, also that of generated tokens.
        assert stats.recomputed_tokens_total < 2 * BLOCK * stats.preemptions_total


def test_requests_longer_than_the_emulated_memory_are_refused_at_the_start(
    workers: dict[str, WorkerProcess],
) -> None:
    assert workers["refused"].process.poll() == 1
    assert "2000 tokens do not fit into the emulated KV memory of 1536" in (
        workers["refused"].log.read_text()
    )
