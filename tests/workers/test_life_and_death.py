"""How worker processes end, and the engine that runs in processes of its own."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from vllm.v1.core.sched.output import SchedulerOutput

from tests.workers.harness import Gateway, WorkerProcess, until
from workers.kv_migration import available
from workers.messages import ForcedLengths, Pace, SetPace
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


def processes_of_group(group: int) -> list[int]:
    """Ids of the live processes of a process group."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
            except FileNotFoundError:
                continue  # it has just ended
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(directory.name))
    return found


async def test_engine_in_processes_of_its_own(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path, engine="async", kv_offload_gib=0.0625, kv_migration=True)
    group = worker.process.pid
    try:
        await worker.started()
        assert len(processes_of_group(group)) > 1
        async with Gateway(worker.path) as gateway:
            assert gateway.welcome.kv_blocks_total == 48
            # Exact lengths, phases by step, as in this process.
            await gateway.force("a", 40, 20)
            await gateway.send(SetPace(request_id="a", pace=Pace(tau_s=1.0)))
            output = await gateway.finished("a")
            assert (len(output.token_ids), output.boundary) == (60, 39)
            phases = [
                (frame.stats.reasoning.running, frame.stats.answering.running)
                for frame in gateway.frames
                if any(run.request_id == "a" and run.finish is None for run in frame.runs)
            ]
            assert set(phases) == {(1, 0), (0, 1)}
            assert phases == sorted(phases, reverse=True)
            # A real answer.
            await gateway.submit("b")
            output = await gateway.finished("b")
            assert output.reasoning
            assert output.answer
            # A cancellation frees the memory although no further request comes.
            await gateway.force("c", 600, 10)
            await gateway.started("c", 40)
            await gateway.cancel("c")
            output = await gateway.finished("c")
            assert output.finish is not None
            assert output.finish.reason == "cancelled"
            while (await gateway.idle_stats()).kv_blocks_used:
                pass
            # A request leaves, and comes back.
            assert (gateway.welcome.endpoint is not None) == available()
            lengths = ForcedLengths(reasoning_tokens=40, answer_tokens=20)
            await gateway.submit("e", forced_lengths=lengths)
            whole = (await gateway.finished("e")).token_ids
            await gateway.submit("f", forced_lengths=lengths)
            await gateway.started("f", 12)
            first = await gateway.hand_over("f")
            assert first.finish is not None
            assert first.finish.reason == "handed_over"
            assert (first.finish.ticket is not None) == available()
            known = tuple(first.token_ids)
            ticket = first.finish.ticket
            await gateway.submit("g", forced_lengths=lengths, known_token_ids=known, ticket=ticket)
            assert [*known, *(await gateway.finished("g")).token_ids] == whole
            # It comes with a ticket that is of no use, which its first tokens say.
            if ticket is not None:
                late = msgspec.structs.replace(ticket, engine_id="another one", valid_s=0.0)
                await gateway.submit(
                    "h", forced_lengths=lengths, known_token_ids=known, ticket=late
                )
                assert [*known, *(await gateway.finished("h")).token_ids] == whole
                assert gateway.outputs["h"].kv_tokens == 0
            while (await gateway.idle_stats()).kv_blocks_used:
                pass
            # What vLLM itself refuses.
            await gateway.submit("d", known_token_ids=(99999,))
            await gateway.wait(lambda: "d" in gateway.rejected)
        worker.close_parent_pipe()

        async def gone() -> bool:
            worker.process.poll()
            return not processes_of_group(group)

        await until(gone, 60)
        assert not worker.path.exists()
    finally:
        worker.kill()
