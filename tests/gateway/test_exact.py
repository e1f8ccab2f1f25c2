"""Chat completions are the same wherever they are computed: a table of features and disturbances.

All features run at once on one real worker, and are preempted there, moved away from it, or lose
it. Each cell of the table compares a feature with its undisturbed completion.
`tests/workers/kv/test_exact.py` has more kinds of requests, at the worker link.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest

from tests.chaos.questions import CALCULATOR
from tests.support.server import Server
from tests.workers.support.schemas import RECORD

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.long]

# Little memory and few slots: requests that run at the same time preempt each other.
SETTINGS = {
    "model.dtype": "float32",
    "model.max_model_len": 768,
    "workers.policy": "rr",
    "workers.quantum_tokens": 16,
    "workers.max_num_seqs": 4,
    "workers.block_size": 32,
    "workers.kv_blocks": 41,
    "placement.boundary": "off",
    "limits.load": 0,
}
# The model is less sure of it than of a sum: what is drawn at random differs.
QUESTION = "Add 71 and 18, then multiply by 6, then subtract 34."
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": RECORD}}
CLOSED = {**CALCULATOR["parameters"], "additionalProperties": False}
STRICT = {**CALCULATOR, "parameters": CLOSED, "strict": True}
LONG = {"min_tokens": 80, "max_completion_tokens": 100}
WARM = {"temperature": 1.5, "top_p": 0.98, "top_k": 60, "seed": 11}
PENALTIES = {"presence_penalty": 1.5, "frequency_penalty": 1.0, "repetition_penalty": 1.6}
LOGPROBS = {"logprobs": True, "top_logprobs": 3, "enable_thinking": False}


def tool(function: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": function}


FEATURES: dict[str, dict[str, Any]] = {
    "plain": LONG,
    "tools": {"tools": [tool(CALCULATOR)]},
    "a call by its schema": {
        "tools": [tool(STRICT)],
        "tool_choice": "required",
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_completion_tokens": 400,
    },
    "structured output": {"response_format": FORM, "thinking_token_budget": 30},
    "seed": LONG | WARM,
    "penalties": LONG | PENALTIES,
    "logprobs": LONG | LOGPROBS,
    "n": LONG | WARM | {"n": 3},
    "all at once": WARM
    | LOGPROBS
    | {"n": 2, "response_format": FORM, "repetition_penalty": 1.1, "max_completion_tokens": 400},
}
# By disturbance: the count of it in the log line about the end of a response.
DISTURBANCES = {"preempted": "preemptions", "moved": "migrations", "killed": "failovers"}
BEGUN = 3  # deltas of each choice before a disturbance
TOLERANCE = 1e-4  # of log probabilities, where batches differ


@dataclass
class Choice:
    """A choice as its client puts it together."""

    reasoning: str = ""
    content: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    deltas: int = 0

    def add(self, chunk: dict[str, Any]) -> None:
        delta = chunk["delta"]
        self.finish = chunk["finish_reason"] or self.finish
        self.reasoning += delta.get("reasoning") or ""
        self.content += delta.get("content") or ""
        for part in delta.get("tool_calls") or ():
            if part["index"] == len(self.calls):
                self.calls.append(dict(part["function"]))
            else:
                self.calls[part["index"]]["arguments"] += part["function"]["arguments"]
        self.logprobs += (chunk["logprobs"] or {}).get("content") or ()
        self.deltas += bool(set(delta) - {"role"})


@dataclass
class Batch:
    """All features at once."""

    choices: dict[str, list[Choice]]
    ends: dict[str, list[dict[str, Any]]]  # log lines about their ends, in any order


class Client:
    """Asks for completions, and disturbs them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._choices: dict[str, list[Choice]]
        self._ids: dict[str, str]  # of responses: the feature
        self._begun: asyncio.Event  # all choices have some deltas

    async def undisturbed(self) -> Batch:
        """Each feature alone."""

        async def run(http: aiohttp.ClientSession) -> None:
            for name in FEATURES:
                await self._ask(http, name)

        return await self._batch(run)

    async def disturbed(self, disturbance: str) -> Batch:
        """All features on the first worker, and then what happens there."""

        async def run(http: aiohttp.ClientSession) -> None:
            await self._admin(http, "worker-1", "drain")
            async with asyncio.TaskGroup() as tasks:
                for name in FEATURES:
                    tasks.create_task(self._ask(http, name))
                await self._begun.wait()
                await self._admin(http, "worker-1", "undrain")
                if disturbance == "moved":
                    await self._admin(http, "worker-0", "drain")
                elif disturbance == "killed":
                    os.kill(self._server.worker_pids()[0], signal.SIGKILL)
            if disturbance == "moved":
                await self._admin(http, "worker-0", "undrain")

        return await self._batch(run)

    async def _batch(self, run: Callable[[aiohttp.ClientSession], Awaitable[None]]) -> Batch:
        before = len(self._server.logged("response_ended"))
        self._ids, self._begun = {}, asyncio.Event()
        self._choices = {
            name: [Choice() for _ in range(body.get("n", 1))] for name, body in FEATURES.items()
        }
        async with aiohttp.ClientSession() as http:
            await run(http)
        total = sum(map(len, self._choices.values()))

        def lines() -> list[dict[str, Any]]:
            return self._server.logged("response_ended")[before:]

        await asyncio.to_thread(self._server.wait_for, lambda: len(lines()) >= total)
        ends: dict[str, list[dict[str, Any]]] = {name: [] for name in FEATURES}
        for line in lines():
            # Only the first choice shows its id. The others begin right after it.
            name = self._ids.get(line["request_id"])
            for other in FEATURES if name is None else [name]:
                ends[other].append(line)
        return Batch(self._choices, ends)

    async def _ask(self, http: aiohttp.ClientSession, name: str) -> None:
        body = {
            "messages": [{"role": "user", "content": QUESTION}],
            "temperature": 0,
            "stream": True,
            "pacing": False,
        } | FEATURES[name]
        done = False
        async with http.post(self._server.url + "/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                if line.strip() == b"data: [DONE]":
                    done = True
                    continue
                chunk = json.loads(line.removeprefix(b"data: "))
                assert "error" not in chunk, chunk
                self._ids["resp_" + chunk["id"].removeprefix("chatcmpl-")] = name
                for choice in chunk["choices"]:
                    self._choices[name][choice["index"]].add(choice)
                if all(c.deltas >= BEGUN for each in self._choices.values() for c in each):
                    self._begun.set()
        assert done

    async def _admin(self, http: aiohttp.ClientSession, worker: str, what: str) -> None:
        url = f"{self._server.url}/admin/instances/{worker}/{what}"
        async with http.post(url) as answer:
            assert answer.status in (200, 202), await answer.text()


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Batch]]:
    """The undisturbed completions, and those of each disturbance."""

    async def all_of(client: Client) -> dict[str, Batch]:
        found = {"undisturbed": await client.undisturbed()}
        for name in DISTURBANCES:
            found[name] = await client.disturbed(name)
        return found

    settings = tuple(f"--set={name}={value}" for name, value in SETTINGS.items())
    folder: Path = tmp_path_factory.mktemp("exact")
    with Server(folder, workers=2, extra=settings) as server:
        yield asyncio.run(all_of(Client(server)))


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_a_completion_is_that_of_the_undisturbed_request(
    batches: dict[str, Batch], feature: str, disturbance: str
) -> None:
    batch = batches[disturbance]
    counts = [line[DISTURBANCES[disturbance]] for line in batch.ends[feature]]
    assert len(counts) >= len(batch.choices[feature])
    assert all(counts), f"not each was {disturbance}: {counts}"
    for got, wanted in zip(
        batch.choices[feature], batches["undisturbed"].choices[feature], strict=True
    ):
        assert got.reasoning == wanted.reasoning
        assert got.content == wanted.content
        assert got.calls == wanted.calls
        assert got.finish == wanted.finish
        same_logprobs(got.logprobs, wanted.logprobs)


