"""Serves ``/openapi.json`` and ``/asyncapi.json``, which are made when the server starts.

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
from gateway.api.http import SERVICE


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


# By whether a key is needed: the first stored key changes that while the server runs.
OPENAPI: web.AppKey[Mapping[bool, Document]] = web.AppKey("openapi", Mapping)
ASYNCAPI: web.AppKey[Mapping[bool, Document]] = web.AppKey("asyncapi", Mapping)


def add_documents(app: web.Application) -> None:
    """Add the routes of the documents, as the last ones: they describe all others."""
    app.add_routes([web.get("/openapi.json", get_openapi), web.get("/asyncapi.json", get_asyncapi)])
    routes, either = routes_of(app), (False, True)
    app[OPENAPI] = {needed: Document.of(openapi(routes, needs_key=needed)) for needed in either}
    app[ASYNCAPI] = {needed: Document.of(asyncapi(needs_key=needed)) for needed in either}


async def get_openapi(request: web.Request) -> web.Response:
    """``GET /openapi.json``."""
    return _sent(request, request.app[OPENAPI][request.app[SERVICE].keys.asked_for])


async def get_asyncapi(request: web.Request) -> web.Response:
    """``GET /asyncapi.json``."""
    return _sent(request, request.app[ASYNCAPI][request.app[SERVICE].keys.asked_for])


def _sent(request: web.Request, document: Document) -> web.Response:
    """The document, or 304 if the client has this one."""
    headers = {"ETag": f'"{document.etag}"', "Cache-Control": "no-cache"}
    known = request.if_none_match or ()
    if any(tag.value in (document.etag, "*") for tag in known):
        return web.Response(status=304, headers=headers)
    return web.Response(body=document.data, headers=headers, content_type="application/json")
