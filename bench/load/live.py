"""A load without end whose level is changed while it runs: that of `pascal demo`.

``python -m bench.load.live --base-url URL`` reads the name of a level from each line of its input:
one of `LEVELS`, or ``off``, which cancels what runs. It prints what it has done, as a JSON object
on one line, every other second. It ends with its input, so that it cannot outlive who started it.

Two kinds of clients: readers ask one question, and agents work on a task with tools. Some readers
want a long answer after few thoughts, others the reverse. Requests travel as those of `pascal load`
and are checked like them. At most `Level.most` clients are there at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.load import flags
from bench.load.agents.sized import SizedAgent
from bench.load.conversation import Conversation
from bench.load.options import Options, options_from
from bench.load.plan import Planned, text_prompt
from bench.load.prompt_filler import Fit, filler
from bench.load.record import ForcedLengths, ResponseRecord
from bench.load.runner import transport_of
from bench.load.script import Script, Turns
from bench.load.transport.interface import ServerError, Transport
from bench.load.transport.server_info import get_json, served_model
from bench.workloads.agents import AgentTask
from bench.workloads.arrivals import times
from bench.workloads.lengths import Lengths, Round
from workers import loop

OFF: Final = "off"
_SAYS_S = 2.0  # between two lines of the output
_READY_S = 600.0  # longest wait for the server
_READY_GAP_S = 0.5
_FIT = Fit(base=12.0, per_word=1.1)  # the tokenizer of emulated instances; about right is enough
_AT_ONCE_GAP_S = 0.03
_CONNECTIONS = 8
_LONGEST_LINE = 64


@dataclass(frozen=True, slots=True)
class Level:
    """How many clients come."""

    rate: float  # a second, on average
    agents: float  # share of them
    burstiness: float  # shape of the gaps: 1 is Poisson, less comes in bursts
    most: int  # at a time; one that comes when there are as many does not stay
    at_once: int = 0  # that come first, when the level begins


# For eight emulated instances with the memory that `pascal demo` gives them.
LEVELS: Final[Mapping[str, Level]] = {
    "calm": Level(rate=1.2, agents=0.25, burstiness=1.0, most=60, at_once=12),
    "busy": Level(rate=3.0, agents=0.3, burstiness=0.15, most=130, at_once=30),
    "pressure": Level(rate=8.0, agents=0.15, burstiness=0.5, most=220, at_once=180),
}


class LiveLoad:
    """Clients of one server. `run` returns when its levels end."""

    def __init__(self, options: Options, model: str, *, seed: int) -> None:
        self.level = OFF
        self.begun = self.completed = self.failed = 0  # clients
        self.error: str | None = None  # of the last one that failed
        self._options, self._model = options, model
        self._rng = random.Random(seed)
        self._numbers = itertools.count()
        self._clients: set[asyncio.Task[None]] = set()
        self._transport: Transport
        self._tasks: asyncio.TaskGroup

    async def run(self, levels: asyncio.Queue[str | None]) -> None:
        """Follow the levels until None; then cancel what runs.

        :raises ServerError: if the server cannot be reached at first.
        """
        self._transport = transport_of(self._options, time.monotonic)
        try:
            await self._transport.open()
            async with asyncio.TaskGroup() as self._tasks:
                await self._follow(levels)
        except* ServerError as group:
            raise group.exceptions[0] from group
        finally:
            await self._transport.close()

    async def _follow(self, levels: asyncio.Queue[str | None]) -> None:
        arriving: asyncio.Task[None] | None = None
        while (name := await levels.get()) is not None:
            if arriving is not None:
                arriving.cancel()
                await asyncio.wait([arriving])
            self.level, arriving = name, None
            if name == OFF:
                await self._cancel()
            else:
                arriving = self._tasks.create_task(self._arrive(LEVELS[name]))
        if arriving is not None:
            arriving.cancel()
        await self._cancel()

    def told(self) -> str:
        """What it has done, as one line."""
        return json.dumps(
            {
                "level": self.level,
                "running": len(self._clients),
                "begun": self.begun,
                "completed": self.completed,
                "failed": self.failed,
                "error": self.error,
            }
        )

    async def _arrive(self, level: Level) -> None:
        for _ in range(level.at_once):
            self._begin(level)
            await asyncio.sleep(_AT_ONCE_GAP_S)
        start_s = time.monotonic()
        for at_s in times(level.rate, level.burstiness, self._rng):
            if (wait_s := start_s + at_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            self._begin(level)

    def _begin(self, level: Level) -> None:
        if len(self._clients) >= level.most:
            return
        number = next(self._numbers)
        script: Script
        if self._rng.random() < level.agents:
            agent = SizedAgent(number, _task(self._rng), itertools.count(), f"{number}")
            agent.fit(_FIT, _FIT)
            script = agent
        else:
            script = Turns([_question(number, self._rng)])
        self.begun += 1
        client = self._tasks.create_task(self._converse(script, number))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _converse(self, script: Script, number: int) -> None:
        conversation = Conversation(self._options, self._model, script.tools)
        planned = script.first()
        while True:
            record = ResponseRecord(planned.forced)
            try:
                await self._transport.exchange(
                    f"{number}-{planned.turn}",
                    conversation.body(planned),
                    record,
                    self._options.timeout_s,
                )
            except ServerError as error:
                record.abandon(str(error), time.monotonic())
            following = script.after(record)
            if following is None:
                break
            conversation.answered(record)
            planned = following.planned
            await asyncio.sleep(max(0.0, following.due_s - time.monotonic()))
        if record.outcome == "completed":
            self.completed += 1
        else:
            self.failed += 1
            self.error = record.failure or record.outcome

    async def _cancel(self) -> None:
        """Cancel all clients, and their requests on the server."""
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        if clients:
            await asyncio.wait(clients)


def _question(number: int, rng: random.Random) -> Planned:
    """A request with few thoughts and a long answer, or the reverse."""
    if rng.random() < 0.5:
        reasoning, answer = rng.randint(30, 120), rng.randint(200, 400)
    else:
        reasoning = max(300, min(1800, round(rng.lognormvariate(6.7, 0.5))))
        answer = rng.randint(60, 150)
    prompt = text_prompt(filler(rng.randint(30, 150), rng))
    return Planned(
        number, 0.0, prompt, ForcedLengths(reasoning_tokens=reasoning, answer_tokens=answer)
    )


def _task(rng: random.Random) -> AgentTask:
    """A short task: two to four calls of tools, then an answer."""
    first, later = (150, 400), (30, 120)
    rounds = [
        Round(
            Lengths(
                prompt=rng.randint(*(later if turn else first)),
                reasoning=rng.randint(20, 150),
                answer=rng.choice((0, rng.randint(10, 40))),
                call=rng.randint(30, 120),
            ),
            tool_s=rng.uniform(0.5, 4.0),
        )
        for turn in range(rng.randint(2, 4))
    ]
    last = Lengths(
        prompt=rng.randint(*later), reasoning=rng.randint(20, 150), answer=rng.randint(80, 200)
    )
    return AgentTask(0.0, (*rounds, Round(last, 0.0)))


async def _follow_input(levels: asyncio.Queue[str | None]) -> None:
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    running = asyncio.get_running_loop()
    await running.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if (name := line.decode().strip()) == OFF or name in LEVELS:
            levels.put_nowait(name)
        else:
            print(f"unknown level {name!r}; known: {OFF}, {', '.join(LEVELS)}", file=sys.stderr)
    levels.put_nowait(None)


async def _say(load: LiveLoad) -> None:
    while True:
        print(load.told(), flush=True)
        await asyncio.sleep(_SAYS_S)


async def _model_of(options: Options) -> str:
    """The model of the server, once that is ready; :raises ServerError: if it does not get so."""
    deadline_s = time.monotonic() + _READY_S
    while True:
        try:
            await asyncio.to_thread(get_json, options.base_url, "/ready", options.api_key)
            break
        except ServerError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(_READY_GAP_S)
    served = await asyncio.to_thread(served_model, options.base_url, options.api_key)
    return served.model


async def _run(options: Options, seed: int) -> None:
    levels: asyncio.Queue[str | None] = asyncio.Queue()
    following = asyncio.create_task(_follow_input(levels))
    asking = asyncio.create_task(_model_of(options))
    others = [following, asking]
    try:
        await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():  # else its input has ended
            load = LiveLoad(options, asking.result(), seed=seed)
            others.append(asyncio.create_task(_say(load)))
            await load.run(levels)
    finally:
        for task in others:
            task.cancel()


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m bench.load.live``; :return: 1 if the server cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load.live", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--base-url", required=True, metavar="URL")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    args = parser.parse_args(argv)
    load = argparse.ArgumentParser()
    flags.add_arguments(load)
    common = ["--base-url", args.base_url, "--timeout=10m", f"--connections={_CONNECTIONS}"]
    options = options_from(load.parse_args(common))
    try:
        loop.run(_run(options, args.seed))
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        sys.exit(main())
