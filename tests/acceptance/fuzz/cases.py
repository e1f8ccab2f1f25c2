"""``python -m tests.acceptance.fuzz.cases URL CASES SEED``: schemathesis over /openapi.json.

Runs with schemathesis on the path. Sends right and wrong requests of every operation. Each answer
must be described: its status, its content, and every event of a stream. A status from 500 on is a
failure. Prints each kind of failure once, and the counts.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode

from tests.gateway.support.described import Described

_ROUND = 150  # cases of one operation before the next one has its turn
_SLOW_S = 0.01  # per token; a stream with a slower pace is sent whole
_TIMEOUT_S = 60.0
_MOST_SHOWN = 40
# These would take the workers away from the other cases. Tests of their own call them.
_DRAINS = ("/drain", "/undrain")

# Fields of bodies that must fit to others, or to what is there.
_TOGETHER = (
    "conversation",
    "forced_lengths",
    "min_tokens",
    "previous_response_id",
    "response_format",
    "structured_outputs",
    "text",
    "thinking",
    "tool_choice",
    "tools",
    "top_logprobs",
)


class Cases:
    """What was sent, and what was wrong."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.sent = 0
        self.statuses: Counter[int] = Counter()
        self.failures: dict[str, str] = {}  # by kind: the first one
        self._session = requests.Session()
        self._described = Described(requests.get(f"{url}/openapi.json", timeout=10).json())
        self._chance = random.Random(seed)
        self._ids: dict[str, list[str]] = {"response_id": [], "conversation_id": []}

    def run(self, case: Any) -> None:
        """Send a case, and look at its answer."""
        self._lead(case)
        method, template = case.method, case.operation.path
        try:
            # A header or a path that no client library sends is no request.
            response = case.call(
                base_url=self.url, session=self._session, timeout=_TIMEOUT_S, allow_redirects=False
            )
        except (requests.exceptions.InvalidHeader, UnicodeError, ValueError):
            return
        except requests.exceptions.RequestException as error:
            self.sent += 1
            self._failed(f"{method} {template}: {type(error).__name__}", f"{error}", case)
            return
        self.sent += 1
        self.statuses[response.status_code] += 1
        self._check(case, method, template, response)

    def _check(self, case: Any, method: str, template: str, response: Any) -> None:
        status, data = response.status_code, response.content
        media = (response.headers.get("content-type") or [""])[0]
        at = f"{method} {template}: {status}"
        if status >= 500 and template != "/ready":
            self._failed(at, data.decode(errors="replace"), case)
            return
        if status == 405 or b"no_such_route" in data:
            return  # another method, or a path of another route, that the case made
        try:
            # The operation's own path: a name in the one that was sent may hold anything.
            self._described.check(method, template, status, media, data)
        except (AssertionError, ValueError) as error:
            self._failed(f"{at}: {str(error)[:160]}", str(error), case)
            return
        if status >= 400 and method != "HEAD":
            self._check_error(at, json.loads(data)["error"], case)
        elif status == 200 and template in ("/v1/responses", "/v1/conversations"):
            self._note(data)

    def _check_error(self, at: str, error: dict[str, Any], case: Any) -> None:
        """An error says what is wrong, and where."""
        if error["code"] in ("invalid_value", "unknown_parameter", "unsupported_value"):
            whole = ("The body must be", "The body is not", "POST a body here", "Expected")
            if error["param"] is None and not error["message"].startswith(whole):
                self._failed(f"{at}: names no field", json.dumps(error), case)

    def _note(self, data: bytes) -> None:
        """Remember the ids of what was made."""
        if not data.startswith(b"{"):
            return
        made = str(json.loads(data)["id"])
        kept = self._ids["response_id" if made.startswith("resp") else "conversation_id"]
        kept.append(made)
        del kept[:-50]

    def _lead(self, case: Any) -> None:
        """Lead some cases to what is there, and make none wait for slow readers."""
        for name, value in (case.path_parameters or {}).items():
            known = self._ids.get(name)
            if known and self._chance.random() < 0.5:
                case.path_parameters[name] = self._chance.choice(known)
            elif value in (".", ".."):
                case.path_parameters[name] = "x"
        body = case.body
        headers = case.headers or {}
        slow = any(name.lower() == "x-slo-tpot-ms" for name in headers)
        if isinstance(body, dict):
            pacing = body.get("pacing")
            slow |= isinstance(pacing, dict) and bool(pacing)
            if slow and body.get("stream") is True:
                body["stream"] = False
            if self._chance.random() < 0.5:
                _simplify(body)
            if self._chance.random() < 0.7:
                body.pop("model", None)  # any other one is refused first
            if self._chance.random() < 0.7:
                body.pop("user", None)  # of whom there may be 64 unfinished responses
        if case.operation.path == "/v1/responses/{response_id}" and case.query:
            case.query.pop("stream", None)

    def _failed(self, kind: str, text: str, case: Any) -> None:
        if kind not in self.failures:
            self.failures[kind] = f"{text[:1500]}\n    {case.as_curl_command()[:1500]}"


def _simplify(body: dict[str, Any]) -> None:
    """Leave out what must fit to something else, and is usually refused for it."""
    if "input" in body:
        body["input"] = "What is 348 + 275?"
    if "messages" in body:
        body["messages"] = [{"role": "user", "content": "What is 348 + 275?"}]
    for name in _TOGETHER:
        body.pop(name, None)


def rounds(schema: Any, seed: int) -> Iterator[Any]:
    """Tests without an end: one operation after another, right and wrong."""
    number = 0
    while True:
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation is None or operation.path.endswith(_DRAINS):
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                number += 1
                yield operation, mode, seed + number


def main() -> int:
    """Send the cases; 1 if any answer was wrong."""
    url, wanted, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    cases, began_s, errors = Cases(url, seed), time.monotonic(), Counter[str]()
    for operation, mode, number in rounds(schema, seed):
        if cases.sent >= wanted:
            break
        strategy = operation.as_strategy(generation_mode=mode)

        @hypothesis.seed(number)
        @hypothesis.settings(
            max_examples=_ROUND,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=strategy)
        def some(case: Any) -> None:
            cases.run(case)

        try:
            some()
        except hypothesis.errors.Unsatisfiable:
            errors[f"nothing to send: {operation.label}, {mode.value}"] += 1
    for kind, text in list(cases.failures.items())[:_MOST_SHOWN]:
        print(f"FAIL {kind}\n    {text}", flush=True)
    if errors:
        print(dict(errors))
    seconds = time.monotonic() - began_s
    print(f"statuses: {dict(sorted(cases.statuses.items()))}")
    print(f"{cases.sent} cases in {seconds:.0f} s, {len(cases.failures)} kinds of failures")
    return 1 if cases.failures else 0


if __name__ == "__main__":
    sys.exit(main())
