"""``POST /tokenize`` and ``POST /detokenize``, in vLLM's form. A worker's tokenizer answers."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.api.http import SERVICE, of_client, owner_of, read_body
from gateway.api.refusals import json_response
from gateway.schemas.bodies import ChatBody, parse_body
from gateway.schemas.errors import convert
from gateway.schemas.generation import Generation, Targets, default_targets, from_chat
from gateway.schemas.plain.bodies import parse_text, parse_tokens
from gateway.schemas.plain.generation import from_text

_NAMES = "return_token_strs"


async def tokenize(request: web.Request) -> web.StreamResponse:
    """``POST /tokenize``: of a text, or of a conversation as the model gets it."""
    owner_of(request)
    service = request.app[SERVICE]
    document = await read_body(request)
    names = convert(document.pop(_NAMES, False), bool, _NAMES)
    targets = default_targets(service.config.pacing, request.headers)
    model, generation = _generation(document, targets)
    service.check_model(model)
    generation = of_client(service.config, request.headers, generation)
    counted = await service.cluster.tokens(generation, names=names)
    lengths = [one.welcome.max_model_len for one in service.cluster.instances.values()]
    return json_response(
        {
            "count": counted.prompt_tokens,
            "max_model_len": min(lengths, default=None),
            "tokens": counted.token_ids,
            "token_strs": counted.names if names else None,
        }
    )


async def detokenize(request: web.Request) -> web.StreamResponse:
    """``POST /detokenize``."""
    owner_of(request)
    service = request.app[SERVICE]
    body = parse_tokens(await read_body(request))
    service.check_model(body.model)
    return json_response({"prompt": await service.cluster.text(body.tokens)})


def _generation(document: dict[str, Any], targets: Targets) -> tuple[str | None, Generation]:
    """The name of the model, and the request whose prompt is meant."""
    if "messages" in document:
        chat = parse_body(document, ChatBody)
        return chat.model, from_chat(chat, targets)
    text = parse_text(document)
    return text.model, from_text(text, targets)
