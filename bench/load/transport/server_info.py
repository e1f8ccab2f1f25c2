"""Questions to the server before a run: whether it is ready, and which models it serves.

These calls block.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from bench.load.transport.interface import ServerError

OWNER: Final = "pascal-serve"  # the owner of models on our gateway


def get_json(base_url: str, path: str, api_key: str | None, timeout_s: float = 10.0) -> Any:
    """The JSON body of a GET request.

    :raises ServerError: if the server does not answer with status 200 and JSON.
    """
    request = urllib.request.Request(base_url + path)
    if api_key:
        request.add_header("Authorization", f"Bearer {api_key}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=timeout_s) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise ServerError(f"{request.full_url}: HTTP {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise ServerError(f"{request.full_url}: {getattr(error, 'reason', error)}") from error


def wait_ready(base_url: str, api_key: str | None, timeout_s: float) -> None:
    """Poll ``/ready`` until the server is ready.

    :raises ServerError: after ``timeout_s``, with the last reason.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            get_json(base_url, "/ready", api_key)
            return
        except ServerError as error:
            if time.monotonic() >= deadline_s:
                raise ServerError(f"not ready: {error}") from error
        time.sleep(0.25)


@dataclass(frozen=True, slots=True)
class Served:
    """A model that a server lists."""

    model: str
    owner: str | None

    @property
    def ours(self) -> bool:
        """Whether the server is pascal-serve, which accepts our extensions."""
        return self.owner == OWNER


def served_model(base_url: str, api_key: str | None, model: str | None = None) -> Served:
    """The model of that name; without a name, the first one that the server lists.

    :raises ServerError: if the server does not list it.
    """
    listed = get_json(base_url, "/v1/models", api_key)
    try:
        entries = {str(entry["id"]): entry.get("owned_by") for entry in listed["data"]}
        name = next(iter(entries)) if model is None else model
    except (LookupError, TypeError, AttributeError, StopIteration) as error:
        raise ServerError(f"{base_url}/v1/models lists no model") from error
    if name not in entries:
        known = ", ".join(entries) or "none"
        raise ServerError(f"{base_url}/v1/models does not list {name!r}; it lists {known}")
    owner = entries[name]
    return Served(name, owner if isinstance(owner, str) else None)
