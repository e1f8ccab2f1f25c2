"""The tokenizer of the embedded model, and one worker process that the tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from tokenizers import Tokenizer

from tests.workers.support.harness import MODEL, Gateway, WorkerProcess


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """In-process engine with so little KV memory that a few requests preempt each other.

    Preempted KV goes to host memory and comes back. If NIXL is installed, KV can move as well.
    """
    directory = tmp_path_factory.mktemp("worker")
    running = WorkerProcess(directory, kv_offload_gib=0.0625, kv_resume="reload", kv_migration=True)
    try:
        asyncio.run(running.started())
        yield running
        assert running.terminate() == 0, running.log.read_text()
        assert not running.path.exists()
    finally:
        running.kill()


@pytest.fixture
async def gateway(worker: WorkerProcess) -> AsyncIterator[Gateway]:
    async with Gateway(worker.path) as connected:
        yield connected
