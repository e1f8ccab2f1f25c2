"""Two gateways behind the real nginx and the real HAProxy, with the files of the guide."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.app import make_runner, make_site
from tests.acceptance.doc_blocks import fences
from tests.gateway.support.real_workers import free_port
from tests.gateway.support.scripted_service import scene
from tests.gateway.support.scripted_worker import ScriptedWorker
from tests.support.programs import HAPROXY, NGINX, needs
from tests.support.server import ROOT
from workers.messages import Finish

GUIDE = ROOT / "docs" / "howto" / "reverse-proxy.md"
# What Debian's main file of nginx has around a file in conf.d, for a process without privileges.
NGINX_MAIN = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{text}
}}
"""


@dataclass(frozen=True)
class Asked:
    """A request that has come to one of the gateways."""

    gateway: int
    worker: ScriptedWorker
    request_id: str

    async def tokens(self, position: int, *texts: str, finish: Finish | None = None) -> None:
        """Send tokens of its answer."""
        await self.worker.tokens(self.request_id, position, *texts, finish=finish)


@dataclass(frozen=True)
class Front:
    """A proxy in front of two gateways."""

    url: str
    workers: list[ScriptedWorker]  # one for each gateway
    runners: list[web.AppRunner]

    async def asked(self) -> Asked:
        """The next request, wherever the proxy sends it."""
        waiting = [asyncio.create_task(worker.next_submit()) for worker in self.workers]
        done, late = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in late:
            task.cancel()
        task = done.pop()
        gateway, submit = waiting.index(task), task.result()
        await self.workers[gateway].accept(submit)
        return Asked(gateway, self.workers[gateway], submit.request_id)


def config_of(language: str, ports: dict[int, int]) -> str:
    """The file in the guide, with other ports."""
    (text,) = (f.text for f in fences(GUIDE.read_text("utf-8")) if f.language == language)
    for shown, used in ports.items():
        assert f"{shown}" in text
        text = text.replace(f"{shown}", f"{used}")
    return text


def command_of(name: str, folder: Path, ports: dict[int, int]) -> list[str]:
    """How to run a proxy in the foreground."""
    text, file = config_of(name, ports), folder / f"{name}.conf"
    if name == "haproxy":
        file.write_text(text)
        return [str(shutil.which("haproxy")), "-db", "-f", str(file)]
    file.write_text(NGINX_MAIN.format(folder=folder, text=text))
    return [str(shutil.which("nginx")), "-e", f"{folder}/early.log", "-c", str(file)]


@asynccontextmanager
async def front_of(name: str, folder: Path) -> AsyncIterator[Front]:
    ports = {shown: free_port() for shown in (8000, 8081, 8082)}
    async with AsyncExitStack() as stack:
        workers, runners = [], []
        for port in (8081, 8082):
            (folder / f"{port}").mkdir()
            stage = await stack.enter_async_context(scene(folder / f"{port}", "a"))
            runner = make_runner(stage.service)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await make_site(runner, "127.0.0.1", ports[port]).start()
            workers.append(stage.workers["a"])
            runners.append(runner)
        command = command_of(name, folder, ports)
        process = await asyncio.create_subprocess_exec(*command)
        stack.push_async_callback(process.wait)
        stack.callback(process.terminate)
        front = Front(f"http://127.0.0.1:{ports[8000]}", workers, runners)
        async with aiohttp.ClientSession() as session:
            await _until_ready(session, front.url)
        yield front


async def _until_ready(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"{url}/ready") as answer:
                if answer.status == 200:
                    return
        await asyncio.sleep(0.05)


@pytest.fixture(
    params=[
        pytest.param("nginx", marks=needs(NGINX)),
        pytest.param("haproxy", marks=needs(HAPROXY)),
    ]
)
async def front(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Front]:
    async with front_of(request.param, tmp_path) as front:
        yield front


STOP = Finish(reason="stop")
REQUEST = {"input": "Hi", "pacing": False}


async def test_tokens_pass_one_by_one_and_a_client_stays_with_its_gateway(front: Front) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{front.url}/v1/responses") as socket:
            await socket.send_json({"type": "response.create", **REQUEST})
            asked = await front.asked()
            for position in range(3):  # each one arrives before the next is made
                await asked.tokens(position, f"w{position} ")
                event = await _event(socket, "response.output_text.delta")
                assert event["delta"] == f"w{position} "
            await asked.tokens(3, finish=STOP)
            response = (await _event(socket, "response.completed"))["response"]
        for _ in range(4):
            async with session.get(f"{front.url}/v1/responses/{response['id']}") as answer:
                assert answer.status == 200
        body = REQUEST | {"stream": True}
        asking = asyncio.create_task(session.post(f"{front.url}/v1/responses", json=body))
        again = await front.asked()
        assert again.gateway == asked.gateway
        async with await asking as stream:
            for position in range(3):
                await again.tokens(position, f"w{position} ")
                event = await _line(stream, "response.output_text.delta")
                assert event["delta"] == f"w{position} "
            await again.tokens(3, finish=STOP)
            await _line(stream, "response.completed")


async def test_strangers_see_no_administration_and_another_gateway_takes_over(
    front: Front,
) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        for path in ("/admin", "/admin/instances", "/admin/policy"):
            async with session.get(front.url + path) as answer:
                assert (answer.status, "worker" in await answer.text()) == (404, False)
        first = await _served(session, front)
        await front.runners[first].cleanup()
        await _until_ready(session, front.url)
        assert await _served(session, front) == 1 - first


async def _served(session: aiohttp.ClientSession, front: Front) -> int:
    """Ask, and return which gateway answered."""
    asking = asyncio.create_task(session.post(f"{front.url}/v1/responses", json=REQUEST))
    asked = await front.asked()
    await asked.tokens(0, "x", finish=STOP)
    async with await asking as answer:
        assert (await answer.json())["status"] == "completed"
    return asked.gateway


async def _event(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = await socket.receive_json()
        if event["type"] == kind:
            return event


async def _line(answer: aiohttp.ClientResponse, kind: str) -> dict[str, Any]:
    async for line in answer.content:
        if line.startswith(b"data: {"):
            event: dict[str, Any] = json.loads(line[6:])
            if event["type"] == kind:
                return event
    raise AssertionError(f"no {kind}")
