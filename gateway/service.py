"""The response service: what both APIs call to start, follow, stop and find responses.

Keeps the sessions, wakes them when a token is due, ends their time to live, counts them and stores
them. Everything runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import structlog

from gateway.bodies import ResponsesBody
from gateway.cluster import Cluster
from gateway.config import Config
from gateway.errors import InvalidRequest, NotFound
from gateway.instance import ViewRules
from gateway.limits import check_admission, user_of
from gateway.maintenance import Maintenance
from gateway.metrics import Metrics
from gateway.migration import Limits
from gateway.requests import Generation, Targets, from_responses
from gateway.router import closing
from gateway.session import Session
from gateway.store import ResponseStore, StoredResponse
from workers.messages import ChatMessage

log = structlog.get_logger()


class ResponseService:
    """All responses of one gateway."""

    def __init__(self, config: Config, store: ResponseStore) -> None:
        self.config = config
        self.store = store
        self.cluster = Cluster(
            on_progress=self._progress,
            on_boundary=self._boundary_passed,
            rules=config.placement.rules,
            view_rules=_view_rules(config),
            limits=_route_limits(config),
        )
        self.maintenance = Maintenance(self.cluster)
        self.metrics = Metrics(self.cluster)
        self.draining = False
        self._sessions: dict[str, Session] = {}  # running ones, and finished ones within their TTL
        self._running: dict[str, Session] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._running_of_user: Counter[str] = Counter()
        self._background: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    # ---- what the APIs call -------------------------------------------------------------------

    def check_model(self, name: str | None) -> None:
        """Raise `NotFound` unless ``name`` is the model served here (None: whatever is)."""
        served = self.config.served_model_name
        if name is not None and name != served:
            raise NotFound(
                f"The model '{name}' does not exist; this server has '{served}'.",
                code="model_not_found",
                param="model",
            )

    async def prepare(self, body: ResponsesBody, defaults: Targets, owner: str) -> Generation:
        """Check a Responses body against the server's state and find its conversation."""
        self.check_model(body.model)
        if body.previous_response_id is None:
            return from_responses(body, (), defaults)
        history, near = await self._conversation(body.previous_response_id, owner)
        return replace(from_responses(body, history, defaults), near=near)

    async def start(self, generation: Generation, owner: str) -> Session:
        """Admit, place and start a response; it is running, and logged, when this returns.

        :raises ApiError: refused; nothing remains of it.
        """
        if self.draining:
            raise closing()
        user = user_of(owner, generation.user)
        check_admission(
            self.config.limits,
            running=len(self._running),
            running_of_user=self._running_of_user[user] if user else 0,
        )
        session = Session(
            f"resp_{secrets.token_hex(16)}",
            generation,
            model=self.config.served_model_name,
            owner=owner,
            created_at=round(time.time(), 3),
            now=time.monotonic(),
            log_capacity=self.config.session.log_events,
        )
        self._sessions[session.response_id] = self._running[session.response_id] = session
        self._running_of_user[user] += 1
        self._idle.clear()
        try:
            await self.cluster.submit(session)
        except BaseException:
            self._drop(session)
            raise
        return session

    def find(self, response_id: str, owner: str) -> Session:
        """A session that is running or still kept. Raises `NotFound`."""
        session = self._sessions.get(response_id)
        if session is None or session.owner != owner:
            raise _no_such_response(response_id)
        return session

    async def response_object(self, response_id: str, owner: str) -> dict[str, Any]:
        """The response object, from its session or the store. Raises `NotFound`."""
        session = self._sessions.get(response_id)
        if session is not None and session.owner == owner:
            return session.response_object()
        stored = await self.store.get(response_id, owner)
        if stored is None:
            raise _no_such_response(response_id)
        # Rows of earlier versions hold a fraction.
        return {**stored.response, "created_at": int(stored.created_at)}

    def cancel(self, session: Session) -> None:
        """Stop a response; its log ends with the terminal event as soon as the engine confirms."""
        if session.cancel(time.monotonic()):
            self.cluster.cancel(session)
        self._progress(session)

    def _cut_short(self, session: Session) -> None:
        """Stop a response because the gateway ends; what is generated is still sent."""
        if session.cut_short(closing(), time.monotonic()):
            self.cluster.cancel(session)
        self._progress(session)

    def set_pace(self, session: Session, tpot_s: float | None, paused: bool | None) -> None:
        """The reader of a running response reads otherwise from now on.

        A pause ends by itself after ``session.ttl_s``.
        """
        session.set_pace(tpot_s, paused, time.monotonic())
        self.cluster.set_pace(session)
        self._progress(session)

    async def delete(self, response_id: str, owner: str) -> None:
        """Stop and forget a response. Raises `NotFound`."""
        await self.response_object(response_id, owner)
        session = self._sessions.get(response_id)
        if session is not None:
            session.forgotten = True
            if session.finished:
                self._drop(session)
            else:
                self.cancel(session)
        await self.store.delete(response_id, owner)

    # ---- the gateway's own life ---------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be served."""
        return self.cluster.can_serve and not self.draining

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests and wait for the running ones; cut short those that take too long."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            log.warning("requests_cut_at_shutdown", count=len(self._running))
            for session in list(self._running.values()):
                self._cut_short(session)
            try:
                await asyncio.wait_for(self._idle.wait(), 1.0)
            except TimeoutError:
                log.warning("requests_left_at_shutdown", count=len(self._running))

    async def close(self) -> None:
        """Wait for what is being stored."""
        self.maintenance.close()
        if self._background:
            await asyncio.wait(self._background, timeout=5.0)
        for timer in self._timers.values():
            timer.cancel()

    def fail_all(self) -> None:
        """Nothing more will come from any instance."""
        for session in list(self._running.values()):
            self._cut_short(session)
            session.fail(closing(), time.monotonic())
            self._progress(session)
        self.cluster.close()

    # ---- inside -------------------------------------------------------------------------------

    def _progress(self, session: Session) -> None:
        """Something happened to a session: set its timer, or take note of its end."""
        if session.response_id not in self._running:
            return
        self._stop_timer(session)
        if session.finished:
            self._ended(session)
        elif (due_s := session.next_release_s()) is not None:
            self._timers[session.response_id] = self._call_at(due_s, self._release, session, due_s)
        elif session.reader.paused:
            # A reader who paused and never came back must not hold the response for ever.
            until_s = time.monotonic() + self.config.session.ttl_s
            self._timers[session.response_id] = self._call_at(
                until_s, self.set_pace, session, None, False
            )

    def _boundary_passed(self, how: str, seconds: float) -> None:
        self.metrics.boundary_blocking.labels(how).observe(seconds)

    def _release(self, session: Session, due_s: float) -> None:
        now = time.monotonic()
        self.metrics.release_lateness.observe(max(0.0, now - due_s))
        session.release(now)
        self._progress(session)

    def _call_at(self, when_s: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        """Never early: the loop's timers count whole milliseconds."""
        delay_ms = math.ceil(max(0.0, when_s - time.monotonic()) * 1000)
        return asyncio.get_running_loop().call_later(delay_ms / 1000, callback, *args)

    def _ended(self, session: Session) -> None:
        self._count_out(session)
        self.metrics.response_ended(session, self.config.pacing.slo_qoe)
        figures = session.reader.figures()
        log.info(
            "response_ended",
            request_id=session.response_id,
            instance_id=session.instance_id,
            status=session.status,
            reason=session.incomplete_reason,
            output_tokens=len(session.token_ids),
            reasoning_tokens=session.reasoning_tokens,
            ttft_s=figures.paced.ttft_s,
            qoe=figures.qoe,
        )
        if session.forgotten:
            self._drop(session)
            return
        if session.generation.store:
            self._in_background(self._put(session))
        self._timers[session.response_id] = self._call_at(
            time.monotonic() + self.config.session.ttl_s, self._drop, session
        )

    async def _put(self, session: Session) -> None:
        stored = StoredResponse(
            session.response_id,
            session.owner,
            session.created_at,
            session.response_object(),
            _conversation_of(session),
        )
        try:
            await self.store.put(stored)
        except Exception:  # the client has its answer; only a later look-up will miss it
            log.exception("response_not_stored", request_id=session.response_id)

    def _drop(self, session: Session) -> None:
        """Keep it no longer."""
        self._stop_timer(session)
        self._count_out(session)
        self._sessions.pop(session.response_id, None)
        self.metrics.sessions.set(len(self._sessions))

    def _count_out(self, session: Session) -> None:
        """It runs no longer."""
        if self._running.pop(session.response_id, None) is None:
            return
        user = user_of(session.owner, session.generation.user)
        self._running_of_user[user] -= 1
        if not self._running_of_user[user]:
            del self._running_of_user[user]
        if not self._running:
            self._idle.set()
        self.metrics.sessions.set(len(self._sessions))

    def _stop_timer(self, session: Session) -> None:
        timer = self._timers.pop(session.response_id, None)
        if timer is not None:
            timer.cancel()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _conversation(
        self, response_id: str, owner: str
    ) -> tuple[tuple[ChatMessage, ...], str | None]:
        """The turns up to a response, and the instance that served it."""
        session = self._sessions.get(response_id)
        if session is not None and session.owner == owner:
            if not session.finished:
                raise InvalidRequest(
                    f"Response '{response_id}' is not finished.", param="previous_response_id"
                )
            return _conversation_of(session), session.instance_id
        stored = await self.store.get(response_id, owner)
        if stored is None:
            raise NotFound(
                f"Previous response '{response_id}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return stored.conversation, stored.response.get("instance")


def _view_rules(config: Config) -> ViewRules:
    workers = config.workers
    return ViewRules(
        slo_qoe=config.pacing.slo_qoe,
        quantum_tokens=workers.quantum_tokens,
        demotion_tokens=workers.demotion_tokens if workers.policy == "pascal" else None,
        reserve_memory=config.placement.reserve_memory,
    )


def _route_limits(config: Config) -> Limits:
    return Limits(
        migration_timeout_s=config.placement.migration_timeout_s,
        failover_timeout_s=config.cluster.failover_timeout_s,
        max_restarts=config.cluster.max_restarts,
    )


def _conversation_of(session: Session) -> tuple[ChatMessage, ...]:
    """The turns so far, with the answer as the reader saw it; instructions are per request."""
    turns = session.generation.messages
    if session.generation.instructions:
        turns = turns[1:]
    return (*turns, ChatMessage(role="assistant", content=session.answer_text))


def _no_such_response(response_id: str) -> NotFound:
    return NotFound(
        f"Response '{response_id}' not found.", code="response_not_found", param="response_id"
    )
