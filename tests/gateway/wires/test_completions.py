"""Completions on a real HTTP server, in front of a worker that follows a script."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.api.test_apis import api
from tests.gateway.api.test_chat_output import say
from tests.gateway.support.scripted_service import until
from tests.gateway.wires.test_sessions import accept, gateway
from workers.messages import Finish, PlainPrompt, Rejected, TokenLogprob

STOP, LENGTH = Finish(reason="stop", cached_tokens=3), Finish(reason="length")
PATH = "v1/completions"


def body(**fields: Any) -> dict[str, Any]:
    return {"prompt": "Once upon", "pacing": False, **fields}


def scored(*texts: str) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            token=text,
            logprob=-0.5,
            data=tuple(text.encode()),
            top=(TokenLogprob(token="x", logprob=-0.25, data=(120,)),),
        )
        for text in texts
    )


async def chunks_of(answer: Any) -> list[dict[str, Any]]:
    """The chunks of a stream, whose end was checked."""
    *blocks, last = (await answer.text()).strip().split("\n\n")
    assert last == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


async def test_a_whole_completion(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        request = body(stop=["END", ""], top_k=5, seed=7, add_special_tokens=False)
        asking = asyncio.create_task(client.post(PATH, json=request))
        submit = await worker.next_submit()
        assert submit.prompt == PlainPrompt(text="Once upon", special_tokens=False)
        assert (submit.messages, submit.tools) == ((), ())
        sampling = submit.sampling
        assert (sampling.max_tokens, sampling.stop, sampling.seed) == (16, ("END",), 7)
        assert not submit.pace.paced
        await worker.accept(submit)
        await worker.tokens(submit.request_id, 0, " a", "\n time", finish=STOP)
        done = await (await asking).json()
        assert (done["object"], done["id"][:5]) == ("text_completion", "cmpl-")
        (choice,) = done["choices"]
        assert choice == {
            "index": 0,
            "text": " a\n time",
            "logprobs": None,
            "finish_reason": "stop",
        }
        assert done["usage"] == {
            "prompt_tokens": 20,
            "completion_tokens": 2,
            "total_tokens": 22,
            "prompt_tokens_details": {"cached_tokens": 3},
        }


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [PlainPrompt(text="a")]),
        (["a", "b"], [PlainPrompt(text="a"), PlainPrompt(text="b")]),
        ([1, 2], [PlainPrompt(token_ids=(1, 2))]),
        ([[1], [2, 3]], [PlainPrompt(token_ids=(1,)), PlainPrompt(token_ids=(2, 3))]),
    ],
)
async def test_every_choice_of_every_prompt_has_its_index(
    tmp_path: Path, prompt: Any, expected: list[PlainPrompt]
) -> None:
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post(PATH, json=body(prompt=prompt, n=2, seed=1)))
        seen = []
        for number in range(2 * len(expected)):
            submit = await worker.next_submit()
            seen.append((submit.prompt, submit.sampling.seed))
            await worker.accept(submit)
            await worker.tokens(submit.request_id, 0, str(number), finish=LENGTH)
        assert seen == [(one, seed) for one in expected for seed in (1, 2)]
        done = await (await asking).json()
        assert [(c["index"], c["text"], c["finish_reason"]) for c in done["choices"]] == [
            (number, str(number), "length") for number in range(2 * len(expected))
        ]
        assert done["usage"]["prompt_tokens"] == 20 * len(expected)
        assert done["usage"]["completion_tokens"] == 2 * len(expected)


async def test_a_stream_has_the_text_and_ends_with_the_usage(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        request = body(stream=True, prompt=["a", "b"], stream_options={"include_usage": True})
        asking = asyncio.create_task(client.post(PATH, json=request))
        submits = [await worker.next_submit()]
        await worker.accept(submits[0])
        submits.append(await worker.next_submit())
        await worker.accept(submits[1])
        answer = await asking
        for submit in submits:
            await worker.tokens(submit.request_id, 0, ' "')
            await worker.tokens(submit.request_id, 1, "ü", finish=STOP)
        *chunks, last = await chunks_of(answer)
        assert (last["choices"], last["usage"]["total_tokens"]) == ([], 44)
        for index in (0, 1):
            mine = [c for c in chunks if c["choices"][0]["index"] == index]
            assert "".join(c["choices"][0]["text"] for c in mine) == ' "ü'
            reasons = [c["choices"][0]["finish_reason"] for c in mine]
            assert reasons == [None] * (len(mine) - 1) + ["stop"]
            assert "timing" in mine[-1]
        assert len({chunk["id"] for chunk in chunks}) == 1


async def test_the_text_of_a_stream_is_paced(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        request = body(stream=True, pacing={"tpot_s": 0.05})
        asking = asyncio.create_task(client.post(PATH, json=request))
        submit = await worker.next_submit()
        assert (submit.pace.tau_s, submit.pace.paced) == (0.05, True)
        await worker.accept(submit)
        await worker.tokens(submit.request_id, 0, "a", "b", "c", finish=STOP)
        chunks = await chunks_of(await asking)
        assert [c["choices"][0]["text"] for c in chunks] == ["a", "b", "c", ""]
        assert chunks[-1]["timing"]["raw"]["tpot_s"] == 0  # they came together


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_have_the_form_of_this_api(tmp_path: Path, stream: bool) -> None:
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post(PATH, json=body(logprobs=1, stream=stream)))
        submit = await worker.next_submit()
        assert submit.sampling.logprobs == 1
        await worker.accept(submit)
        await say(worker, submit.request_id, 2, texts=(" ab", "c"), logprobs=scored(" ab", "c"))
        if stream:
            logged = [c["choices"][0]["logprobs"] for c in await chunks_of(await asking)]
            found = {name: [v for one in logged if one for v in one[name]] for name in logged[0]}
        else:
            found = (await (await asking).json())["choices"][0]["logprobs"]
        assert found == {
            "tokens": [" ab", "c"],
            "token_logprobs": [-0.5, -0.5],
            "top_logprobs": [{"x": -0.25, " ab": -0.5}, {"x": -0.25, "c": -0.5}],
            "text_offset": [0, 3],
        }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": ["a"] * 5, "n": 16}, "prompt"),
        ({"n": 17}, "n"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"messages": []}, "messages"),
        ({"tools": []}, "tools"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"prompt_cache_key": "\n"}, "prompt_cache_key"),
        ({"forced_lengths": {"reasoning_tokens": 1, "answer_tokens": 1}}, None),
        ({"forced_lengths": {"reasoning_tokens": 0, "answer_tokens": 0}}, None),
        ({"model": "other"}, "model"),
    ],
)
async def test_what_is_wrong_is_named(
    tmp_path: Path, fields: dict[str, Any], param: str | None
) -> None:
    async with api(tmp_path) as (client, worker, _):
        answer = await client.post(PATH, json=body(**fields))
        error = (await answer.json())["error"]
        assert answer.status == (404 if "model" in fields else 400)
        if param is not None:
            assert error["param"] == param
        else:
            assert error["param"].startswith("forced_lengths.")
        assert worker.unread() == 0


async def test_what_the_worker_refuses_names_the_prompt(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post(PATH, json=body(prompt=["a", "b"])))
        first = await worker.next_submit()
        await worker.accept(first)
        second = await worker.next_submit()
        refusal = {"code": "context_length_exceeded", "message": "too long", "param": "prompt"}
        await worker.say(Rejected(request_id=second.request_id, **refusal))
        answer = await asking
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "prompt[1]"
        assert await worker.next_cancel() == first.request_id  # none is left behind
        await worker.tokens(first.request_id, 0, finish=Finish(reason="cancelled"))


async def test_forced_lengths_are_not_cut_by_the_usual_bound(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        forced = {"reasoning_tokens": 0, "answer_tokens": 30}
        asking = asyncio.create_task(client.post(PATH, json=body(forced_lengths=forced)))
        submit = await worker.next_submit()
        assert submit.forced_lengths is not None
        assert (submit.forced_lengths.answer_tokens, submit.sampling.max_tokens) == (30, None)
        await worker.accept(submit)
        await worker.tokens(submit.request_id, 0, "x", finish=STOP)
        await asking


async def test_a_client_that_leaves_ends_all_its_completions(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, _):
        asking = asyncio.create_task(client.post(PATH, json=body(stream=True, n=2)))
        ids = set()
        for _ in range(2):
            submit = await worker.next_submit()
            await worker.accept(submit)
            ids.add(submit.request_id)
        (await asking).close()
        assert {await worker.next_cancel(), await worker.next_cancel()} == ids


async def test_a_completion_goes_on_elsewhere_if_its_instance_is_lost(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (client, built):
        asking = asyncio.create_task(client.post(PATH, json=body(prompt=[7, 8])))
        name, submit = await accept(built, 20)
        await built.workers[name].tokens(submit.request_id, 0, " a", " b")
        session = built.service.cluster.router.routes[submit.request_id].session
        await until(lambda: session.output_tokens == 2)
        await built.lose(name)
        (other,) = {"a", "b"} - {name}
        again = await built.workers[other].next_submit()
        assert (again.prompt, again.known_token_ids) == (PlainPrompt(token_ids=(7, 8)), (0, 1))
        await built.workers[other].accept(again)
        await built.workers[other].tokens(again.request_id, 2, " c", finish=STOP)
        assert (await (await asking).json())["choices"][0]["text"] == " a b c"
