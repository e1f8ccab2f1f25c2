"""Prompts that are no conversations, and questions about tokens, with a real tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.workers.requests.test_service import Bench
from tests.workers.support.formats import CONTEXT, chat_renderer, submit, user
from workers.engine.interface import EngineOutput
from workers.errors import RequestRejected
from workers.messages import Count, Counted, Detokenize, Detokenized, PlainPrompt, Rejected
from workers.policy.phase import Phase
from workers.requests.chat_template import ChatRenderer
from workers.requests.output_bounds import check_values
from workers.requests.output_text import output_text

TEXT = "Hello world, this is"


@pytest.fixture(scope="module")
def tiny() -> ChatRenderer:
    return chat_renderer()


@pytest.fixture
async def bench(tiny: ChatRenderer) -> AsyncIterator[Bench]:
    async with asyncio.TaskGroup() as tasks:
        yield Bench(tiny, tasks)


def text(prompt: str, **fields: Any) -> PlainPrompt:
    return PlainPrompt(text=prompt, **fields)


def test_a_text_is_taken_as_it_is(tiny: ChatRenderer) -> None:
    prompt = tiny.render(submit(prompt=text(TEXT)))
    assert tiny.decode_all(prompt.token_ids) == TEXT
    assert prompt.phase is Phase.ANSWERING
    tokens = PlainPrompt(token_ids=prompt.token_ids)
    assert tiny.render(submit(prompt=tokens)).token_ids == prompt.token_ids


def test_markers_in_the_output_are_text_like_all_else(tiny: ChatRenderer) -> None:
    request = submit(prompt=text(TEXT))
    prompt = tiny.render(request)
    continued = tiny.render(submit(prompt=text(" <think> so </think>\n it"))).token_ids
    read = output_text(tiny, prompt, request).push(continued, last=True)
    assert "".join(read.texts) == tiny.decode(continued)
    assert (read.pieces, read.turns) == (None, ())


def test_the_first_piece_is_what_follows_the_prompt() -> None:
    """Some decoders drop a space at the beginning of a text."""
    tiny = chat_renderer()
    backend = tiny._backend

    class Stripping:
        def encode_batch(self, texts: list[str], *, add_special_tokens: bool) -> Any:
            return backend.encode_batch(texts, add_special_tokens=add_special_tokens)

        def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
            decoded: str = backend.decode(ids, skip_special_tokens=skip_special_tokens)
            return decoded.removeprefix(" ")

    tiny._backend = Stripping()
    request = submit(prompt=text("Hello"))
    prompt = tiny.render(request)
    world = tiny.render(submit(prompt=text(" world"))).token_ids
    assert output_text(tiny, prompt, request).push(world, last=True).texts[0] == " world"


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        (text(""), "invalid_value"),
        (PlainPrompt(token_ids=()), "invalid_value"),
        (PlainPrompt(token_ids=(1, 10**6)), "invalid_value"),
        (PlainPrompt(token_ids=(-1,)), "invalid_value"),
        (PlainPrompt(token_ids=(1,) * CONTEXT), "context_length_exceeded"),
        (text("x " * CONTEXT), "context_length_exceeded"),
        (text("x" * 10**6), "context_length_exceeded"),
    ],
)
def test_what_is_wrong_names_the_prompt(tiny: ChatRenderer, prompt: PlainPrompt, code: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        tiny.render(submit(prompt=prompt))
    assert (caught.value.code, caught.value.param) == (code, "prompt")


def test_a_request_has_a_prompt_or_messages() -> None:
    check_values(submit(prompt=text("a")))
    for both in (submit(user("a"), prompt=text("a")), submit(prompt=text("a"), tools=({},))):
        with pytest.raises(RequestRejected):
            check_values(both)


async def test_a_completion_runs_from_its_prompt_to_its_end(
    bench: Bench, tiny: ChatRenderer
) -> None:
    prompt = tiny.render(submit(prompt=text(TEXT))).token_ids
    request = await bench.running(messages=(), prompt=text(TEXT))
    assert (request.prompt_token_ids, request.phase) == (prompt, Phase.ANSWERING)
    bench.step(EngineOutput("a", tiny.render(submit(prompt=text(" it"))).token_ids, "stop"))
    (run,) = bench.runs()
    assert ("".join(run.texts), run.finish is not None) == (" it", True)


async def test_tokens_and_their_names_are_told_if_they_are_wanted(
    bench: Bench, tiny: ChatRenderer
) -> None:
    prompt = submit(prompt=text(TEXT))
    ids = tiny.render(prompt).token_ids
    for tokens, names in ((False, False), (True, False), (True, True)):
        bench.service.answer(bench.gateway, Count(prompt=prompt, tokens=tokens, names=names))
        (counted,) = await bench.answered()
        assert isinstance(counted, Counted)
        assert counted.prompt_tokens == len(ids)
        assert counted.token_ids == (ids if tokens else ())
        assert counted.names == (tiny.names(ids) if names else ())
    assert len(tiny.names(ids)) == len(ids)
    bench.service.answer(bench.gateway, Count(prompt=submit(user("Hi")), tokens=True))
    (counted,) = await bench.answered()
    assert counted.token_ids == tiny.render(submit(user("Hi"))).token_ids


async def test_tokens_become_text_with_special_ones(bench: Bench, tiny: ChatRenderer) -> None:
    ids = tiny.render(submit(user("Hi"))).token_ids
    bench.service.answer(bench.gateway, Detokenize(request_id="d", token_ids=ids))
    (found,) = await bench.answered()
    assert isinstance(found, Detokenized)
    assert (found.request_id, "<|im_start|>" in found.text) == ("d", True)
    bench.service.answer(bench.gateway, Detokenize(request_id="d", token_ids=(10**6,)))
    (refused,) = await bench.answered()
    assert isinstance(refused, Rejected)
    assert (refused.request_id, refused.param) == ("d", "token_ids")


async def test_a_bug_of_the_tokenizer_is_told_without_its_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("the secret")

    monkeypatch.setattr(ChatRenderer, "render", broken)
    bench.service.answer(bench.gateway, Count(prompt=submit(user("Hi"))))
    (refused,) = await bench.answered()
    assert isinstance(refused, Rejected)
    assert (refused.request_id, refused.code) == ("r", "internal_error")
    assert "secret" not in refused.message
