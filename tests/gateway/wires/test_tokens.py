"""Questions about tokens on a real HTTP server, and the small routes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ServerConfig
from tests.gateway.api.test_apis import api, key
from workers.messages import Count, Counted, Detokenize, Detokenized, PlainPrompt, Rejected

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def asked(client: Any, worker: Any, path: str, body: dict[str, Any]) -> tuple[Any, Any]:
    """The pending answer of a client, and the question of its gateway."""
    asking = asyncio.create_task(client.post(path, json=body))
    return asking, await worker.next()


@pytest.mark.parametrize("names", [False, True])
async def test_a_text_is_tokenized(tmp_path: Path, names: bool) -> None:
    async with api(tmp_path) as (client, worker, service):
        body = {"prompt": "Hi", "add_special_tokens": False, "return_token_strs": names}
        asking, count = await asked(client, worker, "tokenize", body)
        assert isinstance(count, Count)
        assert (count.tokens, count.names) == (True, names)
        assert count.prompt.prompt == PlainPrompt(text="Hi", special_tokens=False)
        shown = ("H", "i") if names else ()
        request_id = count.prompt.request_id
        answer = Counted(request_id=request_id, prompt_tokens=2, token_ids=(5, 6), names=shown)
        await worker.say(answer)
        assert await (await asking).json() == {
            "count": 2,
            "max_model_len": 100,
            "tokens": [5, 6],
            "token_strs": ["H", "i"] if names else None,
        }
        assert not service.cluster.counter._waiting


async def test_a_conversation_is_tokenized_as_the_model_gets_it(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    system = {"role": "system", "content": "x-anthropic-billing-header: cch=1;\nBe kind."}
    body = {
        "messages": [system, *CHAT["messages"]],
        "tools": [tool],
        "chat_template_kwargs": {"a": 1},
        "add_generation_prompt": True,
    }
    async with api(tmp_path) as (client, worker, _):
        asking, count = await asked(client, worker, "tokenize", body)
        assert [message.content for message in count.prompt.messages] == ["Be kind.", "hi"]
        assert (count.prompt.template, len(count.prompt.tools)) == ({"a": 1}, 1)
        request_id = count.prompt.request_id
        refusal = Rejected(request_id=request_id, code="c", message="no", param="template.a")
        await worker.say(refusal)
        answer = await asking
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "chat_template_kwargs.a"


async def test_tokens_become_text_again(tmp_path: Path) -> None:
    async with api(tmp_path) as (client, worker, service):
        asking, question = await asked(client, worker, "detokenize", {"tokens": [5, 6]})
        assert isinstance(question, Detokenize)
        assert question.token_ids == (5, 6)
        await worker.say(Detokenized(request_id=question.request_id, text="Hi"))
        assert await (await asking).json() == {"prompt": "Hi"}
        asking, question = await asked(client, worker, "detokenize", {"tokens": [9]})
        refusal = Rejected(
            request_id=question.request_id, code="c", message="no", param="token_ids"
        )
        await worker.say(refusal)
        answer = await asking
        assert (answer.status, (await answer.json())["error"]["param"]) == (400, "tokens")
        asking, _ = await asked(client, worker, "detokenize", {"tokens": []})
        service.cluster.counter.lost("worker-0")
        assert (await asking).status == 503
        assert not service.cluster.counter._waiting


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("tokenize", {}, "prompt"),
        ("tokenize", {"prompt": 5}, "prompt"),
        ("tokenize", {"prompt": "x", "return_token_strs": "yes"}, "return_token_strs"),
        ("tokenize", {**CHAT, "add_generation_prompt": False}, "add_generation_prompt"),
        ("tokenize", {"prompt": "x", "model": "other"}, "model"),
        ("tokenize", {"promt": "x"}, "promt"),
        ("detokenize", {"tokens": ["x"]}, "tokens[0]"),
        ("detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("detokenize", {}, "tokens"),
        ("detokenize", {"tokens": [1], "model": "other"}, "model"),
    ],
)
async def test_what_is_wrong_is_named(
    tmp_path: Path, path: str, body: dict[str, Any], param: str
) -> None:
    async with api(tmp_path) as (client, worker, _):
        answer = await client.post(path, json=body)
        assert answer.status == (404 if param == "model" else 400)
        assert (await answer.json())["error"]["param"] == param
        assert worker.unread() == 0


async def test_tokens_need_a_key_like_all_else(tmp_path: Path) -> None:
    async with api(tmp_path, server=ServerConfig(api_keys=("alice",))) as (client, _, _service):
        for path in ("tokenize", "detokenize", "v1/completions"):
            assert (await client.post(path, json={})).status == 401
            assert (await client.post(path, json={}, headers=key("alice"))).status == 400


async def test_the_model_is_described_with_its_context_and_others_do_not_exist(
    tmp_path: Path,
) -> None:
    async with api(tmp_path) as (client, _, service):
        name = service.config.served_model_name
        (listed,) = (await (await client.get("v1/models")).json())["data"]
        described = await (await client.get(f"v1/models/{name}")).json()
        assert described == listed
        assert (described["id"], described["max_model_len"]) == (name, 100)
        for other in ("other", f"{name}/x"):
            answer = await client.get(f"v1/models/{other}")
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "model_not_found"


async def test_the_version_says_what_serves(tmp_path: Path) -> None:
    async with api(tmp_path, server=ServerConfig(api_keys=("alice",))) as (client, _, _service):
        answer = await client.get("version")
        version = await answer.json()
        assert (answer.status, version["engines"]) == (200, ["script"])
        assert version["version"] is None or version["version"][0].isdigit()
