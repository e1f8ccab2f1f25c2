"""Drives a plan: each request is sent when it is due, whatever happens to the others.

Decides when to send, and when to give up. It must not know the API
(`bench.load.transport.interface`), and computes no results (`bench.load.measure`). It watches its
own event loop, because a late generator measures itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.load.agents.agent import Agent
from bench.load.agents.sized import SizedAgent
from bench.load.conversation import Conversation
from bench.load.measure import Arrival, RequestResult, measure
from bench.load.options import Options
from bench.load.plan import Planned, filled, text_prompt
from bench.load.prompt_filler import LONG_WORDS, SHORT_WORDS, Fit, filler
from bench.load.record import ForcedLengths, ResponseRecord
from bench.load.report.terminal import Progress
from bench.load.script import Script, turns_of
from bench.load.transport.interface import Clock, ServerError, Transport
from bench.load.transport.pool import WebSockets
from bench.load.transport.sse_client import EventStreams

LAG_PROBE_S = 0.02  # between two looks at the event loop's lag


@dataclass(frozen=True, slots=True)
class Entry:
    """A request that was due, and the record of its response."""

    planned: Planned
    arrival: Arrival
    record: ResponseRecord


def transport_of(options: Options, clock: Clock) -> Transport:
    """The transport of ``--api``. Call it within a running event loop."""
    if options.api == "responses-ws":
        return WebSockets(
            options.ws_url, api_key=options.api_key, limit=options.connections, clock=clock
        )
    return EventStreams(options.base_url, options.api, api_key=options.api_key, clock=clock)


class LoadRun:
    """Drives one plan. `drive` returns when every request has ended; then `results` may be read.

    Cancelling `drive` interrupts the run: requests in flight are cancelled on the server, and
    requests that were not yet due leave no result. If a turn of a conversation fails, its later
    turns are not sent; `turns_not_sent` counts them.
    """

    def __init__(
        self,
        options: Options,
        model: str,
        *,
        progress: Progress | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.loop_lag_s: list[float] = []
        self.cpu_share: float | None = None  # share of one core that this process used
        self.turns_not_sent = 0
        self.entries: list[Entry] = []  # requests that were due
        self._options = options
        self._model = model
        self._progress = progress
        self._clock = clock
        self._start_s = clock()
        self._room: contextlib.AbstractAsyncContextManager[None] = (
            asyncio.Semaphore(options.max_concurrency)
            if options.max_concurrency
            else contextlib.nullcontext()
        )
        self._transport: Transport

    async def drive(
        self,
        plan: Sequence[Planned],
        warmups: Sequence[Planned] = (),
        *,
        agents: Sequence[Agent] = (),
        warmup_agents: Sequence[Agent] = (),
    ) -> None:
        """Warm the server up, then send the plan, let the agents work, and wait for all responses.

        :param warmup_agents: only their first turns are sent.
        :raises ServerError: if the server cannot be reached, or every warm-up request failed.
        """
        self._transport = transport_of(self._options, self._clock)
        try:
            await self._transport.open()
            if any(planned.prompt_tokens is not None for planned in (*plan, *warmups)):
                fit = await self._calibrate()
                rngs = (random.Random(f"{self._options.seed}/{part}") for part in ("w", "fill"))
                warmups = filled(warmups, fit, next(rngs))
                plan = filled(plan, fit, next(rngs))
            sized = [a for a in (*agents, *warmup_agents) if isinstance(a, SizedAgent)]
            if sized:
                of_result = await self._calibrate()
                of_prompt = await self._calibrate(sized[0].tools)
                for agent in sized:
                    agent.fit(of_prompt, of_result)
            await self._warm_up([*turns_of(warmups), *warmup_agents])
            await self._drive([*turns_of(plan), *agents])
        finally:
            await self._transport.close()

    def results(self) -> list[RequestResult]:
        """The results of all requests that were due, in the order of the plan."""
        return [
            measure(
                entry.record,
                entry.arrival,
                tau_s=self._options.tpot_s,
                correct=(
                    entry.planned.prompt.judge(entry.record.answer_text)
                    if entry.record.outcome == "completed"
                    and entry.planned.forced is None  # forced lengths cut or pad the answer
                    and not entry.record.calls
                    else None
                ),
            )
            for entry in sorted(self.entries, key=lambda entry: entry.planned.index)
        ]

    async def _drive(self, scripts: list[Script]) -> None:
        scripts.sort(key=lambda script: script.at_s)
        self._start_s, cpu_s = self._clock(), time.process_time()
        probe = asyncio.create_task(self._probe_lag(), name="lag-probe")
        try:
            async with asyncio.TaskGroup() as readers:
                for script in scripts:
                    due_s = self._start_s + script.at_s
                    await self._until(due_s)
                    readers.create_task(self._converse(script, due_s))
        finally:
            probe.cancel()
            await asyncio.wait([probe])
            elapsed_s = self._clock() - self._start_s
            self.cpu_share = (time.process_time() - cpu_s) / elapsed_s if elapsed_s > 0 else None

    async def _calibrate(self, tools: Sequence[Mapping[str, Any]] = ()) -> Fit:
        """Make the server count the tokens of two prompts; see `bench.load.prompt_filler`."""
        counts = []
        forced = ForcedLengths(reasoning_tokens=2, answer_tokens=1)
        for words in (SHORT_WORDS, LONG_WORDS):
            prompt = text_prompt(filler(words, random.Random(0)))  # one begins as the other
            entry = self._entry(Planned(0, 0.0, prompt, forced), self._clock())
            conversation = Conversation(self._options, self._model, tools)
            await self._request(entry, conversation, f"fit-{words}-{len(tools)}")
            usage = entry.record.final.usage if entry.record.final else None
            if usage is None:
                raise ServerError(
                    f"prompts cannot be filled: {entry.record.failure or 'no usage is reported'}"
                )
            counts.append(usage.input_tokens)
        try:
            return Fit.of(*counts)
        except ValueError as error:
            raise ServerError(f"prompts cannot be filled: the server counted {error}") from error

    async def _warm_up(self, warmups: Sequence[Script]) -> None:
        if not warmups:
            return
        entries = [self._entry(script.first(), self._clock()) for script in warmups]
        if self._progress is not None:
            self._progress.say("warming up")
        async with asyncio.TaskGroup() as readers:
            for number, (script, entry) in enumerate(zip(warmups, entries, strict=True)):
                conversation = Conversation(self._options, self._model, script.tools)
                readers.create_task(self._request(entry, conversation, f"warm-up-{number}"))
        if not any(entry.record.sound for entry in entries):
            raise ServerError(f"every warm-up request failed: {entries[0].record.failure}")

    async def _converse(self, script: Script, due_s: float) -> None:
        """Hold one conversation, from the first turn to the last."""
        conversation = Conversation(self._options, self._model, script.tools)
        planned = script.first()
        while True:
            entry = self._entry(planned, due_s)
            self.entries.append(entry)
            if self._progress is not None:
                self._progress.began()
            following = None
            try:
                await self._request(entry, conversation, f"load-{planned.index}")
                following = script.after(entry.record)
            finally:
                if self._progress is not None:
                    self._progress.ended(entry.record.outcome)
            if following is None:
                if not entry.record.sound:
                    self.turns_not_sent += max(0, script.left)
                if self._progress is not None:
                    self._progress.dropped(script.left)
                return
            conversation.answered(entry.record)
            planned, due_s = following.planned, following.due_s
            await self._until(due_s)

    async def _until(self, due_s: float) -> None:
        """Return at that time, or at once if it has passed.

        A late request must not yield to the event loop. Otherwise only one request would be sent
        in each round of the loop, and long rounds would delay them further. (A timer of uvloop may
        be half a millisecond early.)
        """
        if (wait_s := due_s - self._clock()) > 0:
            await asyncio.sleep(wait_s)

    def _entry(self, planned: Planned, due_s: float) -> Entry:
        arrival = Arrival(
            index=planned.index,
            conversation=planned.conversation,
            turn=planned.turn,
            client=planned.client,
            start_s=self._start_s,
            due_s=due_s,
            turned_s=self._clock(),
            family=planned.prompt.family,
        )
        return Entry(planned, arrival, ResponseRecord(planned.forced))

    async def _request(self, entry: Entry, conversation: Conversation, name: str) -> None:
        record = entry.record
        try:
            async with self._room:
                body = conversation.body(entry.planned)
                await self._transport.exchange(name, body, record, self._options.timeout_s)
        except ServerError as error:
            record.abandon(str(error), self._clock())
        except asyncio.CancelledError:
            record.interrupt(self._clock())
            raise

    async def _probe_lag(self) -> None:
        """Measure how much too late the event loop wakes its tasks."""
        while True:
            due_s = self._clock() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            self.loop_lag_s.append(max(0.0, self._clock() - due_s))
