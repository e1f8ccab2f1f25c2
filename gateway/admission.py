"""Admission: which new responses begin, and when those that are refused should come back.

There are limits on counts: of requests in engines, of unfinished responses, and of those of one
user. A response whose tokens are all generated needs no engine, only memory in the gateway, so it
is counted apart. The limit ``limits.load`` is on what the engines can generate in time, see
`gateway.policy.capacity`. It refuses nothing while an instance has no request.

A refused request is told when its place will be free, and the place is kept for it, see
`gateway.policy.promises`. Nothing is admitted that would delay those to whom a place was promised.

Bookkeeping without a clock; `gateway.service` reports what happens to each response.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from gateway.config import LimitsConfig
from gateway.policy.capacity import (
    SLOT_S,
    Bookings,
    Engine,
    Lengths,
    Work,
    keeps_pace,
    supply_of,
)
from gateway.policy.promises import Promise, Promises
from gateway.response.session import Session
from gateway.schemas.errors import Overloaded
from gateway.schemas.generation import Generation

_FRESH_S = 0.25  # bookings are made anew after so long, because requests end and lengths come true
_REWEIGHTED = 64  # promises, each time
_KEPT_BUSY = 0.85  # of the load: up to here nothing is kept free for those who may not come
_GIVING_WAY = 0.8  # of each limit of the server: beyond, requests that give way are refused
_PROMISED = 1.25  # of the load: what those may fill to whom a place was promised for now
# Of the golden ratio and of its like in two dimensions: places that spread evenly.
_SPREAD = (0.6180339887498949, 0.5698402909980532)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Admitted:
    user: str
    place: int  # a number that spreads the guesses of lengths
    generation: Generation | None
    session: Session | None = None
    in_engine: bool = True
    counted: bool = True  # against the limit of its user


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a request cannot begin now."""

    message: str
    user: str | None = None  # it is the limit of this user; None: of all
    of_count: bool = True  # False: of what engines can generate in time
    until_read: bool = False  # a response counts until its reader has it all

    def error(self, retry_after_s: int) -> Overloaded:
        """What the client gets."""
        if self.user is not None:
            return Overloaded(self.message, code="rate_limit_exceeded", retry_after_s=retry_after_s)
        return Overloaded(self.message, code="server_overloaded", retry_after_s=retry_after_s)


