"""A gateway's service over workers that follow a script, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, LimitsConfig, PacingConfig, WorkersConfig
from gateway.response.session import Session
from gateway.routing.worker_link import LinkError, WorkerLink, open_link
from gateway.schemas.bodies import ResponsesBody, parse_body
from gateway.schemas.generation import Generation, default_targets
from gateway.service import ResponseService
from gateway.store import Place, ResponseStore
from tests.gateway.support.scripted_worker import ScriptedWorker, scripted_worker

TARGETS = default_targets(PacingConfig(), {})


class Scene:
    """A service and its workers, which come and go."""

    def __init__(self, folder: Path, service: ResponseService, stack: AsyncExitStack) -> None:
        self.service = service
        self.workers: dict[str, ScriptedWorker] = {}
        self._folder = folder
        self._stack = stack

    async def join(self, name: str, **options: Any) -> ScriptedWorker:
        """Add a worker. A lost one comes back as a new one."""
        worker, address = await self._stack.enter_async_context(
            scripted_worker(self._folder, name, **options)
        )
        self.workers[name] = worker
        link = await open_link(address, None, "test")
        joined = asyncio.create_task(self._joined(name, link))
        task = asyncio.create_task(_serve(self.service, link))
        self._stack.push_async_callback(link.close)
        self._stack.push_async_callback(_stopped, task)
        await joined
        return worker

    async def lose(self, name: str) -> None:
        """Kill a worker, and return when the gateway has noticed."""
        lost = self.service.cluster.instances[name]
        await self.workers[name].hang_up()
        await until(lambda: self.service.cluster.instances.get(name) is not lost)

    async def met(self, reader: str, source: str) -> None:
        """Return when one instance can read the KV of the other."""
        instances = self.service.cluster.instances
        await until(lambda: instances[reader].can_read(instances[source]))

    async def _joined(self, name: str, link: WorkerLink) -> None:
        instances = self.service.cluster.instances
        await until(lambda: name in instances and instances[name].link is link)


@asynccontextmanager
async def scene(
    folder: Path, *names: str, movable: bool = False, place: Place | None = None, **tables: Any
) -> AsyncIterator[Scene]:
    """A service over scripted workers, with their links served in the background.

    :param place: of the store, if it is not a file in ``folder``.
    """
    async with AsyncExitStack() as stack:
        store = ResponseStore(place or folder / "store.sqlite3")
        await store.open()
        stack.push_async_callback(store.close)
        # Scripted workers send no heartbeats, and machines are slow: no worker may count as silent.
        # They make no steps, so they have no load.
        patient = {
            "workers": WorkersConfig(heartbeat_timeout_s=1000.0),
            "limits": LimitsConfig(load=0.0),
        }
        service = ResponseService(Config(**(patient | tables)), store)
        built = Scene(folder, service, stack)
        for name in names:
            await built.join(name, movable=movable)
        if movable:
            for reader in names:
                for source in names:
                    if reader != source:
                        await built.met(reader, source)
        yield built
        service.cluster.close()
        await service.close()


@asynccontextmanager
async def serving(
    folder: Path, *names: str, **tables: Any
) -> AsyncIterator[tuple[ResponseService, dict[str, ScriptedWorker]]]:
    """The service of a scene, and its workers."""
    async with scene(folder, *names, **tables) as built:
        yield built.service, built.workers


async def generation(service: ResponseService, **fields: Any) -> Generation:
    body = parse_body({"input": "hi", "pacing": False, **fields}, ResponsesBody)
    return await service.prepare(body, TARGETS, fields.get("owner", ""))


async def start(
    service: ResponseService, worker: ScriptedWorker, *, reasoning: bool = False, **fields: Any
) -> tuple[Session, str]:
    """A response that the worker has accepted."""
    starting = asyncio.create_task(service.start(await generation(service, **fields), ""))
    submit = await worker.next_submit()
    await worker.accept(submit, reasoning=reasoning)
    return await starting, submit.request_id


async def ended(session: Session) -> None:
    await asyncio.wait_for(session.log.ended(), 10)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until a condition holds."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


async def _serve(service: ResponseService, link: WorkerLink) -> None:
    with pytest.raises(LinkError):
        await service.cluster.serve(link)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
