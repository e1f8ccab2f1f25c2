"""The routes of conversations, ``/v1/conversations``, and of their items."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.api.http import SERVICE, owner_of, read_bytes
from gateway.api.refusals import json_response
from gateway.api.responses.lists import list_object, page_of
from gateway.schemas.conversation_bodies import (
    parse_new_conversation,
    parse_new_items,
    parse_update,
)
from gateway.store import StoredConversation


async def create_conversation(request: web.Request) -> web.Response:
    """``POST /v1/conversations``."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_new_conversation(await read_bytes(request))
    items = await service.requests.readable(list(body.items), owner, "items")
    return _shown(await service.conversations.create(owner, dict(body.metadata), items))


async def get_conversation(request: web.Request) -> web.Response:
    """``GET /v1/conversations/{id}``."""
    owner = owner_of(request)
    return _shown(await request.app[SERVICE].conversations.get(_id(request), owner))


async def update_conversation(request: web.Request) -> web.Response:
    """``POST /v1/conversations/{id}``: replace the metadata."""
    owner = owner_of(request)
    body = parse_update(await read_bytes(request))
    conversations = request.app[SERVICE].conversations
    return _shown(await conversations.update(_id(request), owner, dict(body.metadata)))


async def delete_conversation(request: web.Request) -> web.Response:
    """``DELETE /v1/conversations/{id}``."""
    owner, conversation_id = owner_of(request), _id(request)
    await request.app[SERVICE].conversations.delete(conversation_id, owner)
    gone = {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
    return json_response(gone)


async def list_items(request: web.Request) -> web.Response:
    """``GET /v1/conversations/{id}/items``."""
    owner = owner_of(request)
    page = page_of(request.query)
    items, more = await request.app[SERVICE].conversations.page(
        _id(request), owner, after=page.after, limit=page.limit, ascending=page.ascending
    )
    return json_response(list_object(items, more=more))


async def create_items(request: web.Request) -> web.Response:
    """``POST /v1/conversations/{id}/items``."""
    owner = owner_of(request)
    service = request.app[SERVICE]
    body = parse_new_items(await read_bytes(request))
    items = await service.requests.readable(list(body.items), owner, "items")
    added = await service.conversations.add(_id(request), owner, items)
    return json_response(list_object(added, more=False))


async def get_item(request: web.Request) -> web.Response:
    """``GET /v1/conversations/{id}/items/{item_id}``."""
    owner = owner_of(request)
    item_id = request.match_info["item_id"]
    return json_response(
        await request.app[SERVICE].conversations.item(_id(request), owner, item_id)
    )


async def delete_item(request: web.Request) -> web.Response:
    """``DELETE /v1/conversations/{id}/items/{item_id}``."""
    owner = owner_of(request)
    item_id = request.match_info["item_id"]
    conversations = request.app[SERVICE].conversations
    return _shown(await conversations.delete_item(_id(request), owner, item_id))


ROUTES: Any = [
    web.post("/v1/conversations", create_conversation),
    web.get("/v1/conversations/{conversation_id}", get_conversation, allow_head=False),
    web.post("/v1/conversations/{conversation_id}", update_conversation),
    web.delete("/v1/conversations/{conversation_id}", delete_conversation),
    web.get("/v1/conversations/{conversation_id}/items", list_items, allow_head=False),
    web.post("/v1/conversations/{conversation_id}/items", create_items),
    web.get("/v1/conversations/{conversation_id}/items/{item_id}", get_item, allow_head=False),
    web.delete("/v1/conversations/{conversation_id}/items/{item_id}", delete_item),
]


def _id(request: web.Request) -> str:
    return request.match_info["conversation_id"]


def _shown(conversation: StoredConversation) -> web.Response:
    return json_response(
        {
            "id": conversation.conversation_id,
            "object": "conversation",
            "created_at": int(conversation.created_at),
            "metadata": conversation.metadata,
        }
    )
