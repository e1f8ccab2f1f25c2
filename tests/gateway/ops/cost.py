"""What a viewer of the operations page costs the gateway.

    python -m tests.gateway.ops.cost --instances 64 --requests 2000 --seconds 20

A real service with scripted workers holds so many requests: a third thinks, a third answers, the
rest is only being read. Every second each answer grows, and 40 requests end and others come. The
CPU time of this process with one viewer, less that without one, is the cost. The viewer is another
process. With ``--asking`` it follows a request, and asks for the worst behind a figure.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import structlog

from gateway.app import make_runner, make_site
from gateway.config import PacingConfig
from gateway.ops.socket import HUB
from gateway.response.session import Session
from gateway.schemas.bodies import ResponsesBody, parse_body
from gateway.schemas.generation import default_targets, from_responses
from gateway.service import ResponseService
from tests.gateway.support.scripted_service import serving
from tests.gateway.support.scripted_worker import IDLE
from workers.messages import Heartbeat, TokenRun, Turn

CHANGING = 40  # requests that end, and others that come, in a second
VIEWER = """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as client, client.ws_connect(sys.argv[1]) as socket:
        size = 0
        for ask in sys.argv[2:]:
            await socket.send_str(ask)
        async for message in socket:
            size += len(message.data)
            print(size, flush=True)
asyncio.run(main())
"""


class Load:
    """Requests that no worker knows, in the hands of the service."""

    def __init__(self, service: ResponseService, requests: int) -> None:
        self._service = service
        self._names = sorted(service.cluster.instances)
        self._made = 0
        body = parse_body({"input": "hi", "stream": True}, ResponsesBody)
        self._generation = from_responses(body, (), default_targets(PacingConfig(), {}))
        self.sessions: deque[Session] = deque(self._new() for _ in range(requests))

    def _new(self) -> Session:
        number, now = self._made, time.monotonic()
        self._made += 1
        session = Session(
            f"resp_{number}",
            self._generation,
            model="m",
            owner="",
            created_at=0.0,
            now=now,
            log_bytes=2**20,
        )
        session.accepted(self._names[number % len(self._names)], 20, True)
        kind, text = number % 3, ("word ",) * 8
        ids = tuple(range(8))
        session.tokens(TokenRun(request_id="", position=0, token_ids=ids, texts=text), now)
        if kind:
            turn = (Turn(at=8, phase="answering"),)
            session.tokens(
                TokenRun(request_id="", position=8, token_ids=(), texts=(), turns=turn), now
            )
            self.grow(session, 200 if kind == 2 else 20)
        self._service.tally.running[session.response_id] = session  # type: ignore[index]
        return session

    def grow(self, session: Session, tokens: int) -> None:
        """More of an answer."""
        position = session.output_tokens
        ids = tuple(range(position, position + tokens))
        run = TokenRun(request_id="", position=position, token_ids=ids, texts=("word ",) * tokens)
        session.tokens(run, time.monotonic())

    async def run(self) -> None:
        """Let things happen, a tenth of a second's at a time."""
        turn = 0
        while True:
            await asyncio.sleep(0.1)
            turn += 1
            for session in list(self.sessions)[turn % 10 :: 10]:
                if session.state.value == "answering":
                    self.grow(session, 10)
            for _ in range(CHANGING // 10):
                gone = self.sessions.popleft()
                self._service.tally.running.pop(gone.response_id)  # type: ignore[attr-defined]
                self._service.tally.ended(gone)
                self.sessions.append(self._new())


async def cpu(seconds: float) -> float:
    """Share of a core that this process takes in the next seconds."""
    begun, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    return (time.process_time() - begun) / (time.monotonic() - wall)


async def measure(instances: int, requests: int, seconds: float, asks: tuple[str, ...]) -> None:
    """Print the cost."""
    names = [f"worker-{number}" for number in range(instances)]
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), *names) as (service, workers):
            for name in names:
                await workers[name].say(Heartbeat(since_step_s=0.0, stats=IDLE))
            runner = make_runner(service)
            await runner.setup()
            await make_site(runner, "127.0.0.1", 0).start()
            address = f"http://127.0.0.1:{runner.addresses[0][1]}/admin/ops"
            load = Load(service, requests)
            running = asyncio.create_task(load.run())
            hub = runner.app[HUB]
            before = await cpu(seconds)
            viewer = await asyncio.create_subprocess_exec(
                sys.executable, "-c", VIEWER, address, *asks, stdout=asyncio.subprocess.PIPE
            )
            assert viewer.stdout is not None
            await viewer.stdout.readline()
            await asyncio.sleep(2)
            hub.longest_s = 0.0
            after = await cpu(seconds)
            viewer.kill()
            lines = (await viewer.stdout.read()).split()
            await viewer.wait()
            running.cancel()
            for name in list(service.tally.running):
                service.tally.running.pop(name)  # type: ignore[attr-defined]
            await runner.cleanup()
    print(
        f"{instances} instances, {requests} requests: "
        f"without a viewer {before:.1%} of a core, with one {after:.1%}, "
        f"the viewer costs {after - before:.1%}; "
        f"longest work in one go {hub.longest_s * 1000:.1f} ms; "
        f"{int(lines[-1]) / (seconds + 2) / 1000:.0f} kB/s"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--asking", action="store_true", help="a viewer who asks for all it may")
    chosen = parser.parse_args()
    newest = f'{{"type": "follow", "number": {chosen.requests}}}'
    asks = (newest, '{"type": "rank", "figure": "ttft"}') if chosen.asking else ()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(measure(chosen.instances, chosen.requests, chosen.seconds, asks))


if __name__ == "__main__":
    main()
