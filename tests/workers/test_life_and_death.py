"""How worker processes end."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from vllm.v1.core.sched.output import SchedulerOutput

from tests.workers.support.harness import ROOT, Gateway, WorkerProcess, silent_server, until
from workers.kv.migration import available
from workers.messages import Endpoint, ForcedLengths, MeetPeer
from workers.requests.detokenize import IncrementalDecoder
from workers.requests.stream import RequestStream
from workers.scheduler.plugin import PhaseScheduler

pytestmark = [pytest.mark.engine, pytest.mark.slow]


class FailingScheduler(PhaseScheduler):
    """Breaks when it has scheduled a hundred tokens for a request."""

    def schedule(self, *args: bool, **kwargs: bool) -> SchedulerOutput:
        if any(request.num_output_tokens >= 100 for request in self.running):
            raise RuntimeError("scheduled to fail")
        return super().schedule(*args, **kwargs)


class ClumsyScheduler(PhaseScheduler):
    """Hangs at a request called "hang", and gives the request "bad" a broken tokenizer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        whole = RequestStream.__init__

        def broken(ids: Sequence[int]) -> str:
            raise KeyError(f"Request bad: {ids}")

        def spoiled(self: RequestStream, request_id: str, *rest: Any) -> None:
            whole(self, request_id, *rest)
            if request_id == "bad":
                self._text._decoder = IncrementalDecoder(broken)  # type: ignore[attr-defined]

        RequestStream.__init__ = spoiled  # type: ignore[method-assign, assignment]

    def schedule(self, *args: bool, **kwargs: bool) -> SchedulerOutput:
        if "hang" in self._own_ids:
            threading.Event().wait()
        return super().schedule(*args, **kwargs)


def plugin(kind: type) -> dict[str, str]:
    return {"scheduler_cls": f"{kind.__module__}.{kind.__qualname__}"}


@pytest.fixture(scope="module")
def too_small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker that starts and fails while the others are tested."""
    worker = WorkerProcess(tmp_path_factory.mktemp("small"), kv_blocks=3)
    yield worker
    worker.kill()


async def test_failing_engine_tells_every_request_and_ends_the_process(
    tmp_path: Path, too_small: WorkerProcess
) -> None:
    worker = WorkerProcess(tmp_path, engine_args=plugin(FailingScheduler), kv_migration=True)
    try:
        await worker.started()
        async with Gateway(worker.path) as gateway, contextlib.AsyncExitStack() as silent:
            await gateway.force("a", 200, 10)
            await gateway.started("a", 10)
            await gateway.force("b", 200, 10)
            if available():  # it fails in the middle of a meeting
                for number in range(4):  # one after the other, a second each
                    server = await silent.enter_async_context(await silent_server())
                    host, port = server.sockets[0].getsockname()
                    peer = Endpoint(engine_id=str(number), host=host, port=port)
                    await gateway.send(MeetPeer(peer=peer))
            for name in ("a", "b"):
                output = await gateway.finished(name)
                assert output.finish is not None
                assert output.finish.reason == "error"
                assert output.finish.message == "RuntimeError: scheduled to fail"
            await until(worker.ended, 60)
        assert worker.process.returncode == 1
        assert not worker.path.exists()
        assert '"event":"engine_failed"' in worker.log.read_text()
        assert "Request a" not in worker.log.read_text()  # no prompt in the log
    finally:
        worker.kill()


def broken_parts(folder: Path) -> dict[str, str]:
    """An environment in which all optional packages are installed but broken."""
    (folder / "nixl.py").write_text("raise ImportError('for another CUDA')")
    (folder / "uvloop.py").write_text("__version__ = '0.17'")  # broken, vLLM would not do with it
    return {"PYTHONPATH": f"{folder}:{ROOT}", "CXX": "/bin/false"}


async def test_worker_serves_with_broken_parts_and_a_broken_request_and_stops_while_it_hangs(
    tmp_path: Path,
) -> None:
    worker = WorkerProcess(
        tmp_path,
        environment=broken_parts(tmp_path),
        engine_args=plugin(ClumsyScheduler),
        kv_migration=True,
        kv_offload_gib=1e6,
        enforce_eager=False,
    )
    try:
        await worker.started()
        parts = [line["event"] for line in worker.lines() if "unavailable" in line["event"]]
        assert sorted(parts) == [
            f"{part}_unavailable" for part in ("compile", "kv_migration", "kv_offload", "uvloop")
        ]
        async with Gateway(worker.path) as gateway:
            assert gateway.welcome.endpoint is None
            for name in ("alone", "a"):  # one after the other, with the same question
                lengths = ForcedLengths(reasoning_tokens=60, answer_tokens=20)
                await gateway.submit(name, "Request.", forced_lengths=lengths)
                if name == "a":
                    await gateway.force("bad", 60, 20)
                    bad = await gateway.finished("bad")
                    assert bad.finish is not None
                    assert bad.finish.reason == "error"
                    message = "the output could not be turned into text: KeyError"
                    assert bad.finish.message == message
                await gateway.finished(name)
            assert gateway.outputs["a"].token_ids == gateway.outputs["alone"].token_ids
            assert gateway.outputs["a"].texts == gateway.outputs["alone"].texts
            while (await gateway.idle_stats()).kv_blocks_used:
                pass
            await gateway.force("hang", 10, 10)
            await gateway.wait(lambda: gateway.heartbeats[-1].since_step_s > 0.1)
            assert worker.terminate() == 0
        assert not worker.path.exists()
        events = [line["event"] for line in worker.lines()]
        assert events.count("request_output_failed") == 1
        assert events[-2:] == ["engine_step_hung", "worker_stopped"]
        assert "Request bad" not in worker.log.read_text()  # no prompt and no output in the log
    finally:
        worker.kill()


def reason(worker: WorkerProcess) -> str:
    """The reason of a failed start, from the last line of the log."""
    assert worker.process.wait(120) == 1
    worker.kill()
    last = json.loads(worker.log.read_text().splitlines()[-1])
    assert (last["event"], last["instance_id"]) == ("worker_failed", "worker-0")
    assert "Traceback" in last["exception"]
    text: str = last["reason"]
    return text


def test_a_start_that_fails_ends_with_its_cause(tmp_path: Path, too_small: WorkerProcess) -> None:
    folder = tmp_path / "none"
    assert reason(WorkerProcess(tmp_path, model=str(folder))) == f"model: {folder} is not a folder"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = WorkerProcess(tmp_path, listen=f"tcp://127.0.0.1:{port}")
        expected = f"listen: cannot listen on 127.0.0.1:{port}: Address already in use"
        assert reason(worker) == expected
    assert reason(too_small).startswith("To serve at least one request with the model's max seq")


async def test_worker_dies_with_its_launcher_even_while_it_loads(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path)
    worker.close_parent_pipe()
    assert worker.process.wait(120) != 0


async def test_wrong_settings_end_the_process_with_a_reason(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path, listen="tcp://127.0.0.1:1", token=None)
    assert worker.process.wait(120) == 2
    assert "token is required" in worker.log.read_text()
    worker.kill()
