"""Serves ``/openapi.json`` and ``/asyncapi.json``, which are made once, when the server starts.

Neither needs a key: they say nothing of this server's clients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from gateway.api.documents.asyncapi import asyncapi
from gateway.api.documents.openapi import openapi, routes_of


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is sent."""

    data: bytes
    etag: str

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Document:
        """Encode a document."""
        data = msgspec.json.encode(value)
        return cls(data, hashlib.sha256(data).hexdigest()[:32])


OPENAPI: web.AppKey[Document] = web.AppKey("openapi", Document)
ASYNCAPI: web.AppKey[Document] = web.AppKey("asyncapi", Document)


def add_documents(app: web.Application, *, needs_key: bool) -> None:
    """Add the routes of the documents, as the last ones: they describe all others."""
    app.add_routes([web.get("/openapi.json", get_openapi), web.get("/asyncapi.json", get_asyncapi)])
    app[OPENAPI] = Document.of(openapi(routes_of(app), needs_key=needs_key))
    app[ASYNCAPI] = Document.of(asyncapi(needs_key=needs_key))


async def get_openapi(request: web.Request) -> web.Response:
    """``GET /openapi.json``."""
    return _sent(request, request.app[OPENAPI])


async def get_asyncapi(request: web.Request) -> web.Response:
    """``GET /asyncapi.json``."""
    return _sent(request, request.app[ASYNCAPI])


def _sent(request: web.Request, document: Document) -> web.Response:
    """The document, or 304 if the client has this one."""
    headers = {"ETag": f'"{document.etag}"', "Cache-Control": "no-cache"}
    known = request.if_none_match or ()
    if any(tag.value in (document.etag, "*") for tag in known):
        return web.Response(status=304, headers=headers)
    return web.Response(body=document.data, headers=headers, content_type="application/json")
