"""The OpenAPI document: made of the application's routes, `OPERATIONS` and the schemas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeAlias

from aiohttp import web

from gateway.api.documents import objects
from gateway.api.documents.operations import OPERATIONS, Operation, Parameter
from gateway.api.documents.schemas import components, name_of, reference, used
from gateway.api.refusals import MESSAGES_PATH
from gateway.schemas.errors import CONTENT_ENCODINGS, ApiError, HeadersTooLarge, InvalidHttp

Json: TypeAlias = dict[str, Any]

OPENAPI = "3.1.0"
EVENTS = "x-event-data"  # holds the schema of the `data` of an event stream
_JSON = "application/json"
_STREAM = "text/event-stream"
_EVERYWHERE: tuple[type[ApiError], ...] = (InvalidHttp, HeadersTooLarge)  # refusals of every route
_BROKEN = 500
_RETRY_AFTER: Json = {
    "Retry-After": {
        "schema": {"type": "integer", "minimum": 1},
        "description": "After how many seconds to try again.",
    }
}
_HEADERS: Mapping[int, Json] = {
    401: {"WWW-Authenticate": {"schema": {"const": "Bearer"}, "description": "How to send a key."}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def routes_of(app: web.Application) -> dict[tuple[str, str], str]:
    """The name of the handler of each route, by method and path; for HEAD that of its GET."""
    found = {}
    for route in app.router.routes():
        if route.resource is not None:
            found[route.method, route.resource.canonical] = route.handler.__name__.strip("_")
    return found


def openapi(routes: Mapping[tuple[str, str], str], *, needs_key: bool) -> Json:
    """The document.

    :param routes: as `routes_of` returns them.
    :param needs_key: whether keys are configured; without them, every client may use the API.
    """
    paths: Json = {}
    for (method, path), name in routes.items():
        operation = OPERATIONS.get(("GET" if method == "HEAD" else method, path))
        if operation is not None:
            described = _operation(operation, path, name)
            if method == "HEAD":
                described = _head(described)
            paths.setdefault(path, {})[method.lower()] = described
    keys: list[Json] = [{"bearer": []}, {"api_key": []}]
    document = {
        "openapi": OPENAPI,
        "info": info("The HTTP API. /asyncapi.json describes the WebSocket."),
        "security": keys if needs_key else [{}, *keys],
        "paths": paths,
    }
    document["components"] = {
        "schemas": used([paths], components()),
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
        },
    }
    return document


def info(description: str) -> Json:
    """What both documents say about themselves."""
    return {
        "title": "pascal-serve",
        "version": version("pascal-serve"),
        "description": description,
        "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }


def _operation(operation: Operation, path: str, name: str) -> Json:
    described: Json = {
        "operationId": name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_of_path(path), *map(_parameter, operation.parameters)],
        "responses": _responses(operation, path),
    }
    if operation.body is not None:
        schema = reference(name_of(operation.body))
        described["parameters"].append(
            _parameter(
                Parameter(
                    "Content-Encoding",
                    {"enum": ["identity", *CONTENT_ENCODINGS]},
                    "How the body is compressed.",
                    "header",
                )
            )
        )
        described["requestBody"] = {
            "required": not operation.body_is_optional,
            "content": {_JSON: {"schema": schema}},
        }
    if operation.is_open:
        described["security"] = []
    return described


def _head(described: Json) -> Json:
    """The same without bodies of answers."""
    answers = {
        status: {name: value for name, value in answer.items() if name != "content"}
        for status, answer in described["responses"].items()
    }
    return {**described, "operationId": f"{described['operationId']}_head", "responses": answers}


def _of_path(path: str) -> Iterable[Json]:
    for part in path.split("/"):
        if part.startswith("{"):
            yield {
                "name": part[1:-1],
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.summary,
        "schema": parameter.schema,
    }


def _responses(operation: Operation, path: str) -> Json:
    content: Json = {}
    if operation.answer is not None:
        content[_JSON] = {"schema": reference(name_of(operation.answer))}
    if operation.media:
        content[operation.media] = {}
    if operation.events is not None:
        content[_STREAM] = {
            "schema": {"type": "string"},
            EVENTS: reference(name_of(operation.events)),
        }
    answer: Json = {"description": operation.summary}
    if content:
        answer["content"] = content
    found = {str(operation.status): answer}
    for status, text in (operation.also or {}).items():
        found[str(status)] = {**answer, "description": text}
    form = objects.MessagesError if path.startswith(MESSAGES_PATH) else objects.Error
    for status, text in _refusals(operation.refusals).items():
        refusal: Json = {
            "description": text,
            "content": {_JSON: {"schema": reference(name_of(form))}},
        }
        if status in _HEADERS:
            refusal["headers"] = _HEADERS[status]
        found.setdefault(str(status), refusal)
    return dict(sorted(found.items()))


def _refusals(errors: Sequence[type[ApiError]]) -> dict[int, str]:
    """What each status of a refusal means."""
    texts: dict[int, list[str]] = {_BROKEN: ["A bug of the gateway; its log has the cause."]}
    for error in dict.fromkeys((*errors, *_EVERYWHERE)):
        said = (error.__doc__ or "").partition("\n")[0].replace("``", "`")
        texts.setdefault(error.status, []).append(said)
    return {status: " ".join(dict.fromkeys(said)) for status, said in texts.items()}