def same_logprobs(got: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """The same tokens, with about the same values."""
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert one["bytes"] == other["bytes"]
        assert one["logprob"] == pytest.approx(other["logprob"], abs=TOLERANCE)
        assert [top["logprob"] for top in one["top_logprobs"]] == pytest.approx(
            [top["logprob"] for top in other["top_logprobs"]], abs=TOLERANCE
        )


def test_each_feature_has_an_effect(batches: dict[str, Batch]) -> None:
    """Else the comparisons above would notice nothing."""
    batch = batches["undisturbed"]
    for lines in batch.ends.values():
        for line in lines:
            assert not any(line[count] for count in DISTURBANCES.values()), line
    choices = batch.choices
    (tools,), (call,) = choices["tools"], choices["a call by its schema"]
    assert (tools.finish, [one["name"] for one in tools.calls]) == ("tool_calls", ["calculator"])
    (made,) = call.calls
    jsonschema.validate(json.loads(made["arguments"]), CLOSED)
    for one in (*choices["structured output"], *choices["all at once"]):
        jsonschema.validate(json.loads(one.content), RECORD)
    (with_logprobs,) = choices["logprobs"]
    assert len(with_logprobs.logprobs) > 70
    assert all(len(one["top_logprobs"]) == 3 for one in with_logprobs.logprobs)
    for name in ("n", "all at once"):
        assert len({one.reasoning + one.content for one in choices[name]}) == FEATURES[name]["n"]
    texts = {name: each[0].reasoning + each[0].content for name, each in choices.items()}
    assert texts["n"] == texts["seed"]  # the first choice has the seed of the request
    del texts["n"]
    assert len(set(texts.values())) == len(texts)