class Admission:
    """Counts the unfinished responses and what they need, and refuses what is above the limits.

    :param engines: the instances in service.
    """

    def __init__(
        self, limits: LimitsConfig, engines: Callable[[], Sequence[Engine]] = tuple
    ) -> None:
        self.in_engines = 0
        self._limits = limits
        self._engines = engines
        self._admitted: dict[str, _Admitted] = {}
        self._of_user: Counter[str] = Counter()
        self._places = 0
        self._lengths = Lengths()
        self._promises = Promises()
        nothing = supply_of((), limits.load)
        self._running = Bookings(nothing, 0.0)
        self._promised = Bookings(nothing, 0.0)
        self._booked = Bookings(nothing, 0.0)  # both
        self._made_s = -math.inf  # when they were
        self._left: dict[tuple[str | None, bool], list[float]] = {}  # since then, see `_left_s`
        self._instances = 0
        self._others = 0  # requests of other gateways in the engines
        self._longest = math.inf  # tokens that one request can have

    # ---- what begins --------------------------------------------------------------------------

    def admit(
        self,
        response_id: str,
        user: str,
        generation: Generation | None = None,
        owner: str = "",
        now: float = 0.0,
        gives_way: bool = False,
    ) -> None:
        """Count a new response, which needs an engine.

        :param user: the user that `LimitsConfig.max_requests_per_user` applies to; empty if the
            request is anonymous, then that limit does not apply.
        :param generation: what it asks for; without it, only the limits on counts apply.
        :param gives_way: leave the last fifth of the server's room to others. No place is kept for
            such a request if it is refused.
        :raises Overloaded: a limit is reached.
        """
        share = _GIVING_WAY if gives_way else 1.0
        key = _key(generation, owner) if generation is not None and len(self._promises) else b""
        refusal = self._at_a_count(user, key, now, share)
        place, self._places = self._places, self._places + 1
        work = None if generation is None else self._work(place, generation, None)
        if work is not None and (self._limits.load or refusal or self._promises):
            self._book_anew(now, work.tau_s)
        if refusal is None and work is not None:
            refusal = self._at_capacity(work, key, now, share)
        if refusal is not None:
            if gives_way:
                raise refusal.error(max(1, math.ceil(self._wait_s(refusal, work, None, now))))
            key = key or _key(generation, owner)
            raise refusal.error(self._promise(refusal, key, user, work, now))
        self._take(key)
        self._admitted[response_id] = _Admitted(user, place, generation)
        self.in_engines += 1
        self._of_user[user] += 1
        if work is not None and self._limits.load:
            for bookings in (self._running, self._booked):
                bookings.book(work, now, bookings.supply.step_s)

    def began(self, response_id: str, session: Session) -> None:
        """The admitted response has its session."""
        self._admitted[response_id].session = session

    # ---- what becomes of it -------------------------------------------------------------------

    def update(self, response_id: str, *, in_engine: bool, followed: bool) -> None:
        """Record whether a response is in an engine, and whether any client reads it.

        A generated response without a client does not count against its user.
        """
        admitted = self._admitted.get(response_id)
        if admitted is None:
            return
        if admitted.in_engine and not in_engine:
            self._learn(admitted)
        self.in_engines += in_engine - admitted.in_engine
        admitted.in_engine = in_engine
        self._count(admitted, in_engine or followed)

    def remove(self, response_id: str) -> None:
        """The response has ended."""
        admitted = self._admitted.pop(response_id, None)
        if admitted is not None:
            self.in_engines -= admitted.in_engine
            self._count(admitted, False)

    def load(self, now: float) -> float:
        """The share of ``limits.load`` that is booked now, promises included; 0 without a limit."""
        self._book_anew(now)
        return self._booked.load

    @property
    def promised(self) -> int:
        """How many refused requests have a place."""
        return len(self._promises)

    # ---- inside: limits -----------------------------------------------------------------------

    def _at_a_count(self, user: str, key: bytes, now: float, share: float) -> _Refusal | None:
        """The limit on counts that a new request would exceed; those who are due go first.

        :param share: of the server's limits that it may use.
        """
        limits, promises = self._limits, self._promises
        promise = promises.find(key)
        waiting = len(promises) > 0 and not (promise and promises.is_due(promise, now))
        near = len(self._admitted) + len(promises) >= min(limits.max_requests, limits.max_readers)
        due = promises.due(now) if waiting and near else 0.0
        if self.in_engines + due >= math.ceil(share * limits.max_requests):
            return _Refusal(
                f"The engines have {self.in_engines} requests, the limit (limits.max_requests"
                f"{_of_share(share)})."
            )
        if len(self._admitted) + due >= math.ceil(share * limits.max_readers):
            return _Refusal(
                f"The server has {len(self._admitted)} unfinished responses, the limit "
                f"(limits.max_readers{_of_share(share)}).",
                until_read=True,
            )
        due = promises.due(now, user) if waiting and user else 0.0
        if user and self._of_user[user] + due >= limits.max_requests_per_user:
            return _Refusal(
                f"You have {self._of_user[user]} unfinished requests, the limit for one user "
                "(limits.max_requests_per_user).",
                user,
                until_read=True,
            )
        return None

    def _at_capacity(self, work: Work, key: bytes, now: float, share: float) -> _Refusal | None:
        """Whether the engines could not generate one more request in time."""
        if not self._limits.load:
            return None
        if self.in_engines + self._others < self._instances or not self._instances:
            return None  # one of them has no request, or the router refuses it anyway
        promise = self._promises.find(key)
        if promise is None:
            fits = self._booked.fits(work, now) or self._running.fits(work, now, beyond=_KEPT_BUSY)
        elif self._promises.is_due(promise, now):
            fits = self._before(promise, now).fits(work, now, beyond=_PROMISED)
        else:  # it is early
            fits = self._fits_without(promise, now)
        if fits and (share == 1.0 or self._running.fits(work, now, beyond=share)):
            return None
        return _Refusal(
            "The engines have as many requests as they can serve in time (limits.load"
            f"{_of_share(share)}).",
            of_count=False,
        )

    def _fits_without(self, promise: Promise, now: float) -> bool:
        """Whether a request that is early delays nobody else to whom a place was promised."""
        if self._running.fits(promise.work, now, beyond=_KEPT_BUSY):
            return True
        if not self._running.fits(promise.work, now):
            return False
        booking = promise.booking
        self._take_back(promise)
        fits = self._booked.fits(promise.work, now)
        if booking is not None:
            self._book(promise, *booking)
        return fits

    def _before(self, promise: Promise, now: float) -> Bookings:
        """What runs, and the promises that go first."""
        bookings = self._running.with_all_of()
        for other in self._promises.held(now, promise):
            if other.booking is not None:
                bookings.book(other.work, *other.booking)
        return bookings

    def _take(self, key: bytes) -> None:
        """The request has come to its place, if it had one."""
        promise = self._promises.take(key)
        if promise is not None:
            self._take_back(promise)

    def _book(self, promise: Promise, at_s: float, step_s: float, weight: float) -> None:
        """Keep room for those to whom a place was promised."""
        self._take_back(promise)
        promise.booking = at_s, step_s, weight
        for bookings in (self._promised, self._booked):
            bookings.book(promise.work, at_s, step_s, weight)

    def _take_back(self, promise: Promise) -> None:
        """Keep no room for them."""
        if promise.booking is not None:
            at_s, step_s, weight = promise.booking
            promise.booking = None
            for bookings in (self._promised, self._booked):
                bookings.book(promise.work, at_s, step_s, -weight)

    # ---- inside: when to come back ------------------------------------------------------------

    def _promise(
        self, refusal: _Refusal, key: bytes, user: str, work: Work | None, now: float
    ) -> int:
        """Promise a refused request a place; return when, in seconds from now."""
        promises = self._promises
        promise = promises.find(key)
        if promise is not None and not promises.is_due(promise, now):
            return max(1, math.ceil(promise.due_s - now))  # it is early; its place is kept
        told_s = max(1, math.ceil(self._wait_s(refusal, work, promise, now)))
        if work is not None:
            made = promises.make(key, user, work, told_s, now)
            if made is not None:
                self._book(made, made.again_s, self._running.supply.step_s, promises.share(made))
        return told_s

    def _wait_s(
        self, refusal: _Refusal, work: Work | None, overdue: Promise | None, now: float
    ) -> float:
        """How long it takes until there is room for one more."""
        least_s = 1.0
        if refusal.of_count:
            known = self._left_s(refusal)
            if work is None or not known or not any(e.step_s for e in self._engines()):
                return float(self._limits.retry_after_s)
            places = 0.0 if overdue is not None else self._promises.ahead(refusal.user)
            rounds, place = divmod(int(places), len(known))
            least_s = known[place] + rounds * known[-1]
        if work is None or not self._limits.load:
            return least_s
        bookings = self._booked if overdue is None else self._before(overdue, now)
        found_s = bookings.first_fit(work, now + max(1.0, least_s))
        return least_s if found_s is None else found_s - now

    def _left_s(self, refusal: _Refusal) -> list[float]:
        """How long each response will still count against a limit, the shortest time first."""
        key = (refusal.user, refusal.until_read)
        if key not in self._left:
            step_s, left = self._running.supply.step_s, []
            for admitted in self._admitted.values():
                session = admitted.session
                if session is None or (refusal.user or admitted.user) != admitted.user:
                    continue
                if admitted.in_engine and (work := self._work_of(admitted)) is not None:
                    left.append(work.seconds(step_s))
                elif refusal.until_read:
                    left.append(session.delivery.unread_s(self._made_s))
            self._left[key] = sorted(left)
        return self._left[key]

    # ---- inside: bookings ---------------------------------------------------------------------

    def _book_anew(self, now: float, tau_s: float | None = None) -> None:
        if now - self._made_s < _FRESH_S:
            return
        self._made_s = now
        self._left.clear()
        engines = self._engines()
        self._instances = len(engines)
        self._others = sum(engine.others for engine in engines)
        self._longest = max((engine.longest for engine in engines), default=math.inf)
        works = [
            work for a in self._admitted.values() if a.in_engine and (work := self._work_of(a))
        ]
        readers = [work.tau_s for work in works if work.tau_s and keeps_pace(engines, work.tau_s)]
        if tau_s is not None and keeps_pace(engines, tau_s):
            readers.append(tau_s)
        supply = supply_of(engines, self._limits.load, min(readers, default=None))
        origin_s = math.floor(now / SLOT_S) * SLOT_S
        self._running = Bookings(supply, origin_s)
        for work in works:
            self._running.book(work, now, supply.step_s)
        self._promised.advance(supply, origin_s)
        self._booked = self._running.with_all_of(self._promised)
        for promise in self._promises.late(now):
            self._take_back(promise)
        self._promises.expire(now)
        for promise in self._promises.misjudged(_REWEIGHTED):
            if promise.booking is not None:
                at_s, step_s, _ = promise.booking
                self._book(promise, at_s, step_s, self._promises.share(promise))

    def _work_of(self, admitted: _Admitted) -> Work | None:
        if admitted.generation is None:
            return None
        return self._work(admitted.place, admitted.generation, admitted.session)

    def _work(self, place: int, generation: Generation, session: Session | None) -> Work:
        """What is left to do for a request; ``place`` spreads the guesses."""
        reasoned = answered = called = buffered = 0
        thinking = generation.thinking is not False
        if session is None:
            kv_tokens = generation.prompt_tokens_guess
            tau_s = generation.targets.tpot_s if generation.targets.paced else None
        else:
            kv_tokens, thinking = session.kv_tokens, session.thinking and thinking
            reasoned, answered = session.reasoning_tokens, session.answering_tokens
            called = session.calling_tokens
            tau_s = session.delivery.tpot_s if session.delivery.paced else None
            buffered = session.delivery.buffered_tokens
        forced, sampling, call = generation.forced_lengths, generation.sampling, 0
        if forced is not None:
            reasoning = float(forced.reasoning_tokens)
            answer, call = float(forced.answer_tokens), forced.call_tokens
        else:
            u, v = (place * spread % 1.0 for spread in _SPREAD)
            reasoning = self._lengths.reasoning_tokens(u, reasoned)
            if sampling.thinking_budget is not None:
                reasoning = min(reasoning, sampling.thinking_budget)
            answer = self._lengths.answer_tokens(v, answered)
        # Nobody reads a call: it is generated as thoughts are.
        reasoning_left = max(0.0, reasoning - reasoned) if thinking else 0.0
        reasoning_left += max(0, call - called)
        answer_left = max(0.0, answer - answered)
        left = max(0.0, self._longest - kv_tokens)
        if sampling.max_tokens is not None:
            left = max(0.0, min(left, sampling.max_tokens - reasoned - answered - called))
        reasoning_left = min(reasoning_left, left)
        answer_left = min(answer_left, left - reasoning_left)
        return Work(kv_tokens, reasoning_left, answer_left, tau_s, buffered)

    def _learn(self, admitted: _Admitted) -> None:
        """Remember the lengths of a request that the model has ended."""
        session = admitted.session
        if session is None or session.finish is None or session.generation.forced_lengths:
            return
        if session.finish.reason in ("stop", "length"):
            self._lengths.note(session.reasoning_tokens, session.answering_tokens)

    def _count(self, admitted: _Admitted, counted: bool) -> None:
        self._of_user[admitted.user] += counted - admitted.counted
        admitted.counted = counted
        if not self._of_user[admitted.user]:
            del self._of_user[admitted.user]


def _of_share(share: float) -> str:
    return "" if share == 1.0 else f", {share:.0%} of it for keys of low priority"


def user_of(owner: str, user: str | None) -> str:
    """The key under which limits and fairness count a request; empty if it is anonymous."""
    return f"{owner}/{user or ''}" if owner or user else ""


def _key(generation: Generation | None, owner: str) -> bytes:
    """A digest by which a request is known that comes again."""
    if generation is None:
        return b""
    parts = (
        owner,
        generation.user,
        generation.messages,
        generation.tools,
        generation.tool_choice,
        generation.template,
        generation.effort,
        generation.structure,
        generation.choices,
        generation.sampling,
        generation.forced_lengths,
        generation.previous_response_id,
    )
    return blake2b(_encode(parts), digest_size=16).digest()
