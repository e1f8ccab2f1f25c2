"""The documents are valid, and describe every route and every message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.api.documents.asyncapi import asyncapi
from gateway.api.documents.openapi import openapi, routes_of
from gateway.api.documents.operations import NOT_SERVED, OPERATIONS
from gateway.api.documents.routes import OPENAPI
from gateway.api.http import SERVICE
from gateway.app import make_app
from gateway.config import ServerConfig
from gateway.schemas import events
from tests.docs.test_api_page import examples
from tests.gateway.support.described import Described
from tests.gateway.support.played import played
from tests.gateway.support.scripted_service import serving

_METHODS = {"get", "head", "post", "delete"}


async def app_of(folder: Path, **tables: Any) -> web.Application:
    async with serving(folder, **tables) as (service, _):
        return make_app(service)


def document_of(app: web.Application) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(app[OPENAPI][app[SERVICE].keys.asked_for].data)
    return document


async def test_the_openapi_document_is_valid(tmp_path: Path) -> None:
    document = document_of(await app_of(tmp_path))
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


async def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    app = await app_of(tmp_path)
    routes = set(routes_of(app))
    described = {
        (method.upper(), path)
        for path, methods in document_of(app)["paths"].items()
        for method in methods
    }
    assert routes - described == NOT_SERVED
    assert described - routes == set()
    assert set(OPERATIONS) <= routes


async def test_a_route_without_an_entry_is_missing_in_the_document(tmp_path: Path) -> None:
    app = await app_of(tmp_path)
    app_routes = routes_of(app) | {("GET", "/v1/new"): "get_new"}
    assert "/v1/new" not in openapi(app_routes, needs_key=False)["paths"]


async def test_a_key_is_needed_if_one_is_configured(tmp_path: Path) -> None:
    app = await app_of(tmp_path, server=ServerConfig(api_keys=("secret",)))
    document = document_of(app)
    assert {} not in document["security"]
    assert "secret" not in app[OPENAPI][True].data.decode()
    assert document["paths"]["/health"]["get"]["security"] == []
    assert "401" not in document["paths"]["/health"]["get"]["responses"]
    assert "401" in document["paths"]["/v1/models"]["get"]["responses"]
    assert asyncapi(needs_key=True)["operations"]["ask"]["security"]


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for one in value for found in references(one)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [found for one in value.values() for found in references(one)]


def test_the_asyncapi_document_has_the_form_of_version_3() -> None:
    document = asyncapi(needs_key=False)
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    channel, watched = document["channels"].values()
    assert channel["address"] == "/v1/responses"
    assert watched["address"] == "/admin/ops"
    for reference in references(document):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
    ask, answer, watch, look = (
        document["operations"][name] for name in ("ask", "answer", "watch", "look")
    )
    assert (ask["action"], answer["action"]) == ("receive", "send")
    assert (look["action"], watch["action"]) == ("receive", "send")
    named = {one["$ref"] for one in (*ask["messages"], *answer["messages"])}
    assert named == {f"#/channels/responses/messages/{name}" for name in channel["messages"]}
    named = {one["$ref"] for one in (*look["messages"], *watch["messages"])}
    assert named == {f"#/channels/operations/messages/{name}" for name in watched["messages"]}
    for message in document["components"]["messages"].values():
        assert {"name", "title", "summary", "payload"} == message.keys()


def test_every_type_of_event_is_a_message() -> None:
    messages = asyncapi(needs_key=False)["components"]["messages"]
    types = {
        value
        for value in vars(events).values()
        if isinstance(value, str) and value.startswith("response.")
    }
    assert types <= messages.keys()
    assert {"response.create", "response.resume", "response.cancel", "error"} <= messages.keys()


async def test_the_documents_are_served_and_cached(tmp_path: Path) -> None:
    async with played(tmp_path, server=ServerConfig(api_keys=("key",))) as (http, _, _):
        for path in ("/openapi.json", "/asyncapi.json"):
            async with http.get(path) as response:
                assert response.status == 200  # without a key
                assert response.content_type == "application/json"
                assert await response.json()
                tag = response.headers["ETag"]
            async with http.get(path, headers={"If-None-Match": tag}) as response:
                assert (response.status, await response.read()) == (304, b"")
            async with http.get(path, headers={"If-None-Match": '"other"'}) as response:
                assert response.status == 200


# ---- bodies -----------------------------------------------------------------------------------


def schema_of(document: dict[str, Any]) -> str:
    """The name of the schema of an example: what a client sends."""
    if type_ := document.get("type"):
        names = {"create": "Create", "resume": "Resume", "cancel": "Cancel", "ping": "SocketPing"}
        return names.get(type_.removeprefix("response."), "PacingUpdate")
    if document.keys() == {"restart"}:
        return "DrainBody"
    if document.keys() == {"policy"}:
        return "PolicyBody"
    if document.keys() <= {"load", "kill"}:
        return "DemoBody"
    if document.keys() == {"boundary"}:
        return "PlacementBody"
    if document.keys() <= {"metadata", "items"}:
        return "NewConversation"
    if "messages" in document:
        return "MessagesBody" if "max_tokens" in document else "ChatBody"
    if "prompt" in document:
        return "CompletionsBody" if "max_tokens" in document else "TokenizeBody"
    if "tokens" in document:
        return "TokensBody"
    return "ResponsesBody"


async def described(folder: Path) -> Described:
    document = document_of(await app_of(folder))
    sockets = asyncapi(needs_key=False)["components"]["schemas"]
    document["components"]["schemas"] |= sockets
    return Described(document)


async def test_the_examples_of_the_api_page_fit(tmp_path: Path) -> None:
    documents = await described(tmp_path)
    for example in examples():
        value = json.loads(example.text)
        documents.check_value({"$ref": f"#/components/schemas/{schema_of(value)}"}, value)


RIGHT = [
    ("ResponsesBody", {"input": "a", "stream": None, "unknown": None, "echo": False}),
    ("ResponsesBody", {"input": [{"id": "msg_1"}, {"role": "user", "content": "a"}]}),
    ("ResponsesBody", {"input": "a", "metadata": {"a": None}, "max_output_tokens": -1}),
    ("MessagesBody", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "betas": 1}),
    ("Create", {"type": "response.create", "input": "a", "stream_id": "s", "generate": True}),
    ("SocketPing", {"type": "ping", "stream_id": "s", "response_id": "r"}),
]
WRONG = [
    ("ResponsesBody", {}),
    ("ResponsesBody", {"input": "a", "inputs": "a"}),
    ("ResponsesBody", {"input": []}),
    ("ResponsesBody", {"input": [{"type": "image"}]}),
    ("ResponsesBody", {"input": "a", "tools": [{"type": "web_search"}]}),
    ("ResponsesBody", {"input": "a", "echo": True}),
    ("ResponsesBody", {"input": "a", "max_output_tokens": 0}),
    ("ResponsesBody", {"input": "a", "include": ["all"]}),
    ("ChatBody", {"messages": [{"role": "user", "content": "a"}], "logit_bias": {"x": 1}}),
    ("ChatBody", {"messages": [{"role": "user", "content": "a"}], "modalities": ["audio"]}),
    ("NewConversation", {"metadata": {"a" * 65: "b"}}),
    ("NewConversation", {"metadata": {"a": "b" * 513}}),
    ("Create", {"type": "response.create", "input": "a", "stream_id": ""}),
    ("PacingUpdate", {"type": "response.pacing.update", "response_id": "r", "tpot_s": 61}),
    ("Resume", {"type": "response.resume", "response_id": "r", "starting_after": -2}),
    ("SocketPing", {"type": "ping", "id": "r"}),
]


async def test_what_is_refused_does_not_fit(tmp_path: Path) -> None:
    documents = await described(tmp_path)
    for name, value in RIGHT:
        documents.check_value({"$ref": f"#/components/schemas/{name}"}, value)
    for name, value in WRONG:
        with pytest.raises(AssertionError):
            documents.check_value({"$ref": f"#/components/schemas/{name}"}, value)
