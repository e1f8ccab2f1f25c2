"""A client for the ``/admin`` API of a running gateway."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any


class AdminError(Exception):
    """The gateway refused the request, or cannot be reached."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name instances and their gateway."""
    parser.add_argument("instances", nargs="+", metavar="ID", help="instances, such as worker-0")
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8080", help="address of the gateway"
    )
    parser.add_argument("--api-key", default=None, help="key for the gateway [PASCAL_API_KEY]")


class Gateway:
    """The running gateway that the flags of `add_arguments` name."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._base_url = args.base_url.rstrip("/")
        self._api_key = args.api_key or os.environ.get("PASCAL_API_KEY")

    def call(self, method: str, name: str, action: str = "", body: Any = None) -> dict[str, Any]:
        """Send one request and return the JSON of its response.

        :raises AdminError: with the message of the gateway, if it sent one.
        """
        path = f"/admin/instances/{urllib.parse.quote(name, safe='')}"
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        try:
            request = urllib.request.Request(
                f"{self._base_url}{path}{'/' if action else ''}{action}",
                method=method,
                data=json.dumps(body or {}).encode() if method == "POST" else None,
                headers=headers,
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                document: dict[str, Any] = json.loads(answer.read())
                return document
        except urllib.error.HTTPError as error:
            raise AdminError(_message_of(error)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise AdminError(f"no gateway answers at {self._base_url}: {error}") from error


def _message_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {error.code}"
