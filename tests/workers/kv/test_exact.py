"""What a client asks for survives whatever happens to its request, between two real workers.

Each kind of request runs undisturbed, and then again: preempted, moved with its KV, moved without
it, and continued after its worker was killed. The tokens must be the same, and the log
probabilities within what float32 gives when the batch is another one.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import jsonschema
import pytest
from tokenizers import Tokenizer

from tests.workers.support.harness import MODEL, Gateway, Output, WorkerProcess
from tests.workers.support.schemas import RECORD, schema_of
from workers.kv.migration import available
from workers.messages import Sampling, Structure, Ticket, TokenLogprob

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason="NIXL is missing: `make setup` installs it"),
]

REGEX = "([a-z]{3} ){30}"
STOPS = (308, 309)  # first written after 60 tokens of the plain output
ALTERNATIVES = 3
LAST_CUT = 35
LENGTH = 90  # tokens at most; all kinds take more than half of them
TOLERANCE = 1e-4
# Their answers take more than 60 tokens.
LONG_SCHEMAS = (
    *(2, 12, 19, 30, 37, 59, 88, 95, 101, 114),
    *(117, 123, 134, 146, 147, 153, 160, 192, 196, 198),
)


@dataclass(frozen=True)
class Kind:
    """One kind of request."""

    sampling: Sampling
    structure: Structure | None = None
    thinking: bool = True


def sampling(**fields: Any) -> Sampling:
    greedy = {"temperature": 0.0, "max_tokens": LENGTH, "min_tokens": LENGTH}
    return Sampling(**(greedy | fields))


WARM = {"temperature": 1.9, "top_p": 0.98, "top_k": 60, "min_p": 0.001}
JSON = Structure(kind="json", value=RECORD)
KINDS = {
    "plain": Kind(sampling()),
    "json": Kind(sampling(min_tokens=0), JSON, thinking=False),
    "json after thoughts": Kind(sampling(min_tokens=0, thinking_budget=25, max_tokens=160), JSON),
    "regex": Kind(sampling(min_tokens=0), Structure(kind="regex", value=REGEX), thinking=False),
    "seed": Kind(sampling(seed=7, **WARM)),
    "seed 1": Kind(sampling(seed=8, **WARM)),  # the choices of n = 3
    "seed 2": Kind(sampling(seed=9, **WARM)),
    "penalties": Kind(
        sampling(presence_penalty=1.5, frequency_penalty=1.0, repetition_penalty=1.6)
    ),
    "seed and penalties": Kind(
        sampling(seed=3, repetition_penalty=1.3, frequency_penalty=0.3, **WARM)
    ),
    "seed and json": Kind(sampling(seed=5, min_tokens=0, **WARM), JSON, thinking=False),
    "logprobs": Kind(sampling(logprobs=ALTERNATIVES)),
    "logit_bias": Kind(sampling(logit_bias={300: 4.0, 301: -50.0, 14: 3.0})),
    "min_tokens": Kind(sampling(min_tokens=75, max_tokens=120)),
    "stop_token_ids": Kind(sampling(min_tokens=60, stop_token_ids=STOPS)),
}


async def submit(gateway: Gateway, name: str, kind: Kind, **more: Any) -> None:
    await gateway.submit(
        name,
        "What is 12 + 30?",
        kind.sampling,
        structure=kind.structure,
        thinking=kind.thinking,
        **more,
    )


async def whole(gateway: Gateway, name: str, kind: Kind) -> Output:
    await submit(gateway, name, kind)
    return await gateway.finished(name)


async def leave(gateway: Gateway, name: str, kind: Kind, at: int) -> tuple[Output, Ticket | None]:
    await submit(gateway, name, kind)
    await gateway.started(name, at)
    output = await gateway.hand_over(name)
    assert output.finish is not None
    assert output.finish.reason == "handed_over", output.finish
    return output, output.finish.ticket


async def go_on(
    gateway: Gateway, name: str, kind: Kind, first: Output, ticket: Ticket | None = None
) -> Output:
    known = tuple(first.token_ids)
    await submit(gateway, name, kind, known_token_ids=known, ticket=ticket)
    return await gateway.finished(name)


async def take_over(gateway: Gateway, name: str, kind: Kind, parts: list[Output]) -> None:
    """Start a request that has been elsewhere, several times."""
    known = tuple(token for part in parts for token in part.token_ids)
    ticket = None if not parts or parts[-1].finish is None else parts[-1].finish.ticket
    await submit(gateway, name, kind, known_token_ids=known, ticket=ticket)


def same(expected: Output, *parts: Output) -> None:
    tokens = [token for part in parts for token in part.token_ids]
    assert tokens == expected.token_ids
    scores = [score for part in parts for score in part.logprobs]
    assert len(scores) == len(expected.logprobs)
    for got, wanted in zip(scores, expected.logprobs, strict=True):
        assert got.token == wanted.token
        assert got.logprob == pytest.approx(wanted.logprob, abs=TOLERANCE)
        close(got.top, wanted.top)


def close(got: tuple[TokenLogprob, ...], wanted: tuple[TokenLogprob, ...]) -> None:
    assert [one.logprob for one in got] == pytest.approx(
        [one.logprob for one in wanted], abs=TOLERANCE
    )


@pytest.fixture(scope="module")
def workers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """The second one has little memory, and gives each request a short turn."""
    settings: dict[str, Any] = {
        "kv_migration": True,
        "reasoning_parser": "deepseek_r1",
        "max_model_len": 512,
    }
    running = (
        WorkerProcess(tmp_path_factory.mktemp("a"), **settings, kv_blocks=257, max_num_seqs=40),
        WorkerProcess(
            tmp_path_factory.mktemp("b"),
            **settings,
            kv_blocks=17,
            policy="rr",
            quantum_tokens=16,
            engine_args={"enable_prefix_caching": False},
        ),
    )
    try:
        for worker in running:
            asyncio.run(worker.started())
        yield running
        assert running[1].terminate() == 0, running[1].log.read_text()
    finally:
        for worker in running:
            worker.kill()


@pytest.fixture
async def pair(
    workers: tuple[WorkerProcess, WorkerProcess],
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    async with Gateway(workers[0].path) as a, Gateway(workers[1].path) as b:
        yield a, b


@pytest.fixture(scope="module")
def expected(workers: tuple[WorkerProcess, WorkerProcess]) -> dict[str, Output]:
    async def run() -> dict[str, Output]:
        async with Gateway(workers[0].path) as a:
            return {name: await whole(a, f"{name}-whole", kind) for name, kind in KINDS.items()}

    return asyncio.run(run())


Pair: TypeAlias = tuple[Gateway, Gateway]
Expected: TypeAlias = dict[str, Output]


def test_every_kind_has_an_output_of_its_own(expected: Expected) -> None:
    """Else the comparisons below would notice nothing."""
    alike = {"plain", "logprobs"}  # by design
    outputs = {tuple(out.token_ids) for name, out in expected.items() if name not in alike}
    assert len(outputs) == len(KINDS) - len(alike)
    assert tuple(expected["plain"].token_ids) not in outputs
    assert expected["logprobs"].token_ids == expected["plain"].token_ids
    assert min(len(out.token_ids) for out in expected.values()) > LAST_CUT
    for name in ("json", "json after thoughts", "seed and json"):
        jsonschema.validate(json.loads(expected[name].answer), RECORD)
    assert re.fullmatch(REGEX, expected["regex"].answer)
    assert expected["stop_token_ids"].token_ids[-1] in STOPS
    assert all(len(score.top) == ALTERNATIVES for score in expected["logprobs"].logprobs)
    joined = b"".join(bytes(score.data) for score in expected["logprobs"].logprobs).decode()
    assert "".join(expected["logprobs"].texts).split() == visible(joined).split()


def visible(text: str) -> str:
    for marker in ("<think>", "</think>"):
        text = text.replace(marker, "")
    return text


@pytest.mark.parametrize("with_kv", [True, False], ids=["with KV", "without"])
@pytest.mark.parametrize("at", [1, pytest.param(17, marks=pytest.mark.long), LAST_CUT])
async def test_a_request_that_moves_goes_on_as_if_it_had_stayed(
    pair: Pair, expected: Expected, with_kv: bool, at: int
) -> None:
    a, b = pair

    async def move(name: str, kind: Kind) -> int | None:
        moving = f"{name}-{at}-{with_kv}"
        first, ticket = await leave(a, moving, kind, at)
        assert ticket is not None
        rest = await go_on(b, moving, kind, first, ticket if with_kv else None)
        same(expected[name], first, rest)
        return rest.kv_tokens

    kv = await asyncio.gather(*(move(name, kind) for name, kind in KINDS.items()))
    assert all(tokens for tokens in kv) == with_kv


@pytest.mark.long
async def test_a_request_moves_there_and_back(pair: Pair, expected: Expected) -> None:
    a, b = pair

    async def wander(name: str, kind: Kind) -> None:
        parts: list[Output] = []
        for hop, gateway in enumerate((a, b, a, b)):
            await take_over(gateway, f"{name}-hop-{hop}", kind, parts)
            await gateway.started(f"{name}-hop-{hop}", 9)
            parts.append(await gateway.hand_over(f"{name}-hop-{hop}"))
        await take_over(a, f"{name}-home", kind, parts)
        same(expected[name], *parts, await a.finished(f"{name}-home"))

    await asyncio.gather(*(wander(name, kind) for name, kind in KINDS.items()))


async def test_preemption_changes_nothing(pair: Pair, expected: Expected) -> None:
    _, b = pair
    await asyncio.gather(*(submit(b, f"{name}-p", kind) for name, kind in KINDS.items()))
    preemptions = 0
    for name in KINDS:
        output = await b.finished(f"{name}-p")
        same(expected[name], output)
        assert output.finish is not None
        preemptions += output.finish.preemptions
    assert preemptions >= len(KINDS)


async def test_what_cannot_be_compiled_is_refused(pair: Pair) -> None:
    a, _ = pair
    wrong = {
        "schema": Structure(kind="json", value={"type": "nonsense"}),
        "feature": Structure(kind="json", value={"type": "array", "uniqueItems": True}),
        "regex": Structure(kind="regex", value="([a-z"),
        "grammar": Structure(kind="grammar", value="root ::= missing"),
        "choice": Structure(kind="choice", value=[]),
        "size": Structure(kind="regex", value="a" * 70_000),
    }
    for name, structure in wrong.items():
        await submit(a, f"wrong-{name}", Kind(sampling(), structure))
    await a.wait(lambda: len(a.rejected) == len(wrong))
    for rejected in a.rejected.values():
        assert (rejected.code, rejected.param) == ("invalid_value", "structure.value"), rejected
    await submit(a, "wrong-bias", Kind(sampling(logit_bias={5000: 1.0})))
    await submit(a, "wrong-stop", Kind(sampling(stop_token_ids=(5000,))))
    await submit(a, "wrong-logprobs", Kind(sampling(logprobs=50)))
    await a.wait(lambda: len(a.rejected) == len(wrong) + 3)
    assert a.rejected["wrong-bias"].param == "sampling.logit_bias"
    assert a.rejected["wrong-stop"].param == "sampling.stop_token_ids"
    assert a.rejected["wrong-logprobs"].param == "sampling.logprobs"


async def test_a_grammar_that_becomes_too_costly_ends_its_request_and_no_other(
    pair: Pair, expected: Expected
) -> None:
    """What the trial of a structure does not meet, because only this request writes a "y".

    A text of n letters has so many readings that letter 77 took 60 ms of a processor, and each
    letter takes in proportion to the cube of n: no processor writes 400 within the bounds.
    """
    a, _ = pair
    only_y = Tokenizer.from_file(str(MODEL / "tokenizer.json")).token_to_id("y")
    readings = " | ".join(" ".join(["many"] * parts) for parts in range(2, 9))
    text = f'root ::= "y" many | [0-9] [0-9 ]{{300}}\nmany ::= {readings} | [a-z]'
    costly = Kind(
        sampling(logit_bias={only_y: 100.0}, min_tokens=0, max_tokens=400),
        Structure(kind="grammar", value=text),
        thinking=False,
    )
    beside = ("plain", "json", "seed")
    await submit(a, "costly", costly)
    await asyncio.gather(*(submit(a, f"{name}-beside", KINDS[name]) for name in beside))
    finish = (await a.finished("costly")).finish
    assert finish is not None
    assert (finish.reason, finish.param) == ("error", "structure"), finish
    assert finish.message == "the structure is too costly to follow"
    for name in beside:
        same(expected[name], await a.finished(f"{name}-beside"))


def schema_kind(seed: int) -> Kind:
    """One whose answer has the form of a generated schema."""
    structure = Structure(kind="json", value=schema_of(seed))
    return Kind(Sampling(temperature=1.0, seed=seed, max_tokens=300), structure, thinking=False)


def valid(seed: int, *parts: Output) -> int:
    """Check an answer; :return: its length in tokens."""
    last = parts[-1].finish
    assert last is not None
    assert last.reason == "stop"
    value = json.loads("".join(text for part in parts for text in part.texts))
    jsonschema.validate(value, schema_of(seed))
    return sum(len(part.token_ids) for part in parts)


@pytest.mark.parametrize("schemas", [30, pytest.param(200, marks=pytest.mark.long)])
async def test_answers_have_the_form_of_their_schema_wherever_they_are_written(
    pair: Pair, schemas: int
) -> None:
    a, b = pair
    kinds = {seed: schema_kind(seed) for seed in range(schemas)}
    await asyncio.gather(
        *(submit(a, f"schema-{schemas}-{seed}", kind) for seed, kind in kinds.items())
    )
    whole = {seed: await a.finished(f"schema-{schemas}-{seed}") for seed in kinds}
    lengths = {seed: valid(seed, output) for seed, output in whole.items()}
    longest = sorted(kinds, key=lambda seed: -lengths[seed])[: min(20, schemas // 5)]

    async def move(seed: int) -> None:
        name = f"schema-{schemas}-{seed}-moves"
        first, ticket = await leave(a, name, kinds[seed], lengths[seed] // 3)
        rest = await go_on(b, name, kinds[seed], first, ticket if seed % 2 else None)
        same(whole[seed], first, rest)
        valid(seed, first, rest)

    await asyncio.gather(*map(move, longest))


async def test_after_the_death_of_its_worker_a_request_goes_on_with_the_same_tokens(
    pair: Pair, workers: tuple[WorkerProcess, WorkerProcess], expected: Expected
) -> None:
    """The last test, because it ends the first engine."""
    a, b = pair
    schemas = {f"schema {seed}": schema_kind(seed) for seed in LONG_SCHEMAS}
    stays = (whole(a, f"{name}-stays", kind) for name, kind in schemas.items())
    wanted = expected | dict(zip(schemas, await asyncio.gather(*stays), strict=True))
    dying = KINDS | schemas
    await asyncio.gather(*(submit(a, f"{name}-dies", kind) for name, kind in dying.items()))
    for name in dying:
        await a.started(f"{name}-dies", 5)
    workers[0].process.kill()
    await a.wait_closed()
    cut = [name for name in dying if a.outputs[f"{name}-dies"].finish is None]
    assert len(cut) >= len(dying) - 2

    async def live(name: str) -> None:
        first = a.outputs[f"{name}-dies"]
        same(wanted[name], first, await go_on(b, f"{name}-lives", dying[name], first))

    await asyncio.gather(*map(live, cut))
