"""The load whose level changes while it runs."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, get_args

import pytest

from bench.load import flags, live
from bench.load.live import LEVELS, OFF, LiveLoad
from bench.load.options import options_from
from bench.load.record import ResponseRecord
from bench.load.transport.interface import ServerError
from gateway.api.admin import DemoLevel
from pascal import demo


class Waiting:
    """A transport whose requests wait until they are let go."""

    def __init__(self) -> None:
        self.bodies: list[Mapping[str, Any]] = []
        self.running = 0
        self.go = asyncio.Event()

    async def open(self) -> None:
        pass

    async def exchange(
        self, name: str, body: Mapping[str, Any], record: ResponseRecord, timeout_s: float
    ) -> None:
        self.bodies.append(body)
        self.running += 1
        try:
            await self.go.wait()
        finally:
            self.running -= 1
        raise ServerError("the server has gone")

    async def close(self) -> None:
        pass


@asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[LiveLoad, Waiting, asyncio.Queue[str | None]]]:
    transport = Waiting()
    monkeypatch.setattr(live, "transport_of", lambda *_: transport)
    monkeypatch.setattr(live, "_AT_ONCE_GAP_S", 0.0)
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    load = LiveLoad(options_from(parser.parse_args([])), "model", seed=1)
    levels: asyncio.Queue[str | None] = asyncio.Queue()
    task = asyncio.create_task(load.run(levels))
    try:
        yield load, transport, levels
    finally:
        levels.put_nowait(None)
        await asyncio.wait_for(task, 10)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


def test_the_levels_are_those_of_the_api_and_of_the_command() -> None:
    assert {OFF, *LEVELS} == set(get_args(DemoLevel))
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    for level in get_args(DemoLevel):
        assert parser.parse_args([f"--load={level}"]).load == level


async def test_no_more_clients_than_the_level_says_and_off_cancels_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    level = replace(LEVELS["busy"], rate=1000.0, most=20, at_once=15)
    monkeypatch.setitem(LEVELS, "busy", level)
    async with running(monkeypatch) as (load, transport, levels):
        levels.put_nowait("busy")
        await until(lambda: transport.running == 20)
        await asyncio.sleep(0.1)
        assert (transport.running, load.begun) == (20, 20)
        tools = [body for body in transport.bodies if "tools" in body]
        assert 0 < len(tools) < 20
        assert all(body["forced_lengths"].get("call_tokens") for body in tools)
        levels.put_nowait(OFF)
        await until(lambda: transport.running == 0)
        assert (load.completed, load.failed, load.level) == (0, 0, OFF)


async def test_another_level_leaves_what_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as (load, transport, levels):
        levels.put_nowait("calm")
        await until(lambda: transport.running >= LEVELS["calm"].at_once)
        levels.put_nowait("pressure")
        await until(lambda: load.level == "pressure" and transport.running > 100)
        assert transport.running == len(transport.bodies) >= load.begun - 1  # one just begins


async def test_a_client_that_fails_is_counted_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as (load, transport, levels):
        transport.go.set()
        levels.put_nowait("calm")
        await until(lambda: load.failed >= 12)
        assert '"error": "the server has gone"' in load.told()


def test_the_program_ends_with_its_input_though_no_server_answers() -> None:
    command = [sys.executable, "-m", "bench.load.live", "--base-url", "http://127.0.0.1:9"]
    ended = subprocess.run(
        command, input=b"calm\nstorm\n", capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 0
    assert ended.stderr == b"unknown level 'storm'; known: off, calm, busy, pressure\n"
