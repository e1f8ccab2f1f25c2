"""What the server answers is as /openapi.json says: of every API, whole and streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.gateway.support.described import Described, events_of
from tests.gateway.support.played import played

ADD = {"name": "add", "parameters": {"type": "object"}}
FUNCTION = {"type": "function", **ADD}
CUSTOM = {"type": "custom", "name": "note"}
UNPACED: dict[str, Any] = {"pacing": False}


class Client:
    """Sends requests, and holds every answer against the document."""

    def __init__(self, http: ClientSession, described: Described) -> None:
        self._http = http
        self.described = described
        self.types: set[str] = set()  # of events that were seen

    async def ask(
        self,
        method: str,
        path: str,
        status: int = 200,
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> Any:
        sent = body or None
        async with self._http.request(method, path, json=sent, headers=headers) as response:
            data = await response.read()
            media = response.headers.get("Content-Type", "")
            assert response.status == status, data
            self.described.check(method, path.partition("?")[0], status, media, data)
            if media.startswith("text/event-stream"):
                events = list(events_of(data.decode()))
                self.types |= {event.get("type", "chunk") for event in events}
                return events
            return await response.json() if media == "application/json" and data else None


async def client_of(http: ClientSession) -> Client:
    async with http.get("/openapi.json") as response:
        return Client(http, Described(await response.json()))


async def test_responses_whole_streamed_and_looked_up(tmp_path: Path) -> None:
    async with played(tmp_path) as (http, _, _):
        client = await client_of(http)
        wanted: list[dict[str, Any]] = [
            {},
            {"tools": [FUNCTION, CUSTOM], "reasoning": {"effort": "low"}},
            {"tools": [{"type": "namespace", "name": "n", "tools": [CUSTOM]}]},
            {"reasoning": {"summary": "auto"}, "text": {"verbosity": "low"}},
            {
                "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
                "top_logprobs": 2,
                "max_output_tokens": 2,
            },
            {
                "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}},
                "metadata": {"a": "b"},
                "user": "me",
                "temperature": 0,
                "instructions": "Be short.",
            },
        ]
        at = ""
        for fields in wanted:
            body = {"input": "What is 348 + 275?", **UNPACED, **fields}
            await client.ask("POST", "/v1/responses", **body)
            *_, last = await client.ask("POST", "/v1/responses", **body, stream=True, store=True)
            at = f"/v1/responses/{last['response']['id']}"
            await client.ask("GET", at)
            await client.ask("GET", f"{at}?stream=true&starting_after=2")
            await client.ask("GET", f"{at}/input_items")
            await client.ask("POST", f"{at}/cancel")
        await client.ask("DELETE", at)
        for method, path in (("GET", at), ("DELETE", at), ("POST", f"{at}/cancel")):
            await client.ask(method, path, 404)
        background = await client.ask("POST", "/v1/responses", input="slow", background=True)
        await client.ask("POST", f"/v1/responses/{background['id']}/cancel")
        known = client.described.document["components"]["schemas"]["ResponseEvent"]
        # Nothing fails here, and a stream has an event "error" only if it outlives its log.
        assert set(known["discriminator"]["mapping"]) - client.types == {
            "error",
            "response.failed",
        }


async def test_chat_completions(tmp_path: Path) -> None:
    async with played(tmp_path) as (http, _, _):
        client = await client_of(http)
        body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], **UNPACED}
        for fields in (
            {"n": 2, "stream_options": {"include_usage": True}},
            {"tools": [{"type": "function", "function": ADD}]},
            {"logprobs": True, "top_logprobs": 1, "max_tokens": 2},
        ):
            await client.ask("POST", "/v1/chat/completions", **body, **fields)
            await client.ask("POST", "/v1/chat/completions", **body, **fields, stream=True)


async def test_completions_and_tokens(tmp_path: Path) -> None:
    async with played(tmp_path) as (http, _, _):
        client = await client_of(http)
        for fields in (
            {"prompt": "hi", "stream_options": {"include_usage": True}},
            {"prompt": ["a", "b"], "n": 2, "logprobs": 2, "max_tokens": 2},
            {"prompt": [1, 2], "store": None},
        ):
            await client.ask("POST", "/v1/completions", **fields, **UNPACED)
            await client.ask("POST", "/v1/completions", **fields, **UNPACED, stream=True)
        await client.ask("POST", "/v1/completions", 400, prompt="hi", echo=True)
        await client.ask("POST", "/tokenize", prompt="hi")
        messages = [{"role": "user", "content": "hi"}]
        await client.ask("POST", "/tokenize", messages=messages, return_token_strs=True)
        await client.ask("POST", "/detokenize", tokens=[1, 2])
        await client.ask("POST", "/detokenize", 400, tokens=["a"])
        await client.ask("GET", "/version")


async def test_messages_in_their_own_form(tmp_path: Path) -> None:
    async with played(tmp_path) as (http, _, _):
        client = await client_of(http)
        body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], **UNPACED}
        tools = [{"name": "add", "input_schema": {"type": "object"}}]
        for fields in ({}, {"tools": tools}):
            full = {**body, **fields, "max_tokens": 100}
            await client.ask("POST", "/v1/messages", **full)
            await client.ask("POST", "/v1/messages", **full, stream=True)
        await client.ask("POST", "/v1/messages/count_tokens", **body)
        refused = await client.ask("POST", "/v1/messages", 400, **body)
        assert refused["type"] == "error"
        thread = {"type": "create"}
        await client.ask("POST", "/v1/messages", 400, **body, max_tokens=100, thread=thread)


async def test_conversations_and_their_items(tmp_path: Path) -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "n"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "namespace": "n"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"type": "custom_tool_call", "call_id": "d", "name": "f"},
        {
            "type": "custom_tool_call_output",
            "call_id": "d",
            "output": [{"type": "input_text", "text": "2"}],
        },
    ]
    async with played(tmp_path) as (http, _, _):
        client = await client_of(http)
        made = await client.ask("POST", "/v1/conversations", items=items, metadata={"a": "b"})
        at = f"/v1/conversations/{made['id']}"
        body = {"input": "hi", "conversation": made["id"], **UNPACED}
        await client.ask("POST", "/v1/responses", **body)
        await client.ask("GET", at)
        await client.ask("POST", at, metadata={"c": "d"})
        listed = await client.ask("GET", f"{at}/items?limit=100&order=asc")
        assert len(listed["data"]) == len(items) + 3
        for item in listed["data"]:
            await client.ask("GET", f"{at}/items/{item['id']}")
        await client.ask("POST", f"{at}/items", items=items[:1])
        await client.ask("DELETE", f"{at}/items/{listed['data'][0]['id']}")
        await client.ask("GET", f"{at}/items/{listed['data'][0]['id']}", 404)
        await client.ask("GET", f"{at}/items?limit=0", 400)
        await client.ask("DELETE", at)
        await client.ask("GET", at, 404)


async def test_what_is_there_for_operators_and_browsers(tmp_path: Path) -> None:
    async with played(tmp_path) as (http, service, _):
        client = await client_of(http)
        model = service.config.served_model_name
        for path in (
            "/v1/models",
            f"/v1/models/{model}",
            "/admin/instances",
            "/admin/instances/worker-0",
            "/health",
            "/ready",
            "/metrics",
            "/",
            "/static/index.html",
            "/openapi.json",
            "/asyncapi.json",
        ):
            await client.ask("GET", path)
        for path in ("/v1/models", "/health", "/metrics", "/openapi.json"):
            await client.ask("HEAD", path)
        await client.ask("GET", "/v1/models/other", 404)
        for name in ("none", "none/index.html", "x" * 5000, "%00", "..%2Fpyproject.toml"):
            await client.ask("GET", f"/static/{name}", 404)
        await client.ask("GET", "/v1/responses", 400)
        await client.ask("GET", "/admin/instances/other", 404)
        await client.ask("GET", "/v1/models", 403, headers={"Origin": "http://evil.example"})
        await client.ask("POST", "/admin/instances/worker-0/drain", 202)
        await client.ask("GET", "/ready", 503)
        await client.ask("POST", "/admin/instances/worker-0/drain", 409, restart=True)
        await client.ask("POST", "/admin/instances/worker-0/undrain")


async def test_an_answer_with_a_field_that_is_not_described_is_found(tmp_path: Path) -> None:
    async with played(tmp_path) as (http, _, _):
        client = await client_of(http)
        client.described.check("GET", "/health", 200, "application/json", b'{"status": "ok"}')
        for status, data in ((200, b'{"status": "ok", "more": 1}'), (200, b"{}"), (202, b"{}")):
            with pytest.raises(AssertionError):
                client.described.check("GET", "/health", status, "application/json", data)
        with pytest.raises(AssertionError):
            client.described.check("GET", "/healthy", 200, "application/json", b"{}")


@pytest.mark.parametrize("path", ["v1/conversations", "v1/responses", "v1/messages"])
async def test_an_unknown_field_without_a_name_is_named(tmp_path: Path, path: str) -> None:
    async with played(tmp_path) as (http, _, _), http.post(path, json={"": 1}) as response:
        error = (await response.json())["error"]
        assert (response.status, error["param"]) == (400, "")
        assert "''" in error["message"]


async def test_an_input_that_makes_no_message_reaches_no_worker(tmp_path: Path) -> None:
    async with played(tmp_path) as (http, _, player):
        client = await client_of(http)
        for item in ({"type": "reasoning"}, {"type": "reasoning", "content": []}):
            refused = await client.ask("POST", "/v1/responses", 400, input=[item])
            assert refused["error"]["param"] == "input"
        assert player.seen == 0
