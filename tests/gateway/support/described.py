"""Holds answers of the API against its own documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator

END = "[DONE]"  # the last event of a chat completion


class Described:
    """An OpenAPI document, and the paths in it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._components = document["components"]
        # A name within a path has no slash, unless nothing else fits.
        self._paths = [
            (re.compile(re.sub(r"\\{\w+\\}", part, re.escape(path))), path)
            for part in ("[^/]+", ".+")
            for path in sorted(document["paths"], key=lambda path: path.count("{"))
        ]

    def operation(self, method: str, path: str) -> dict[str, Any]:
        """The description of a request. Raises AssertionError without one."""
        method = method.lower()
        for pattern, name in self._paths:
            if pattern.fullmatch(path) and method in self.document["paths"][name]:
                found: dict[str, Any] = self.document["paths"][name][method]
                return found
        raise AssertionError(f"{method} {path} is not described")

    def check(self, method: str, path: str, status: int, media: str, data: bytes) -> None:
        """Check an answer. Raises AssertionError if it is not as described."""
        answers = self.operation(method, path)["responses"]
        assert str(status) in answers, f"{method} {path}: {status} is not described"
        content = answers[str(status)].get("content", {})
        media = media.partition(";")[0]
        if method == "HEAD" or "*/*" in content:
            return
        assert media in content or not (content or data), f"{method} {path}: {status} {media}"
        schema = content.get(media, {})
        if media == "application/json" and "schema" in schema:
            self.check_value(schema["schema"], json.loads(data))
        elif "x-event-data" in schema:
            for event in events_of(data.decode()):
                self.check_value(schema["x-event-data"], event)

    def check_value(self, schema: dict[str, Any], value: Any) -> None:
        """Check a value. Raises AssertionError if it does not fit."""
        whole = {**schema, "components": self._components}
        wrong = [describe(error) for error in Draft202012Validator(whole).iter_errors(value)]
        assert not wrong, f"{wrong[:3]} in {json.dumps(value)[:2000]}"


def describe(error: Any) -> str:
    """An error of a validator, with those of the branches of a union that fit best."""
    inner = [one.message for one in error.context or () if one.validator not in ("const", "enum")]
    return f"{error.json_path}: {error.message[:300]} {inner[:5]}"


def events_of(text: str) -> Iterator[Any]:
    """The JSON of the events of a stream."""
    for line in text.splitlines():
        if line.startswith("data: ") and line != f"data: {END}":
            yield json.loads(line.removeprefix("data: "))
