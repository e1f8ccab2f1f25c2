"""An emulated worker that serves an agent: calls of its own tools, forced calls, JSON."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.workers.emulation.test_executor import PROFILE
from tests.workers.support.harness import MODEL, Gateway, Output, WorkerProcess
from workers.messages import ForcedLengths, Sampling, Structure, ToolChoice

pytestmark = [pytest.mark.engine, pytest.mark.slow]

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}
# Around the model's own template, so that this file need not know it.
TOOLS = (
    "{% if tools %}<|im_start|>system\nTools, called within <tool_call></tool_call>:\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("agent") / "model"
    shutil.copytree(MODEL, folder)
    _with_tools(folder)
    profile = folder.parent / "fast.toml"
    profile.write_text(PROFILE.replace("tokens = 1552", "tokens = 20000"))
    running = WorkerProcess(
        tmp_path_factory.mktemp("emulated"),
        model=str(folder),
        emulate=str(profile),
        kv_blocks=None,
        block_size=None,
        max_model_len=8192,
    )
    try:
        asyncio.run(running.started())
        yield running
        assert running.terminate() == 0, running.log.read_text()
    finally:
        running.kill()


def _with_tools(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    if "tools" not in config["chat_template"]:
        config["chat_template"] = TOOLS + config["chat_template"]
    file.write_text(json.dumps(config))


@pytest.fixture
async def gateway(worker: WorkerProcess) -> AsyncIterator[Gateway]:
    async with Gateway(worker.path) as connected:
        yield connected


def calls_of(gateway: Gateway, request_id: str) -> list[tuple[str, str]]:
    """Names and arguments of the calls in a request's runs."""
    calls: list[list[str]] = []
    for frame in gateway.frames:
        for run in frame.runs:
            if run.request_id != request_id:
                continue
            for piece in run.pieces or ():
                if piece.kind == "call":
                    if piece.name is not None:
                        calls.append([piece.name, ""])
                    calls[-1][1] += piece.text
            if run.pieces is None and calls:
                calls[-1][1] += "".join(run.texts)
    return [(name, arguments) for name, arguments in calls]


def phases_of(gateway: Gateway, request_id: str) -> list[str]:
    runs = [run for frame in gateway.frames for run in frame.runs if run.request_id == request_id]
    return [turn.phase for run in runs for turn in run.turns]


async def agent(gateway: Gateway, request_id: str, **fields: Any) -> Output:
    await gateway.submit(request_id, sampling=Sampling(), tools=(WEATHER,), **fields)
    return await gateway.finished(request_id)


async def test_a_turn_of_exact_lengths_thinks_calls_and_ends(gateway: Gateway) -> None:
    lengths = ForcedLengths(reasoning_tokens=40, answer_tokens=0, call_tokens=300)
    output = await agent(gateway, "a", forced_lengths=lengths)
    assert len(output.token_ids) == 340
    assert output.finish is not None
    assert output.finish.reason == "stop"
    ((name, arguments),) = calls_of(gateway, "a")
    assert name == "get_weather"
    jsonschema.validate(json.loads(arguments), WEATHER["function"]["parameters"])
    assert "calling" in phases_of(gateway, "a")


async def test_another_engine_goes_on_in_the_middle_of_a_forced_call(gateway: Gateway) -> None:
    lengths = ForcedLengths(reasoning_tokens=20, answer_tokens=5, call_tokens=150)
    whole = (await agent(gateway, "whole", forced_lengths=lengths)).token_ids
    known = tuple(whole[:100])
    rest = await agent(gateway, "rest", forced_lengths=lengths, known_token_ids=known)
    assert [*known, *rest.token_ids] == whole


async def test_a_call_that_is_too_short_is_refused_by_its_field(gateway: Gateway) -> None:
    lengths = ForcedLengths(reasoning_tokens=20, answer_tokens=0, call_tokens=3)
    await gateway.submit("short", tools=(WEATHER,), forced_lengths=lengths)
    await gateway.wait(lambda: "short" in gateway.rejected)
    assert gateway.rejected["short"].param == "forced_lengths.call_tokens"


async def test_an_answer_fits_its_schema(gateway: Gateway) -> None:
    schema = WEATHER["function"]["parameters"]
    await gateway.submit(
        "json",
        sampling=Sampling(thinking_budget=30),
        structure=Structure(kind="json", value=schema),
    )
    output = await gateway.finished("json")
    jsonschema.validate(json.loads(output.answer), schema)


async def test_a_request_that_must_call_calls(gateway: Gateway) -> None:
    output = await agent(
        gateway,
        "must",
        tool_choice=ToolChoice(mode="required", parallel=False),
    )
    assert output.finish is not None
    ((name, arguments),) = calls_of(gateway, "must")
    assert name == "get_weather"
    jsonschema.validate(json.loads(arguments), WEATHER["function"]["parameters"])
