"""Two gateways that share a worker, each a process of its own."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.support.real_workers import TOKEN, ask, free_port, pascal_worker
from tests.support.server import Server

LONG = {
    "input": "Hi",
    "background": True,
    "forced_lengths": {"reasoning_tokens": 20_000, "answer_tokens": 1},
}


@pytest.mark.engine
@pytest.mark.slow
async def test_two_gateways_share_a_worker_and_outlive_each_other(tmp_path: Path) -> None:
    port, token = free_port(), tmp_path / "token"
    token.write_text(TOKEN + "\n")
    extra = (
        *("--set=launcher.kind=static", f"--token-file={token}", "--emulate=h100-qwen32b"),
        f"--set=launcher.addresses=ws://127.0.0.1:{port}",
    )
    name = f"w-{port}"

    def kv_used(server: Server) -> float:
        return server.metric(f'pascal_kv_blocks_used{{instance="{name}",phase="reasoning"}}')

    def gateway(folder: str) -> Server:
        (tmp_path / folder).mkdir(exist_ok=True)
        return stack.enter_context(Server(tmp_path / folder, workers=1, extra=extra))

    with ExitStack() as stack:
        stack.enter_context(pascal_worker(tmp_path, port, token))
        first, second = gateway("1"), gateway("2")
        for server in (first, second):
            ready = _ready_with(server, [name])
            await asyncio.to_thread(server.wait_for, ready)
        answers = await asyncio.gather(*(asyncio.to_thread(ask, s) for s in (first, second) * 4))
        assert [status for status, _ in answers] == [200] * 8
        status, begun = first.request("/v1/responses", LONG)
        assert status == 200
        # The second gateway sees what the first one has there.
        await asyncio.to_thread(second.wait_for, lambda: kv_used(second) > 0)
        assert second.request(f"/v1/responses/{begun['id']}")[0] == 404
        first.process.kill()
        await asyncio.to_thread(second.wait_for, lambda: kv_used(second) == 0)
        assert ask(second)[0] == 200
        again = gateway("1")
        await asyncio.to_thread(again.wait_for, _ready_with(again, [name]))
        assert ask(again)[0] == ask(second)[0] == 200
        stored = answers[0][1]
        assert again.request(f"/v1/responses/{stored['id']}")[1]["output"] == stored["output"]


def _ready_with(server: Server, names: list[str]) -> Any:
    return lambda: server.request("/ready")[1].get("instances") == names
