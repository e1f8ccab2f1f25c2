"""Structured output: the fields of both APIs, and vLLM's, become one `Structure`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.schemas.errors import InvalidRequest
from gateway.schemas.json_schema import MOST_BYTES, check_schema
from workers.messages import Structure

_MOST_CHOICES = 1024
_FormatName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
# `_of_format` checks it.
_Kind = Annotated[str, Meta(extra_json_schema={"enum": ["text", "json_object", "json_schema"]})]
_Text = Annotated[str, Meta(min_length=1, max_length=MOST_BYTES)]


class JsonSchema(msgspec.Struct, frozen=True):
    """``json_schema`` of a ``response_format``."""

    schema: dict[str, Any]
    name: _FormatName | None = None
    description: str | None = None
    strict: bool | None = None  # the output fits the schema whatever this is


class ResponseFormat(msgspec.Struct, frozen=True):
    """Form of the answer, in chat completions."""

    type: _Kind = "text"
    json_schema: JsonSchema | None = None


class TextFormat(msgspec.Struct, frozen=True):
    """Form of the answer, in ``text.format`` of the Responses API."""

    type: _Kind = "text"
    schema: dict[str, Any] | None = None
    name: _FormatName | None = None
    description: str | None = None
    strict: bool | None = None


class StructuredOutputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's ``structured_outputs``: exactly one of these."""

    json: str | dict[str, Any] | None = None
    regex: _Text | None = None
    choice: Annotated[list[_Text], Meta(min_length=1, max_length=_MOST_CHOICES)] | None = None
    grammar: _Text | None = None
    json_object: bool | None = None


Found = tuple[Structure, str]  # the structure, and the path of the field that asks for it


def of_chat(
    response_format: ResponseFormat | None, outputs: StructuredOutputs | None
) -> Found | None:
    """The structure that a chat completion asks for, if any.

    :raises InvalidRequest: naming the field.
    """
    form = response_format or ResponseFormat()
    schema, at = None, "response_format.json_schema"
    if form.json_schema is not None:
        schema, at = form.json_schema.schema, "response_format.json_schema.schema"
    return _one(_of_format(form.type, schema, "response_format", at), outputs)


def of_responses(form: TextFormat, outputs: StructuredOutputs | None) -> Found | None:
    """The structure that a response asks for, if any.

    :raises InvalidRequest: naming the field.
    """
    found = _of_format(form.type, form.schema, "text.format", "text.format.schema")
    return _one(found, outputs)


def _of_format(kind: str, schema: dict[str, Any] | None, where: str, at: str) -> Found | None:
    match kind:
        case "text":
            return None
        case "json_object":
            return Structure(kind="json_object"), where
        case "json_schema":
            if schema is None:
                raise InvalidRequest(f"'{at}' is missing.", param=at)
            check_schema(schema, at)
            return Structure(kind="json", value=schema), at
        case _:
            raise InvalidRequest(
                f"'{where}.type' must be text, json_object or json_schema, not {kind[:64]!r}.",
                param=f"{where}.type",
            )


def _one(found: Found | None, outputs: StructuredOutputs | None) -> Found | None:
    other = None if outputs is None else _of_outputs(outputs)
    if found is not None and other is not None:
        raise InvalidRequest(
            f"Send '{found[1]}' or 'structured_outputs', not both.", param="structured_outputs"
        )
    return found or other


def _of_outputs(outputs: StructuredOutputs) -> Found | None:
    where = "structured_outputs"
    asked = {
        name: value
        for name in outputs.__struct_fields__
        if (value := getattr(outputs, name)) is not None
    }
    if asked.get("json_object") is False:
        del asked["json_object"]
    if not asked:
        return None
    if len(asked) > 1:
        raise InvalidRequest(
            f"'{where}' has more than one constraint: {', '.join(asked)}.", param=where
        )
    ((kind, value),) = asked.items()
    at = f"{where}.{kind}"
    match kind:
        case "json":
            schema = _decoded(value, at) if isinstance(value, str) else value
            check_schema(schema, at)
            return Structure(kind="json", value=schema), at
        case "json_object":
            return Structure(kind="json_object"), at
        case "regex":
            return Structure(kind="regex", value=value), at
        case "choice":
            return Structure(kind="choice", value=value), at
        case _:
            return Structure(kind="grammar", value=value), at


def _decoded(text: str, at: str) -> dict[str, Any]:
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"'{at}' is not JSON: {error}.", param=at) from error
    if not isinstance(schema, dict):
        raise InvalidRequest(f"'{at}' must be a JSON object.", param=at)
    return schema
