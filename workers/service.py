"""What the worker does with the gateway's messages: the life of every request in this process.

    1. `submit`: the id must be new; the conversation is rendered in a thread.
    2. The request is checked against the model's context and given to the engine.
    3. The engine accepts it: `Accepted` goes out.
    4. Each engine step becomes one `Step`: texts, boundaries, finishes.
    5. A finish ends it: by the engine, a stop string, a `Cancel`, a `HandOver`, or the failure of
       the engine.

Knows no socket and no vLLM: messages leave through an `Outbox`, tokens come from an `Engine`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from workers.chat import ChatRenderer
from workers.detokenize import Detokenizer
from workers.engine import Engine, EngineRequest, EngineStep
from workers.errors import RequestRejected
from workers.messages import (
    Accepted,
    Endpoint,
    Finish,
    FinishReason,
    Heartbeat,
    Pace,
    PeerMet,
    Rejected,
    Submit,
)
from workers.outbox import Outbox
from workers.phase import Phase
from workers.plan import check_values, plan
from workers.stream import RequestStream

_log = structlog.get_logger()

_HIGH_WATER = 8192  # tokens waiting for the link at which the engine pauses
_LOW_WATER = 2048  # and at which it goes on
NO_KV_MOVES = "the KV of this engine cannot move"


class _Stage(enum.Enum):
    PREPARING = "preparing"  # its prompt is being rendered
    QUEUEING = "queueing"  # given to the engine, which has not answered
    ACTIVE = "active"  # accepted


@dataclass(slots=True)
class _Entry:
    """A request that is not finished."""

    stage: _Stage
    pace: Pace
    stream: RequestStream | None = None  # once prepared
    accepted: Accepted | None = None  # once prepared
    ended: FinishReason | None = None  # asked for while it was being prepared


class Service:
    """All requests of the one connected gateway; listens to the engine."""

    def __init__(
        self,
        engine: Engine,
        renderer: ChatRenderer,
        tasks: asyncio.TaskGroup,
        on_failure: Callable[[str], None],
    ) -> None:
        """Idle until `connect`.

        :param tasks: owns the preparation of requests.
        :param on_failure: called once if the engine fails, after every request was told.
        """
        self._engine = engine
        self._renderer = renderer
        self._tasks = tasks
        self._on_failure = on_failure
        # One thread: renders in order of arrival, and the engine keeps its share of the core.
        self._render_thread = ThreadPoolExecutor(1, thread_name_prefix="render")
        self._entries: dict[str, _Entry] = {}
        self._outbox: Outbox | None = None
        self._wake: Callable[[], None] = lambda: None
        self._paused = False  # the engine, until the link has caught up

    # ---- the link

    def connect(self, outbox: Outbox, wake: Callable[[], None]) -> None:
        """Send everything to ``outbox`` from now on; ``wake`` is called after each message."""
        self._outbox = outbox
        self._wake = wake

    def disconnect(self) -> None:
        """The gateway is gone: nobody waits for these requests any more."""
        self._outbox = None
        self._wake = lambda: None
        for request_id, entry in self._entries.items():
            if entry.stage is not _Stage.PREPARING:
                self._engine.cancel(request_id)
        self._entries.clear()
        self._resume()

    def drained(self) -> None:
        """The link took something out of the outbox."""
        if self._outbox is not None and self._outbox.tokens <= _LOW_WATER:
            self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._engine.resume()

    def heartbeat(self) -> None:
        """Tell the gateway that this process lives, and whether its engine moves."""
        if self._outbox is not None:
            self._outbox.put_heartbeat(
                Heartbeat(since_step_s=self._engine.since_step_s(), stats=self._engine.stats())
            )
            self._wake()

    # ---- messages of the gateway

    def submit(self, message: Submit) -> None:
        """Start a request; answered by `Accepted` or `Rejected`."""
        if message.request_id in self._entries:
            rejection = RequestRejected(
                "duplicate_request", "a request with this id is running", "request_id"
            )
            self._answer_rejected(message.request_id, rejection)
            return
        entry = _Entry(_Stage.PREPARING, message.pace)
        self._entries[message.request_id] = entry
        self._tasks.create_task(self._prepare(message, entry))

    def cancel(self, request_id: str) -> None:
        """End a request; unknown and finished ones are ignored."""
        entry = self._entries.get(request_id)
        if entry is None:
            return
        if entry.stage is _Stage.PREPARING:
            entry.ended = "cancelled"
        else:
            self._engine.cancel(request_id)

    def hand_over(self, request_id: str) -> None:
        """End a request, to go on elsewhere; unknown and finished ones are ignored."""
        entry = self._entries.get(request_id)
        if entry is None:
            return
        if entry.stage is _Stage.PREPARING:
            entry.ended = entry.ended or "handed_over"
        else:
            self._engine.hand_over(request_id)

    def meet_peer(self, peer: Endpoint) -> None:
        """Connect to another engine's KV memory; answered by `PeerMet`."""
        self._tasks.create_task(self._meet(peer))

    async def _meet(self, peer: Endpoint) -> None:
        error: str | None = NO_KV_MOVES
        if self._engine.facts.endpoint is not None:
            error = await self._engine.meet_peer(peer)
        if error is not None:
            _log.warning("peer_not_met", engine_id=peer.engine_id, reason=error)
        if self._outbox is not None:
            self._outbox.put(PeerMet(engine_id=peer.engine_id, error=error))
            self._wake()

    def set_pace(self, request_id: str, pace: Pace) -> None:
        """The reader reads at another pace; unknown and finished requests are ignored."""
        entry = self._entries.get(request_id)
        if entry is None:
            return
        entry.pace = pace
        if entry.stage is not _Stage.PREPARING:
            self._engine.set_pace(request_id, pace)

    async def _prepare(self, message: Submit, entry: _Entry) -> None:
        request_id = message.request_id
        try:
            await self._start(message, entry)
        except RequestRejected as rejection:
            self._drop(request_id, entry, rejection)
        except Exception as error:  # noqa: BLE001 (see below)
            # A chat template is a program of the model's author: whatever it raises is the fault
            # of this one request. The error could quote the prompt, so only its type is logged.
            _log.error(
                "request_preparation_failed", request_id=request_id, kind=type(error).__name__
            )
            unknown = RequestRejected("internal_error", "the request could not be prepared")
            self._drop(request_id, entry, unknown)

    async def _start(self, message: Submit, entry: _Entry) -> None:
        request_id = message.request_id
        check_values(message)
        prompt = await asyncio.get_running_loop().run_in_executor(
            self._render_thread, self._renderer.render, message.messages, message.thinking
        )
        if self._entries.get(request_id) is not entry:
            return  # the gateway is gone
        markers, known = self._renderer.markers, message.known_token_ids
        chosen = plan(message, prompt, markers, self._engine.facts.max_model_len)
        detokenizer = Detokenizer(
            self._renderer.decode, markers, prompt.phase, message.sampling.stop
        )
        entry.stream = RequestStream(request_id, detokenizer, known, chosen.forced_total)
        entry.accepted = Accepted(
            request_id=request_id,
            prompt_tokens=len(prompt.token_ids),
            reasoning=prompt.phase is Phase.REASONING,
            max_tokens=chosen.bound,
        )
        if entry.ended is not None:
            self._end_unstarted(request_id, entry, Finish(reason=entry.ended))
            return
        if chosen.left == 0:
            reason: FinishReason = "length" if chosen.forced_total is None else "stop"
            self._end_unstarted(request_id, entry, Finish(reason=reason))
            return
        self._engine.submit(
            EngineRequest(
                request_id=request_id,
                prompt_token_ids=prompt.token_ids + known,
                sampling=message.sampling,
                max_tokens=chosen.left,
                phase=chosen.phase,
                pace=entry.pace,
                thinking_budget=chosen.thinking_budget,
                forced_reasoning=chosen.forced_reasoning,
                forced_answer=chosen.forced_answer,
                user=message.user,
                known_tokens=len(known),
                ticket=message.ticket,
            )
        )
        entry.stage = _Stage.QUEUEING

    def _end_unstarted(self, request_id: str, entry: _Entry, finish: Finish) -> None:
        assert entry.stream is not None
        assert entry.accepted is not None
        del self._entries[request_id]
        if self._outbox is not None:
            self._outbox.put(entry.accepted)
            self._outbox.put_step((entry.stream.end(finish),), self._engine.stats())
            self._wake()

    def _drop(self, request_id: str, entry: _Entry, rejection: RequestRejected) -> None:
        if self._entries.get(request_id) is entry:
            del self._entries[request_id]
            self._answer_rejected(request_id, rejection)

    def _answer_rejected(self, request_id: str, rejection: RequestRejected) -> None:
        if self._outbox is not None:
            self._outbox.put(
                Rejected(
                    request_id=request_id,
                    code=rejection.code,
                    message=rejection.message,
                    param=rejection.param,
                )
            )
            self._wake()

    # ---- events of the engine

    def request_accepted(self, request_id: str) -> None:
        """The engine has queued a request: say so."""
        entry = self._entries.get(request_id)
        if entry is None or self._outbox is None:
            return
        assert entry.accepted is not None
        entry.stage = _Stage.ACTIVE
        self._outbox.put(entry.accepted)
        self._wake()

    def request_rejected(self, request_id: str, reason: str) -> None:
        """The engine itself refused a request."""
        entry = self._entries.get(request_id)
        if entry is not None:
            self._drop(request_id, entry, RequestRejected("invalid_value", reason))

    def step_finished(self, step: EngineStep) -> None:
        """Pass on what the engine produced."""
        runs = []
        for output in step.outputs:
            entry = self._entries.get(output.request_id)
            if entry is None or entry.stage is not _Stage.ACTIVE or entry.stream is None:
                continue
            update = entry.stream.advance(output)
            if update.cancel:
                self._engine.cancel(output.request_id)
            if update.run is not None:
                runs.append(update.run)
            if entry.stream.finished:
                del self._entries[output.request_id]
        if self._outbox is None:
            return
        self._outbox.put_step(tuple(runs), step.stats)
        if self._outbox.tokens > _HIGH_WATER and not self._paused:
            self._paused = True
            self._engine.pause()
        self._wake()

    def engine_failed(self, reason: str) -> None:
        """End every request; this process cannot go on."""
        _log.error("engine_failed", reason=reason, requests=len(self._entries))
        finish = Finish(reason="error", message=reason)
        runs = []
        for request_id, entry in list(self._entries.items()):
            if entry.stage is _Stage.ACTIVE and entry.stream is not None:
                runs.append(entry.stream.end(finish))
            else:
                self._drop(request_id, entry, RequestRejected("engine_failed", reason))
        self._entries.clear()
        if self._outbox is not None:
            self._outbox.put_step(tuple(runs), self._engine.stats())
            self._wake()
        self._on_failure(reason)

    def close(self) -> None:
        """Free what this object owns; the engine is not its own."""
        self._render_thread.shutdown(wait=False, cancel_futures=True)
