"""Carries out the messages of gateways: the life of every request in this process.

    1. `submit` checks that the id is new. A thread renders the conversation.
    2. The service checks the request against the model's context and gives it to the engine.
    3. When the engine accepts the request, the service sends `Accepted`.
    4. The service turns each engine step into one `Step` with texts, boundaries and finishes.
    5. A finish ends the request. Its cause is the engine, a stop string, a `Cancel`, a `HandOver`,
       an error of this request, or the failure of the engine.

All requests share one event loop. An exception that a request or a peer causes affects no other.
A request belongs to the gateway that submitted it: no other one can change it, and when its gateway
has gone it is cancelled.

Knows no socket and no vLLM: messages leave through `Gateways`, tokens come from an `Engine`.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import structlog

from workers import tracing
from workers.engine.interface import Engine, EngineOutput, EngineRequest, EngineStep
from workers.errors import RequestRejected
from workers.messages import (
    Accepted,
    Endpoint,
    Finish,
    FinishReason,
    Heartbeat,
    Pace,
    PeerMet,
    PolicySet,
    Submit,
    TokenRun,
)
from workers.policy.phase import Phase
from workers.requests.chat_template import ChatRenderer
from workers.requests.gateways import Gateway, Gateways
from workers.requests.outbox import Reply
from workers.requests.output_bounds import check_values, output_bounds
from workers.requests.output_text import output_text
from workers.requests.prefixes import Expectation, PrefixTable
from workers.requests.questions import Question, answer, refused
from workers.requests.stream import RequestStream
from workers.requests.structures import check_structure

_log = structlog.get_logger()

NO_KV_MOVES = "the KV of this engine cannot move"


class _Stage(enum.Enum):
    PREPARING = "preparing"  # a thread renders its prompt
    QUEUEING = "queueing"  # the engine has it, but has not answered yet
    ACTIVE = "active"  # the engine has accepted it


@dataclass(slots=True)
class _Entry:
    """An unfinished request."""

    gateway: Gateway  # that submitted it
    stage: _Stage
    pace: Pace
    stream: RequestStream | None = None  # once prepared
    accepted: Accepted | None = None  # once prepared
    ended: FinishReason | None = None  # how it must end; set while it was being prepared
    prefixes: tuple[int, ...] = ()  # as in `workers.messages.Submit`
    expected: Expectation | None = None  # what of its prompt should be in the engine's cache


class Service:
    """All requests of the connected gateways. It also receives the events of the engine."""

    def __init__(
        self,
        engine: Engine,
        renderer: ChatRenderer,
        tasks: asyncio.TaskGroup,
        on_failure: Callable[[str], None],
    ) -> None:
        """Create a service without gateways; `connect` adds one.

        :param tasks: runs the preparation of requests and the meetings with peers.
        :param on_failure: called once if the engine fails, after every request has ended.
        """
        self._engine = engine
        self._renderer = renderer
        self._tasks = tasks
        self._on_failure = on_failure
        # One thread renders in order of arrival and leaves the engine its share of the core.
        self._render_thread = ThreadPoolExecutor(1, thread_name_prefix="render")
        self._entries: dict[str, _Entry] = {}
        self.gateways = Gateways(engine.pause, engine.resume, time.monotonic)
        facts = engine.facts
        self._prefixes = PrefixTable(facts.kv_blocks_total * facts.block_size, facts.block_size)
        self.policy: str | None = None  # that a gateway has set; None: that of the settings
        self._started: set[asyncio.Task[None]] = set()  # tasks that `close` must cancel

    # ---- called by the link

    def connect(self, gateway: Gateway) -> None:
        """Take messages of a gateway from now on."""
        gateway.outbox.put_prefixes(self._prefixes.held())
        self.gateways.add(gateway)

    def disconnect(self, gateway: Gateway) -> None:
        """A gateway has gone: cancel its requests."""
        if gateway not in self.gateways:
            return
        own = {name: entry for name, entry in self._entries.items() if entry.gateway is gateway}
        for request_id, entry in own.items():
            del self._entries[request_id]
            if entry.stage is not _Stage.PREPARING:
                self._cancel_in_engine(request_id)
        self.gateways.remove(gateway)

    def heartbeat(self, gateway: Gateway) -> None:
        """Send a heartbeat with the time since the engine's last step."""
        self.gateways.prefixes(self._prefixes.changes())
        beat = Heartbeat(since_step_s=self._engine.since_step_s(), stats=self._engine.stats())
        self.gateways.heartbeat(gateway, beat)

    # ---- messages of gateways

    def submit(self, gateway: Gateway, message: Submit) -> None:
        """Start a request. The answer is `Accepted` or `Rejected`."""
        tracing.note(message.request_id, message.x_request_id)
        if message.request_id in self._entries:
            rejection = RequestRejected(
                "duplicate_request", "a request with this id is running", "request_id"
            )
            gateway.send(refused(message.request_id, rejection))
            return
        entry = _Entry(gateway, _Stage.PREPARING, message.pace, prefixes=message.prefixes)
        self._entries[message.request_id] = entry
        self._start_task(self._prepare(message, entry))

    def answer(self, gateway: Gateway, question: Question) -> None:
        """Answer a question about a prompt or tokens; see `workers.requests.questions`."""
        self._start_task(self._answer(gateway, question))

    async def _answer(self, gateway: Gateway, question: Question) -> None:
        in_thread = partial(asyncio.get_running_loop().run_in_executor, self._render_thread)
        self.reply(gateway, await answer(question, self._renderer, in_thread))

    def reply(self, gateway: Gateway, message: Reply) -> None:
        """Send the answer to a message, if the gateway is still there."""
        if gateway in self.gateways:
            gateway.send(message)

    def _own(self, gateway: Gateway, request_id: str) -> _Entry | None:
        """The unfinished request of a gateway; None if it has none with this id."""
        entry = self._entries.get(request_id)
        return entry if entry is not None and entry.gateway is gateway else None

    def cancel(self, gateway: Gateway, request_id: str) -> None:
        """Cancel a request. Unknown and finished requests are ignored."""
        entry = self._own(gateway, request_id)
        if entry is None:
            return
        if entry.stage is _Stage.PREPARING:
            entry.ended = "cancelled"
        else:
            self._engine.cancel(request_id)

    def hand_over(self, gateway: Gateway, request_id: str) -> None:
        """End a request here, to go on elsewhere. Unknown and finished requests are ignored."""
        entry = self._own(gateway, request_id)
        if entry is None:
            return
        if entry.stage is _Stage.PREPARING:
            entry.ended = entry.ended or "handed_over"
        else:
            self._engine.hand_over(request_id)

    def meet_peer(self, gateway: Gateway, peer: Endpoint) -> None:
        """Connect to another engine's KV memory. The answer is `PeerMet`."""
        self._start_task(self._meet(gateway, peer))

    async def _meet(self, gateway: Gateway, peer: Endpoint) -> None:
        error: str | None = NO_KV_MOVES
        if self._engine.facts.endpoint is not None:
            try:
                error = await self._engine.meet_peer(peer)
            except Exception as failure:  # noqa: BLE001 (goes into the answer)
                error = f"{type(failure).__name__}: {failure}"
        if error is not None:
            self.not_met(gateway, peer, error)
        else:
            self.reply(gateway, PeerMet(engine_id=peer.engine_id))

    def set_policy(self, gateway: Gateway, policy: str) -> None:
        """Schedule by another policy. The answer is `PolicySet`."""
        self._start_task(self._set_policy(gateway, policy))

    async def _set_policy(self, gateway: Gateway, policy: str) -> None:
        try:
            error = await self._engine.use_policy(policy)
        except Exception as failure:  # noqa: BLE001 (goes into the answer)
            error = f"{type(failure).__name__}: {failure}"
        self.policy_set(gateway, policy, error)

    def policy_set(self, gateway: Gateway, policy: str, error: str | None) -> None:
        """Answer whether requests are scheduled by this policy now; all gateways are told."""
        if error is None:
            self.policy = policy
            _log.info("policy_set", policy=policy)
        else:
            _log.warning("policy_not_set", policy=policy, reason=error)
        self.gateways.policy_set(PolicySet(policy=policy, error=error), gateway)

    def not_met(self, gateway: Gateway, peer: Endpoint, reason: str) -> None:
        """Answer that this engine cannot read another engine's KV."""
        _log.warning("peer_not_met", engine_id=peer.engine_id, reason=reason)
        self.reply(gateway, PeerMet(engine_id=peer.engine_id, error=reason))

    def fail(self, gateway: Gateway, request_id: str, message: str) -> None:
        """End a request with an error; reject it if it is unknown or not accepted yet.

        :param message: the reason for the gateway; must not quote text of the request.
        """
        entry = self._own(gateway, request_id)
        if entry is not None:
            del self._entries[request_id]
            if entry.stage is not _Stage.PREPARING:
                self._cancel_in_engine(request_id)
        if entry is None or entry.stage is not _Stage.ACTIVE or entry.stream is None:
            rejection = RequestRejected("internal_error", message)
            self.reply(gateway, refused(request_id, rejection))
            return
        run = entry.stream.end(Finish(reason="error", message=message))
        self._put_runs({gateway: [run]})

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._started.add(task)
        task.add_done_callback(self._started.discard)

    def _cancel_in_engine(self, request_id: str) -> None:
        try:
            self._engine.cancel(request_id)
        except Exception as error:  # noqa: BLE001 (the other requests go on)
            _log.error("cancel_failed", request_id=request_id, kind=type(error).__name__)

    def set_pace(self, gateway: Gateway, request_id: str, pace: Pace) -> None:
        """Change the pace of a request. Unknown and finished requests are ignored."""
        entry = self._own(gateway, request_id)
        if entry is None:
            return
        if not pace.possible:
            _log.warning("pace_ignored", request_id=request_id, tau_s=pace.tau_s)
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
            # The chat template is code of the model's author, and it can raise any error. It ends
            # this request only. The error could quote the prompt, so only its type is logged.
            _log.error(
                "request_preparation_failed", request_id=request_id, kind=type(error).__name__
            )
            unknown = RequestRejected("internal_error", "the request could not be prepared")
            self._drop(request_id, entry, unknown)

    async def _start(self, message: Submit, entry: _Entry) -> None:
        request_id = message.request_id
        check_values(message)
        prompt = await asyncio.get_running_loop().run_in_executor(
            self._render_thread, self._renderer.render, message
        )
        if self._entries.get(request_id) is not entry:
            return  # the gateway has gone
        known = message.known_token_ids
        sampling = msgspec.structs.replace(
            message.sampling, thinking_budget=prompt.request.control.budget
        )
        message = msgspec.structs.replace(message, sampling=sampling)
        bounds = output_bounds(
            message, prompt, prompt.request.markers, self._engine.facts.max_model_len
        )
        call = self._renderer.forced_call(message, prompt)
        text = output_text(self._renderer, prompt, message)
        structure = prompt.request.structure
        await check_structure(self._engine, structure, message, prompt.phase)
        if self._entries.get(request_id) is not entry:
            return  # the gateway has gone
        vocabulary: Sequence[bytes] = ()
        if message.sampling.logprobs is not None:
            vocabulary = await asyncio.get_running_loop().run_in_executor(
                self._render_thread, self._engine.vocabulary
            )
            if self._entries.get(request_id) is not entry:
                return
        entry.stream = RequestStream(request_id, text, known, bounds.forced_total, vocabulary)
        entry.accepted = Accepted(
            request_id=request_id,
            prompt_tokens=len(prompt.token_ids),
            reasoning=prompt.phase is Phase.REASONING,
        )
        if entry.ended is not None:
            self._end_unstarted(request_id, entry, Finish(reason=entry.ended))
            return
        if bounds.left == 0:
            reason: FinishReason = "length" if bounds.forced_total is None else "stop"
            self._end_unstarted(request_id, entry, Finish(reason=reason))
            return
        self._engine.submit(
            EngineRequest(
                request_id=request_id,
                prompt_token_ids=prompt.token_ids + known,
                sampling=message.sampling,
                max_tokens=bounds.left,
                phase=bounds.phase,
                pace=entry.pace,
                thinking_budget=bounds.thinking_budget,
                forced_reasoning=bounds.forced_reasoning,
                forced_answer=bounds.forced_answer,
                forced_call=call[len(call) - bounds.forced_call :],
                user=message.user,
                known_tokens=len(known),
                ticket=message.ticket,
                structure=structure,
                began=prompt.phase,
                tools=prompt.request.tools,
                tool_choice=message.tool_choice,
            )
        )
        entry.stage = _Stage.QUEUEING

    def _end_unstarted(self, request_id: str, entry: _Entry, finish: Finish) -> None:
        assert entry.stream is not None
        assert entry.accepted is not None
        del self._entries[request_id]
        if entry.gateway in self.gateways:
            entry.gateway.send(entry.accepted)
            self._put_runs({entry.gateway: [entry.stream.end(finish)]})

    def _drop(self, request_id: str, entry: _Entry, rejection: RequestRejected) -> None:
        if self._entries.get(request_id) is entry:
            del self._entries[request_id]
            self.reply(entry.gateway, refused(request_id, rejection))

    # ---- called by the engine

    def request_accepted(self, request_id: str) -> None:
        """The engine has accepted a request: tell the gateway."""
        entry = self._entries.get(request_id)
        if entry is None:
            return
        assert entry.accepted is not None
        entry.stage = _Stage.ACTIVE
        entry.expected = self._prefixes.began(entry.prefixes, entry.accepted.prompt_tokens)
        self.reply(entry.gateway, entry.accepted)

    def request_rejected(
        self, request_id: str, reason: str, code: str = "invalid_value", param: str | None = None
    ) -> None:
        """The engine refused a request: reject it."""
        entry = self._entries.get(request_id)
        if entry is not None:
            self._drop(request_id, entry, RequestRejected(code, reason, param))

    def step_finished(self, step: EngineStep) -> None:
        """Send the output of a step to the gateways that it belongs to."""
        runs: dict[Gateway, list[TokenRun]] = {}
        for output in step.outputs:
            entry = self._entries.get(output.request_id)
            if entry is None:
                continue
            try:
                run = self._advance(entry, output)
            except Exception as error:  # noqa: BLE001 (see `_spoiled`)
                run = self._spoiled(output.request_id, error)
            if run is not None:
                runs.setdefault(entry.gateway, []).append(run)
        self.gateways.step(runs, step.stats)

    def _advance(self, entry: _Entry, output: EngineOutput) -> TokenRun | None:
        if entry.stage is not _Stage.ACTIVE or entry.stream is None:
            return None
        update = entry.stream.advance(output)
        if update.told is not None and not entry.stream.finished:
            self._engine.turn(output.request_id, update.told)
        if update.cancel:
            self._engine.cancel(output.request_id)
        if entry.stream.finished:
            del self._entries[output.request_id]
            if entry.expected is not None:
                cached, generated = entry.stream.cached_tokens, entry.stream.generated
                self._prefixes.ended(entry.expected, cached, generated)
        return update.run

    def _spoiled(self, request_id: str, error: Exception) -> TokenRun | None:
        """End a request whose output could not become text; return its last run.

        A tokenizer comes from the model's author and can raise any error. The error could quote
        the output, so the log and the gateway get only its type.
        """
        kind = type(error).__name__
        _log.error("request_output_failed", request_id=request_id, kind=kind)
        entry = self._entries.pop(request_id, None)
        self._cancel_in_engine(request_id)
        if entry is None or entry.stream is None:
            return None
        message = f"the output could not be turned into text: {kind}"
        return entry.stream.end(Finish(reason="error", message=message))

    def engine_failed(self, reason: str) -> None:
        """End every request with an error; then report that this process cannot go on."""
        _log.error("engine_failed", reason=reason, requests=len(self._entries))
        try:
            self._end_all(reason)
        finally:
            self._on_failure(reason)

    def _end_all(self, reason: str) -> None:
        finish = Finish(reason="error", message=reason)
        entries, self._entries = self._entries, {}
        runs: dict[Gateway, list[TokenRun]] = {}
        for request_id, entry in entries.items():
            if entry.stage is _Stage.ACTIVE and entry.stream is not None:
                runs.setdefault(entry.gateway, []).append(entry.stream.end(finish))
            else:
                rejection = RequestRejected("engine_failed", reason)
                self.reply(entry.gateway, refused(request_id, rejection))
        self._put_runs(runs)

    def _put_runs(self, runs: dict[Gateway, list[TokenRun]]) -> None:
        self.gateways.step(runs, self._engine.stats())

    def close(self) -> None:
        """Cancel all preparations and meetings. The engine stays open."""
        for task in self._started:
            task.cancel()
        self._render_thread.shutdown(wait=False, cancel_futures=True)
