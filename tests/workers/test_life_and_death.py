"""How worker processes end."""

from __future__ import annotations

from pathlib import Path

import pytest
from vllm.v1.core.sched.output import SchedulerOutput

from tests.workers.harness import Gateway, WorkerProcess, until
from workers.scheduler import PhaseScheduler

pytestmark = [pytest.mark.engine, pytest.mark.slow]


class FailingScheduler(PhaseScheduler):
    """Breaks when it has scheduled a hundred tokens for a request."""

    def schedule(self, *args: bool, **kwargs: bool) -> SchedulerOutput:
        if any(request.num_output_tokens >= 100 for request in self.running):
            raise RuntimeError("scheduled to fail")
        return super().schedule(*args, **kwargs)


async def test_failing_engine_tells_every_request_and_ends_the_process(tmp_path: Path) -> None:
    scheduler = f"{FailingScheduler.__module__}.{FailingScheduler.__qualname__}"
    worker = WorkerProcess(tmp_path, engine_args={"scheduler_cls": scheduler})
    try:
        await worker.started()
        async with Gateway(worker.path) as gateway:
            await gateway.force("a", 200, 10)
            await gateway.started("a", 10)
            await gateway.force("b", 200, 10)
            for name in ("a", "b"):
                output = await gateway.finished(name)
                assert output.finish is not None
                assert output.finish.reason == "error"
                assert output.finish.message == "RuntimeError: scheduled to fail"
            await until(worker.ended, 60)
        assert worker.process.returncode == 1
        assert not worker.path.exists()
        assert '"event": "engine_failed"' in worker.log.read_text()
        assert "Request a" not in worker.log.read_text()  # no prompt in the log
    finally:
        worker.kill()


async def test_worker_dies_with_its_launcher_even_while_it_loads(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path)
    worker.close_parent_pipe()
    assert worker.process.wait(120) != 0


async def test_wrong_settings_end_the_process_with_a_reason(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path, listen="tcp://127.0.0.1:1", token=None)
    assert worker.process.wait(120) == 2
    assert "token is required" in worker.log.read_text()
    worker.kill()
