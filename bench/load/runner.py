"""Drives a plan of requests: each is sent when it is due, whatever became of the others.

Decides when to send and what to give up. It must not know which API is spoken
(`bench.load.transport.interface`), and computes no results (`bench.load.measure`). It watches its
own event loop, because a late generator measures itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from bench.load.conversation import Conversation, next_due_s
from bench.load.measure import Arrival, RequestResult, measure
from bench.load.options import Options
from bench.load.plan import Planned, filled, text_prompt
from bench.load.prompt_filler import LONG_WORDS, SHORT_WORDS, Fit, filler
from bench.load.record import ForcedLengths, ResponseRecord
from bench.load.report.terminal import Progress
from bench.load.transport.interface import Clock, ServerError, Transport
from bench.load.transport.pool import WebSockets
from bench.load.transport.sse_client import EventStreams

LAG_PROBE_S = 0.02  # between two looks at the event loop's lag


@dataclass(frozen=True, slots=True)
class Entry:
    """A request that was due, and what became of it."""

    planned: Planned
    arrival: Arrival
    record: ResponseRecord


def transport_of(options: Options, clock: Clock) -> Transport:
    """The connections for ``--api``; to be made within a running event loop."""
    if options.api == "responses-ws":
        return WebSockets(
            options.ws_url, api_key=options.api_key, limit=options.connections, clock=clock
        )
    return EventStreams(options.base_url, options.api, api_key=options.api_key, clock=clock)


class LoadRun:
    """Drives one plan. `drive` returns when every request has ended; `results` may be read then.

    Cancelling `drive` interrupts the run: requests in flight are cancelled on the server, those
    that were not yet due leave no result. Nor do the later turns of a conversation in which one
    failed: `turns_not_sent` counts them.
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
        self.cpu_share: float | None = None  # of one core, used by this process during the run
        self.turns_not_sent = 0
        self.entries: list[Entry] = []  # those that were due
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

    async def drive(self, plan: Sequence[Planned], warmups: Sequence[Planned] = ()) -> None:
        """Warm the server up, then send the plan and wait for all answers.

        :raises ServerError: if the server cannot be reached, or no warm-up came to a sound end.
        """
        self._transport = transport_of(self._options, self._clock)
        try:
            await self._transport.open()
            if any(planned.prompt_tokens is not None for planned in (*plan, *warmups)):
                fit = await self._calibrate()
                rngs = (random.Random(f"{self._options.seed}/{part}") for part in ("w", "fill"))
                warmups = filled(warmups, fit, next(rngs))
                plan = filled(plan, fit, next(rngs))
            await self._warm_up(warmups)
            await self._drive(plan)
        finally:
            await self._transport.close()

    def results(self) -> list[RequestResult]:
        """The figures of every request that was due, in the order of the plan."""
        return [
            measure(
                entry.record,
                entry.arrival,
                tau_s=self._options.tpot_s,
                correct=(
                    entry.planned.prompt.judge(entry.record.answer_text)
                    if entry.record.outcome == "completed" and entry.planned.forced is None
                    else None  # forced lengths cut or pad what the model says
                ),
            )
            for entry in sorted(self.entries, key=lambda entry: entry.planned.index)
        ]

    async def _drive(self, plan: Sequence[Planned]) -> None:
        conversations = [
            list(turns) for _, turns in groupby(plan, key=lambda planned: planned.conversation)
        ]
        conversations.sort(key=lambda turns: turns[0].at_s)
        self._start_s, cpu_s = self._clock(), time.process_time()
        probe = asyncio.create_task(self._probe_lag(), name="lag-probe")
        try:
            async with asyncio.TaskGroup() as readers:
                for turns in conversations:
                    due_s = self._start_s + turns[0].at_s
                    await self._until(due_s)
                    readers.create_task(self._converse(turns, due_s))
        finally:
            probe.cancel()
            await asyncio.wait([probe])
            elapsed_s = self._clock() - self._start_s
            self.cpu_share = (time.process_time() - cpu_s) / elapsed_s if elapsed_s > 0 else None

    async def _calibrate(self) -> Fit:
        """Let the server count the tokens of two prompts; see `bench.load.prompt_filler`."""
        counted = []
        forced = ForcedLengths(reasoning_tokens=2, answer_tokens=1)
        for words in (SHORT_WORDS, LONG_WORDS):
            prompt = text_prompt(filler(words, random.Random(words)))
            entry = self._entry(Planned(0, 0.0, prompt, forced), self._clock())
            await self._request(entry, Conversation(self._options, self._model), f"fit-{words}")
            usage = entry.record.final.usage if entry.record.final else None
            if usage is None:
                raise ServerError(
                    f"prompts cannot be filled: {entry.record.failure or 'no usage is reported'}"
                )
            counted.append(usage.input_tokens)
        try:
            return Fit.of(*counted)
        except ValueError as error:
            raise ServerError(f"prompts cannot be filled: the server counted {error}") from error

    async def _warm_up(self, warmups: Sequence[Planned]) -> None:
        if not warmups:
            return
        entries = [self._entry(planned, self._clock()) for planned in warmups]
        if self._progress is not None:
            self._progress.say("warming up")
        async with asyncio.TaskGroup() as readers:
            for number, entry in enumerate(entries):
                conversation = Conversation(self._options, self._model)
                readers.create_task(self._request(entry, conversation, f"warm-up-{number}"))
        if not any(entry.record.sound for entry in entries):
            raise ServerError(f"no warm-up came to a sound end: {entries[0].record.failure}")

    async def _converse(self, turns: Sequence[Planned], due_s: float) -> None:
        """One conversation, from the first question to the last answer."""
        conversation = Conversation(self._options, self._model)
        for number, planned in enumerate(turns):
            entry = self._entry(planned, due_s)
            self.entries.append(entry)
            if self._progress is not None:
                self._progress.began()
            try:
                await self._request(entry, conversation, f"load-{planned.index}")
            finally:
                if self._progress is not None:
                    self._progress.ended(entry.record.outcome)
            rest = turns[number + 1 :]
            if not rest:
                return
            if not entry.record.sound:
                self.turns_not_sent += len(rest)
                if self._progress is not None:
                    self._progress.dropped(len(rest))
                return
            conversation.answered(entry.record)
            due_s = next_due_s(entry.record, rest[0].think_s)
            await self._until(due_s)

    async def _until(self, due_s: float) -> None:
        """Return at that time, and at once if it has passed.

        At once: who yields to the event loop for every request sends one in each of its rounds, and
        falls behind when these are long. (A timer of uvloop may be half a millisecond early.)
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
        """How much later than asked the event loop wakes its tasks."""
        while True:
            due_s = self._clock() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            self.loop_lag_s.append(max(0.0, self._clock() - due_s))
