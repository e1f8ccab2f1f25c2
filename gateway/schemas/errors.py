"""Errors that a client can see, each with its HTTP status and OpenAI's error fields.

    ApiError
    ├── InvalidRequest      400  the body is wrong; ``param`` names the field
    ├── InvalidHttp         400  the bytes are not HTTP
    ├── Unauthorized        401
    ├── Forbidden           403  only allowed from elsewhere, or with another API key
    ├── NotFound            404  response, model or instance
    ├── RequestTimeout      408  the body did not come in time
    ├── Conflict            409  not possible in the current state
    ├── TooLarge            413
    ├── UnsupportedEncoding 415  the body is compressed in an unsupported way
    ├── Overloaded          429  carries ``retry_after_s``
    ├── HeadersTooLarge     431
    ├── Cancelled           499  the response was cancelled before it was complete
    └── Unavailable         503  no instance can serve, or the one that served is gone
        └── StoreError      503  stored responses cannot be used (in `gateway.store`)

Every other exception is a bug: it is logged with its cause and shown as 500 without detail.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

Converted = TypeVar("Converted")

CONTENT_ENCODINGS = ("gzip", "deflate")  # of request bodies, see `gateway.api.encodings`

_LONGEST_QUOTE = 1000  # characters of a text that may quote a client

# How msgspec describes a wrong document: "Expected `int` >= 1 - at `$.max_output_tokens`".
_VALIDATION = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<path>\w+)`")
_UNKNOWN = re.compile(r"contains unknown field `(?P<path>.*?)`", re.DOTALL)


class ApiError(Exception):
    """A refusal in OpenAI's form: ``type``, ``code``, ``message`` and the wrong ``param``."""

    status = 500
    type = "server_error"

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = _sendable(message)
        if len(self.message) > _LONGEST_QUOTE:
            self.message = f"{self.message[:_LONGEST_QUOTE]}..."
        self.code = code
        self.param = None if param is None else _sendable(param)[:_LONGEST_QUOTE]

    def body(self) -> dict[str, Any]:
        """The ``error`` object of HTTP bodies, error events and failed responses."""
        return {
            "type": self.type,
            "code": self.code,
            "message": self.message,
            "param": self.param,
        }


def _sendable(text: str) -> str:
    """Make text encodable that may quote a client: bytes other than UTF-8 arrive as surrogates."""
    return text.encode(errors="backslashreplace").decode()


class InvalidRequest(ApiError):
    """The request is wrong and can never be served in this form."""

    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None, code: str = "invalid_value") -> None:
        super().__init__(message, code=code, param=param)

    @classmethod
    def of_validation(cls, error: msgspec.ValidationError, where: str = "") -> InvalidRequest:
        """Make the refusal of a document that does not fit its type; it names the field.

        :param where: path of the document within the body.
        """
        text = str(error)
        match = _VALIDATION.fullmatch(text)
        assert match is not None  # the pattern matches any text
        what = match["what"].replace("`", "")
        # "[...]" is msgspec's word for any value of an object.
        path = joined(where, (match["path"] or "").replace("[...]", ""))
        unknown = _UNKNOWN.search(match["what"])
        field = unknown or _MISSING.search(match["what"])
        if field is not None:
            path = joined(path, field["path"])
        if not path and field is None:
            return cls(f"{what}.", param=None)
        code = "unknown_parameter" if unknown else "invalid_value"
        return cls(f"'{path}': {what}.", param=path, code=code)  # the name of a field may be empty


def joined(where: str, path: str) -> str:
    """The path of a field within another field; both may be empty, ``path`` may be an index."""
    return f"{where}.{path}" if where and path and path[0] != "[" else where + path


def convert(value: Any, kind: type[Converted], where: str = "") -> Converted:
    """Convert a decoded JSON value.

    :param where: its path within the body.
    :raises InvalidRequest: it does not fit; the error names the field.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest.of_validation(error, where) from error


class InvalidHttp(ApiError):
    """What a client sent cannot be parsed as HTTP."""

    status = 400
    type = "invalid_request_error"

    def __init__(self, what: str) -> None:
        super().__init__(f"This is not a valid HTTP request: {what}.", code="invalid_http")


class HeadersTooLarge(ApiError):
    """A request line or a header is too long."""

    status = 431
    type = "invalid_request_error"

    def __init__(self, bound_bytes: int) -> None:
        super().__init__(
            f"The request line or a header is longer than {bound_bytes} bytes.",
            code="headers_too_large",
        )


class Unauthorized(ApiError):
    """The API key is missing or wrong."""

    status = 401
    type = "authentication_error"

    def __init__(self) -> None:
        super().__init__(
            "Missing or wrong API key: send it as 'Authorization: Bearer KEY'.",
            code="invalid_api_key",
        )


class Forbidden(ApiError):
    """Only allowed from the gateway's own machine, or with an API key of another scope."""

    status = 403
    type = "invalid_request_error"


class NotFound(ApiError):
    """There is no such model, instance or response, or it belongs to another user."""

    status = 404
    type = "invalid_request_error"


class RequestTimeout(ApiError):
    """The body of a request was not complete in time."""

    status = 408
    type = "invalid_request_error"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"The body of the request was not complete within {timeout_s:g} s.",
            code="request_timeout",
        )


class Conflict(ApiError):
    """Not possible in the current state."""

    status = 409
    type = "invalid_request_error"


class TooLarge(ApiError):
    """A body or message is larger than the configured bound."""

    status = 413
    type = "invalid_request_error"

    def __init__(self, size_bytes: int, bound_bytes: int) -> None:
        super().__init__(
            f"The message has {size_bytes} bytes; at most {bound_bytes} are accepted.",
            code="request_too_large",
        )


class UnsupportedEncoding(ApiError):
    """A ``Content-Encoding`` that this server does not decode."""

    status = 415
    type = "invalid_request_error"

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"Content-Encoding '{encoding[:64]}' is not supported: send the body uncompressed, or "
            f"with {' or '.join(CONTENT_ENCODINGS)}.",
            code="unsupported_content_encoding",
            param="Content-Encoding",
        )


class Overloaded(ApiError):
    """A limit is reached; there is room for the client after ``retry_after_s``."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, message: str, *, code: str, retry_after_s: int) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The ``error`` object, with the time."""
        return {**super().body(), "retry_after_s": self.retry_after_s}


class Cancelled(ApiError):
    """A response was cancelled by its id, or deleted, before it was complete.

    RFC 9110 has no status for this. 499 is in common use, and it does not make clients repeat the
    request, as 409 and 503 do.
    """

    status = 499
    type = "invalid_request_error"

    def __init__(self) -> None:
        super().__init__("The response was cancelled before it was complete.", code="cancelled")


class Unavailable(ApiError):
    """No instance can serve the request."""

    status = 503
    type = "server_error"
