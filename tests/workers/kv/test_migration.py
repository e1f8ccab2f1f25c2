"""Requests that change engines in mid-decode, between two real worker processes.

Output is greedy and float32, so a moved request must have exactly the tokens of one that stayed.
The first engine has only NIXL; the second also has host memory for preempted requests.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from tests.workers.support.harness import (
    MAX_NUM_SEQS,
    Gateway,
    Output,
    WorkerProcess,
    silent_server,
    until,
)
from workers.kv import tickets
from workers.kv.migration import available
from workers.messages import Endpoint, ForcedLengths, MigrationStats, StepStats, Ticket

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason="NIXL is missing: `make setup` installs it"),
]

BLOCK = 32
BLOCKS = 401
MOVES = 200
MOST_MOVES = 400  # to see every residue of the block size
AT_ONCE = 16
HELD_S = 6.0
HANDSHAKE_BYTES = 400  # an engine's is longer
WORDS = ["apple", "seven", "What", "is", "12", "+", "sort", "even", "the", "letters", "of", "42"]


@dataclass(frozen=True)
class Request:
    """The text of a request, and the lengths of its output."""

    text: str
    lengths: ForcedLengths


def request(rng: random.Random, reasoning: int | None = None) -> Request:
    words = rng.choices(WORDS, k=rng.randrange(1, 60))
    length = rng.randrange(2, 14) if reasoning is None else reasoning
    return Request(" ".join(words), ForcedLengths(reasoning_tokens=length, answer_tokens=3))


class Pair:
    """Both engines, and names for requests that are used once."""

    def __init__(self, a: Gateway, b: Gateway) -> None:
        self.a, self.b = a, b

    async def undisturbed(self, name: str, asked: Request) -> list[int]:
        return (await self.start(self.a, f"{name}-whole", asked)).token_ids

    async def start(
        self, gateway: Gateway, name: str, asked: Request, leave_at: int | None = None, **more: Any
    ) -> Output:
        """Run a request to its end, or hand it over when it has ``leave_at`` tokens."""
        await gateway.submit(name, asked.text, forced_lengths=asked.lengths, **more)
        if leave_at is None:
            return await gateway.finished(name)
        await gateway.wait(
            lambda: (
                name in gateway.outputs
                and (
                    len(gateway.outputs[name].token_ids) >= leave_at
                    or is_over(gateway.outputs[name])
                )
            )
        )
        return await gateway.hand_over(name)

    async def leave(self, name: str, asked: Request, at: int = 1) -> tuple[list[int], Ticket]:
        """Start a request on A, and hand it over with a ticket."""
        first = await self.start(self.a, f"{name}-first", asked, at)
        assert first.finish is not None
        assert first.finish.reason == "handed_over"
        assert first.finish.ticket is not None
        return first.token_ids, first.finish.ticket

    async def go_on(
        self, gateway: Gateway, name: str, asked: Request, known: list[int], ticket: Ticket | None
    ) -> list[int]:
        """Continue a request whose first tokens are known; :return: all its tokens."""
        output = await self.start(gateway, name, asked, known_token_ids=tuple(known), ticket=ticket)
        return known + output.token_ids

    async def free(self) -> None:
        """Wait until no engine holds a block, so none has leaked."""
        for gateway in (self.a, self.b):

            async def idle(gateway: Gateway = gateway) -> bool:
                return (await gateway.idle_stats()).kv_blocks_used == 0

            await until(idle, 60)


def is_over(output: Output) -> bool:
    return output.finish is not None


async def figures(gateway: Gateway) -> MigrationStats:
    stats: StepStats = await gateway.idle_stats()
    assert stats.migration is not None
    return stats.migration


def changed(ticket: Ticket, **fields: Any) -> Ticket:
    data = msgspec.structs.replace(tickets.decode(ticket.data), **fields)
    return msgspec.structs.replace(ticket, data=tickets.encode(data))


@pytest.fixture(scope="module")
def workers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    settings: dict[str, Any] = {"kv_migration": True, "kv_blocks": BLOCKS, "kv_held_s": HELD_S}
    running = (
        WorkerProcess(tmp_path_factory.mktemp("a"), **settings),
        WorkerProcess(
            tmp_path_factory.mktemp("b"), **settings, kv_offload_gib=0.0625, kv_resume="reload"
        ),
    )
    try:
        for worker in running:
            asyncio.run(worker.started())
        yield running
        # No engine has died except the one that was killed.
        assert running[1].terminate() == 0, running[1].log.read_text()
    finally:
        for worker in running:
            worker.kill()


@pytest.fixture
async def pair(workers: tuple[WorkerProcess, WorkerProcess]) -> AsyncIterator[Pair]:
    async with Gateway(workers[0].path) as a, Gateway(workers[1].path) as b:
        yield Pair(a, b)


async def test_engines_meet_before_the_first_request_moves(pair: Pair) -> None:
    assert await pair.b.meet(pair.a) is None
    assert await pair.a.meet(pair.b) is None
    assert await pair.a.meet(pair.b) is None  # again
    assert await pair.a.meet(pair.a) is None  # it knows itself


async def test_who_is_not_there_is_not_met(pair: Pair) -> None:
    async with await silent_server() as server:
        port = server.sockets[0].getsockname()[1]
        silent = Endpoint(engine_id="silent", host="127.0.0.1", port=port)
        assert "does not answer" in (await pair.a.meet_endpoint(silent) or "")
    gone = Endpoint(engine_id="gone", host="127.0.0.1", port=port)
    assert await pair.a.meet_endpoint(gone) is not None
    theirs = pair.b.welcome.endpoint
    assert theirs is not None
    other = msgspec.structs.replace(theirs, engine_id="one that was there before")
    assert "engine ID mismatch" in (await pair.a.meet_endpoint(other) or "")


async def test_two_hundred_moves_change_no_token(pair: Pair) -> None:
    rng = random.Random(5)
    residues: set[int] = set()
    moves = with_cached_prompt = 0
    before = await figures(pair.b)

    async def move(number: int, asked: Request, cached: bool, leave_at: int) -> None:
        nonlocal moves, with_cached_prompt
        name = f"move-{number}"
        expected = await pair.undisturbed(name, asked)
        if cached:
            await pair.b.submit(f"{name}-prompt", asked.text, forced_lengths=asked.lengths)
            await pair.b.started(f"{name}-prompt")
            await pair.b.cancel(f"{name}-prompt")
            await pair.b.finished(f"{name}-prompt")
        first = await pair.start(pair.a, f"{name}-first", asked, leave_at)
        assert first.finish is not None
        if first.finish.reason == "stop":  # it was through before it could leave
            assert first.token_ids == expected
            return
        ticket = first.finish.ticket
        assert ticket is not None
        prompt = pair.a.accepted[f"{name}-first"].prompt_tokens
        assert ticket.tokens == prompt + len(first.token_ids) - 1
        whole = await pair.go_on(pair.b, f"{name}-rest", asked, first.token_ids, ticket)
        assert whole == expected, (number, ticket.tokens % BLOCK, cached)
        assert pair.b.outputs[f"{name}-rest"].kv_tokens == ticket.tokens
        residues.add(ticket.tokens % BLOCK)
        moves += 1
        with_cached_prompt += cached

    for begin in range(0, MOST_MOVES, AT_ONCE):
        async with asyncio.TaskGroup() as tasks:
            for number in range(begin, begin + AT_ONCE):
                asked = request(rng)
                leave_at = rng.randrange(1, asked.lengths.reasoning_tokens + 3)
                tasks.create_task(move(number, asked, number % 2 == 0, leave_at))
        if moves >= MOVES and len(residues) == BLOCK:
            break
    assert moves >= MOVES
    assert residues == set(range(BLOCK))
    assert MOVES * 0.4 < with_cached_prompt < moves
    await pair.free()
    after = await figures(pair.b)
    assert after.read_requests_total - before.read_requests_total >= 0.9 * moves
    assert after.failed_total == before.failed_total
    assert (await figures(pair.a)).expired_total == 0


async def test_the_comparison_would_notice_blocks_that_are_mixed_up(pair: Pair) -> None:
    rng = random.Random(6)
    different = 0
    for number in range(4):
        name = f"mixed-{number}"
        asked = Request(
            " ".join(rng.choices(WORDS, k=80)),
            ForcedLengths(reasoning_tokens=30, answer_tokens=30),
        )
        expected = await pair.undisturbed(name, asked)
        known, ticket = await pair.leave(name, asked)
        blocks = tickets.decode(ticket.data).block_ids
        # Their order alone would not do: attention adds up over all of them.
        foreign = tuple(tuple(BLOCKS - block for block in ids) for ids in blocks)
        mixed = changed(ticket, block_ids=foreign)
        different += await pair.go_on(pair.b, f"{name}-rest", asked, known, mixed) != expected
    assert different >= 3


@pytest.mark.parametrize("spoil", ["used", "expired", "unknown", "unreadable", "too short"])
async def test_a_ticket_that_is_no_good_means_recompute(pair: Pair, spoil: str) -> None:
    asked = request(random.Random(spoil), 40)
    expected = await pair.undisturbed(spoil, asked)
    known, ticket = await pair.leave(spoil, asked, 9)
    tried = ticket
    match spoil:
        case "used":
            assert await pair.go_on(pair.b, "used-once", asked, known, ticket) == expected
        case "expired":
            tried = msgspec.structs.replace(ticket, valid_s=0.0)
        case "unknown":
            tried = changed(ticket, request_id="nobody")
        case "unreadable":
            tried = msgspec.structs.replace(ticket, data="{}")
        case "too short":  # and would make vLLM's engine stop
            tried = changed(ticket, block_ids=((1,),))
    before = await figures(pair.b)
    assert await pair.go_on(pair.b, f"{spoil}-rest", asked, known, tried) == expected
    after = await figures(pair.b)
    assert after.read_requests_total == before.read_requests_total
    assert after.failed_total == before.failed_total + (spoil != "unreadable")
    # The engine does not report on an unreadable ticket.
    assert pair.b.outputs[f"{spoil}-rest"].kv_tokens == (None if spoil == "unreadable" else 0)


async def test_a_ticket_is_read_by_one_of_two_who_come_at_once(pair: Pair) -> None:
    asked = request(random.Random(7), 40)
    expected = await pair.undisturbed("twice", asked)
    known, ticket = await pair.leave("twice", asked, 9)
    before = await figures(pair.b)
    wholes = await asyncio.gather(
        *(pair.go_on(pair.b, f"twice-{i}", asked, known, ticket) for i in range(2))
    )
    assert wholes == [expected, expected]
    after = await figures(pair.b)
    assert after.read_requests_total - before.read_requests_total == 1
    assert after.failed_total - before.failed_total == 1
    told = [pair.b.outputs[f"twice-{i}"].kv_tokens for i in range(2)]
    assert sorted(told, key=str) == [0, ticket.tokens]


async def test_a_request_that_comes_back_uses_its_own_ticket(pair: Pair) -> None:
    await pair.free()
    expired = (await figures(pair.a)).expired_total
    for number in range(6):
        name = f"back-{number}"
        asked = request(random.Random(number), 40)
        expected = await pair.undisturbed(name, asked)
        known, ticket = await pair.leave(name, asked, 9 + number)
        assert await pair.go_on(pair.a, f"{name}-rest", asked, known, ticket) == expected
        found = pair.a.outputs[f"{name}-rest"].finish
        assert found is not None
        assert found.cached_tokens == ticket.tokens // BLOCK * BLOCK
    await pair.free()
    assert (await figures(pair.a)).expired_total == expired


async def test_a_request_moves_on_and_back_again(pair: Pair) -> None:
    asked = request(random.Random(8), 60)
    expected = await pair.undisturbed("far", asked)
    known, ticket = await pair.leave("far", asked, 9)
    for hop, gateway in enumerate((pair.b, pair.a, pair.b)):
        output = await pair.start(
            gateway, f"far-{hop}", asked, 6, known_token_ids=tuple(known), ticket=ticket
        )
        assert output.finish is not None
        assert output.finish.ticket is not None
        known, ticket = known + output.token_ids, output.finish.ticket
        assert known == expected[: len(known)]
    assert await pair.go_on(pair.a, "far-rest", asked, known, ticket) == expected
    await pair.free()


async def test_cancelled_on_the_way_nothing_is_left_on_either_engine(pair: Pair) -> None:
    rng = random.Random(9)
    for number in range(12):
        name = f"cancelled-{number}"
        asked = request(rng, 40)
        known, ticket = await pair.leave(name, asked, 5)
        await pair.b.submit(
            f"{name}-rest",
            asked.text,
            forced_lengths=asked.lengths,
            known_token_ids=tuple(known),
            ticket=ticket,
        )
        for _ in range(number):  # a little later each time
            await asyncio.sleep(0)
        await pair.b.cancel(f"{name}-rest")
        await pair.b.finished(f"{name}-rest")
    await pair.free()


async def test_cancelled_while_it_leaves(pair: Pair) -> None:
    asked = request(random.Random(10), 60)
    await pair.a.submit("both", asked.text, forced_lengths=asked.lengths)
    await pair.a.started("both", 3)
    await pair.a.cancel("both")
    output = await pair.a.hand_over("both")
    assert output.finish is not None
    assert (output.finish.reason, output.finish.ticket) == ("cancelled", None)


async def test_who_waits_leaves_at_once_and_without_a_ticket(pair: Pair) -> None:
    asked = request(random.Random(11), 400)
    for number in range(MAX_NUM_SEQS):
        await pair.a.submit(f"runs-{number}", asked.text, forced_lengths=asked.lengths)
        await pair.a.started(f"runs-{number}")
    await pair.a.submit("waits", asked.text, forced_lengths=asked.lengths)
    await pair.a.wait(lambda: "waits" in pair.a.accepted)
    output = await pair.a.hand_over("waits")
    assert output.finish is not None
    assert (output.finish.reason, output.finish.ticket) == ("handed_over", None)
    assert output.token_ids == []
    for number in range(MAX_NUM_SEQS):
        await pair.a.cancel(f"runs-{number}")
    await pair.free()


async def test_memory_comes_back_when_nobody_reads(pair: Pair) -> None:
    asked = request(random.Random(12), 40)
    expected = await pair.undisturbed("late", asked)
    known, ticket = await pair.leave("late", asked, 9)
    held = len(tickets.decode(ticket.data).block_ids[0])
    before = await figures(pair.a)
    assert before.held_blocks == held
    assert (await pair.a.idle_stats()).kv_blocks_used == held
    await pair.free()
    after = await figures(pair.a)
    assert (after.held_blocks, after.expired_total) == (0, before.expired_total + 1)
    # The reader computes that there is time left, but the engine with the KV has dropped it.
    failed = (await figures(pair.b)).failed_total
    assert await pair.go_on(pair.b, "late-rest", asked, known, ticket) == expected
    assert (await figures(pair.b)).failed_total == failed + 1
    assert pair.b.outputs["late-rest"].kv_tokens == 0


class Interceptor:
    """A proxy between two engines that meet. It ends one before its handshake arrives."""

    def __init__(self, endpoint: Endpoint, end: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._end = end
        self.ended = False

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, there = await asyncio.open_connection(self._endpoint.host, self._endpoint.port)
        forth = asyncio.create_task(self._pass(reader, there))
        await self._pass(theirs, writer, watch=True)
        forth.cancel()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, watch: bool = False
    ) -> None:
        while data := await reader.read(2**20):
            # Greetings and answers to claims are short.
            if watch and len(data) > HANDSHAKE_BYTES and not self.ended:
                self.ended = True
                await asyncio.to_thread(self._end)
            writer.write(data)
            await writer.drain()
        writer.close()


async def dies_while_it_is_met(worker: WorkerProcess, here: Gateway, other: Gateway) -> None:
    """One engine dies before its handshake arrives; the engine that meets it goes on."""
    theirs = other.welcome.endpoint
    assert theirs is not None
    interceptor = Interceptor(theirs, worker.kill)
    await here.force("reads", 100, 100)
    await here.started("reads")
    async with await asyncio.start_server(interceptor.hear, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(60):
            through = msgspec.structs.replace(theirs, port=port)
            assert await here.meet_endpoint(through) is not None
    assert interceptor.ended
    output = await here.finished("reads")
    assert output.finish is not None
    assert (output.finish.reason, len(output.token_ids)) == ("stop", 200)


async def test_the_engine_that_has_the_kv_dies(
    pair: Pair, workers: tuple[WorkerProcess, WorkerProcess], gateway: Gateway
) -> None:
    """The last test, because it ends the first engine, while another engine meets it."""
    asked = request(random.Random(13), 40)
    expected = await pair.undisturbed("death", asked)
    known, ticket = await pair.leave("death", asked, 9)
    assert workers[0].process.poll() is None, workers[0].log.read_text()
    await dies_while_it_is_met(workers[0], gateway, pair.a)
    failed = (await figures(pair.b)).failed_total
    assert await pair.go_on(pair.b, "death-met", asked, known, ticket) == expected
    never_met = msgspec.structs.replace(ticket, engine_id="another one")
    assert await pair.go_on(pair.b, "death-unmet", asked, known, never_met) == expected
    async with await silent_server() as server:
        hangs = changed(never_met, port=server.sockets[0].getsockname()[1])
        assert await pair.go_on(pair.b, "death-hangs", asked, known, hangs) == expected
    for name in ("met", "unmet", "hangs"):
        assert pair.b.outputs[f"death-{name}"].kv_tokens == 0
    assert (await figures(pair.b)).failed_total == failed + 3
