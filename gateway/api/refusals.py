"""Refused requests: the response of the client, a metric, and one line in the log.

Of the body that line contains only the name of the wrong field. It never contains a key.
"""

from __future__ import annotations

from typing import Any

import orjson
import structlog
from aiohttp import web

from gateway.history.truncation import is_too_long
from gateway.metrics import Metrics
from gateway.schemas.errors import ApiError, NotFound, Overloaded, Unauthorized

log = structlog.get_logger()

MESSAGES_PATH = "/v1/messages"  # of the API whose errors have a form of their own
_LONGEST = 200  # characters of a client's text in the log

# Types of errors in the Messages API, by status.
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def json_response(document: Any, status: int = 200) -> web.Response:
    """Make a response with a JSON body; the document may hold `orjson.Fragment`."""
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def note(metrics: Metrics, error: ApiError, *, method: str, path: str | None) -> None:
    """Count a refusal and log it.

    :param method: of HTTP, or "WEBSOCKET" for an event on a socket.
    :param path: None if the request was not valid HTTP.
    """
    metrics.refused.labels(error.code).inc()
    log.info(
        "request_refused",
        method=_loggable(method),
        path=_loggable(path),
        status=error.status,
        code=error.code,
        param=_loggable(error.param),
    )


def error_response(error: ApiError, path: str = "") -> web.Response:
    """Make the response, in the form of the API that has this path."""
    body = messages_error(error) if path.startswith(MESSAGES_PATH) else {"error": error.body()}
    response = json_response(body, status=error.status)
    if isinstance(error, Overloaded):
        response.headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    elif error.status == web.HTTPRequestTimeout.status_code:
        response.force_close()  # the rest of the body would be read as the next request
    return response


def messages_error(error: ApiError) -> dict[str, Any]:
    """An error in the form of the Messages API. Its message names the wrong field.

    Agents shorten a conversation when a message begins with this API's words for a long prompt.
    """
    kind = _ERROR_TYPES.get(error.status, "api_error" if error.status >= 500 else None)
    text = error.message
    if error.param is not None and error.param not in text:
        text = f"{error.param}: {text}"
    if is_too_long(error):
        text = f"prompt is too long: {text}"
    body = {**error.body(), "type": kind or "invalid_request_error", "message": text}
    return {"type": "error", "error": body}


def of_http(error: web.HTTPException, request: web.BaseRequest) -> ApiError:
    """Convert an error of the HTTP server (404, 405, 417)."""
    if isinstance(error, web.HTTPNotFound):
        return NotFound(f"Nothing at {request.method} {request.path}.", code="no_such_route")
    refusal = ApiError(f"{error.reason}: {request.method} {request.path}.", code="http_error")
    refusal.status = error.status
    refusal.type = "invalid_request_error"
    return refusal


def _loggable(text: str | None) -> str | None:
    """Return a client's text without line breaks and control characters."""
    if text is None:
        return None
    return "".join(c if c.isprintable() else "?" for c in text[:_LONGEST])
