"""The API keys of a gateway: it finds them in the store, holds their limits and stores their use.

The store is asked every second whether another process has added or revoked a key. The use of keys
is written in the same rhythm; a gateway that dies loses a second of it. If the store fails, the
keys stay as they are, and what was used is written later.

Windows of a minute are in memory: they are empty after a restart. The use of a day is not lost.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from gateway.keys.limits import Meter, Moment, Refusal, Run, Spending, Standings
from gateway.keys.registry import ANYBODY, Caller, Registry
from gateway.schemas.errors import InvalidRequest, Overloaded, Unauthorized
from gateway.store import KeyStore, KeyUsage, StoredKey, StoreError, Usages

log = structlog.get_logger()

_PAUSE_S = 1.0  # between two looks at the store
_LONGEST_PAUSE_S = 30.0  # while it fails


@dataclass(frozen=True, slots=True)
class Place:
    """The place of one response within the limits of a key; without ``meter``: of no key."""

    meter: Meter | None = None
    run: Run | None = None


class Keys:
    """All keys, and what is used with them.

    :param plain: the keys of ``server.api_keys``.
    :param retry_after_s: what a refused client is told if nobody knows when there will be room.
    :param clock: what time it is.
    """

    def __init__(
        self,
        plain: Sequence[str],
        store: KeyStore,
        retry_after_s: int,
        clock: Callable[[], Moment] = lambda: Moment(time.monotonic(), time.time()),
    ) -> None:
        self.refused: Counter[tuple[str, str]] = Counter()  # by key and limit
        self._registry = Registry(plain)
        self._store = store
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._version: int | None = None  # of the file, when its keys were read
        self._meters: dict[str, Meter] = {}  # by key; also of revoked ones that still run
        self._stored_use: Usages = {}  # on the day below, when the keys were read
        self._stored_day = 0
        self._places: dict[str, Place] = {}  # of running responses
        self._unwritten: dict[tuple[str, int], KeyUsage] = {}
        self._writing: asyncio.Task[None] | None = None

    # ---- who ----------------------------------------------------------------------------------

    @property
    def asked_for(self) -> bool:
        """Whether clients have to send a key."""
        return self._registry.asked_for

    @property
    def stored(self) -> bool:
        """Whether the store has keys, or had some."""
        return self._registry.stored

    def authenticate(self, text: str) -> Caller:
        """The caller that sent this as its key; empty: it sent none.

        :raises Unauthorized: a key is asked for, and this is none.
        """
        if not self.asked_for:
            return ANYBODY
        if (caller := self._registry.find(text)) is None:
            raise Unauthorized()
        return caller

    def check(self, owner: str) -> None:
        """Raise `Unauthorized` if the key of an owner was revoked."""
        if not self._registry.is_valid(owner):
            raise Unauthorized()

    def gives_way(self, owner: str) -> bool:
        """Whether requests of this owner leave the last of the server's room to others."""
        key = self._registry.key_of(owner)
        return key is not None and key.priority == "low"

    # ---- how much -----------------------------------------------------------------------------

    def reserve(self, owner: str, count: int = 1, of_prompt: int = 1) -> list[Place]:
        """Places for responses. Each must be attached to a session, or released.

        :param of_prompt: how many of them, one after another, have the same prompt. It is charged
            once.
        :raises Unauthorized: the key of this owner was revoked.
        :raises Overloaded: a limit of the key is reached.
        :raises InvalidRequest: the key may never have so many at a time.
        """
        key = self._registry.key_of(owner)
        if key is None:
            self.check(owner)
            return [Place()] * count
        _check_count(key, count, of_prompt)
        meter, moment = self._meter(key), self._clock()
        if (refusal := meter.refusal(moment, count)) is not None:
            self.refused[key.key_id, refusal.limit] += 1
            raise self._error(refusal)
        return [
            Place(meter, meter.begin(moment, with_prompt=not i % of_prompt)) for i in range(count)
        ]

    def attach(self, response_id: str, place: Place, spending: Spending) -> None:
        """The place belongs to this response from now on."""
        if place.run is not None:
            place.run.spending = spending
            self._places[response_id] = place

    def ended(self, response_id: str) -> None:
        """Nothing more is generated for a response: charge the rest, and free its place."""
        if (place := self._places.pop(response_id, None)) is not None:
            self.release(place)

    def release(self, place: Place) -> None:
        """Free a place, unless it is free already."""
        if place.meter is not None and place.run is not None:
            place.meter.end(place.run, self._clock())

    def standings(self, key: StoredKey) -> Standings:
        """How much is left of the limits of a key."""
        return self._meter(key).standings(self._clock())

    def uses(self) -> Iterator[tuple[StoredKey, KeyUsage, int]]:
        """Each key with what was used since the start, and how many of its responses run."""
        for key in self._registry.keys:
            meter = self._meters.get(key.key_id)
            yield key, meter.total if meter else KeyUsage(), meter.running if meter else 0

    # ---- the store ----------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Read the keys if another process has changed the file. Raises `StoreError`."""
        version = await self._store.version()
        if version == self._version:
            return
        day = self._clock().day
        loaded = await self._store.load(day)
        self._version = version
        before = {key.key_id for key in self._registry.keys}
        self._registry.set_stored(loaded.keys, any_ever=loaded.any_ever)
        # For keys without a meter: the meters know more than the file.
        self._stored_use, self._stored_day = loaded.usage, day
        now = {key.key_id for key in loaded.keys}
        if now != before:
            log.info("keys_changed", added=len(now - before), revoked=len(before - now))
        for key_id, meter in list(self._meters.items()):
            if (key := self._registry.key_of(key_id)) is not None:
                meter.limits = key.limits

    async def keep(self) -> None:
        """Charge what running responses use, and follow the store, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_charged())
            tasks.create_task(self._keep_synced())

    async def write(self) -> None:
        """Write what was used. Raises `StoreError`; it is kept for the next time then."""
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
            self._writing.add_done_callback(_note_failure)
        # What is being written must not be written again after a cancel.
        await asyncio.shield(self._writing)

    async def close(self) -> None:
        """Write the rest of what was used."""
        try:
            if self._writing is not None:
                await self.write()
            await self.write()
        except StoreError:
            pass  # the store has logged it

    # ---- inside -------------------------------------------------------------------------------

    def _meter(self, key: StoredKey) -> Meter:
        meter = self._meters.get(key.key_id)
        if meter is None:
            moment = self._clock()
            known = moment.day == self._stored_day
            used = self._stored_use.get(key.key_id, KeyUsage()) if known else KeyUsage()
            meter = self._meters[key.key_id] = Meter(key.limits, used, moment)
        return meter

    def _error(self, refusal: Refusal) -> Overloaded:
        wait_s = refusal.retry_after_s
        told_s = self._retry_after_s if wait_s is None else max(1, math.ceil(wait_s))
        return Overloaded(refusal.message, code="rate_limit_exceeded", retry_after_s=told_s)

    async def _keep_charged(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE_S)
            for key_id, meter in list(self._meters.items()):
                if not meter.running:
                    continue
                try:
                    meter.settle(self._clock())
                except Exception:
                    log.exception("key_not_charged", key_id=key_id)
                await asyncio.sleep(0)  # readers must not wait for the meters of all keys

    async def _keep_synced(self) -> None:
        pause_s = _PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self.write()
                await self.refresh()
                pause_s = _PAUSE_S
            except StoreError:  # the store has logged it
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
            except Exception:
                log.exception("keys_not_kept")
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def _write(self) -> None:
        try:
            for key_id, meter in list(self._meters.items()):
                for day, used in meter.take_unsaved().items():
                    place = key_id, day
                    self._unwritten[place] = self._unwritten.get(place, KeyUsage()) + used
                if not meter.running and self._registry.key_of(key_id) is None:
                    del self._meters[key_id]  # revoked, and nothing of it is left
            writing, self._unwritten = self._unwritten, {}
            try:
                await self._store.add_usage(writing)
            except BaseException:
                for place, used in writing.items():
                    self._unwritten[place] = self._unwritten.get(place, KeyUsage()) + used
                raise
        finally:
            self._writing = None


def _note_failure(task: asyncio.Task[None]) -> None:
    """Look at the exception, which the store has logged, even if nobody waits any longer."""
    if not task.cancelled():
        task.exception()


def _check_count(key: StoredKey, count: int, of_prompt: int) -> None:
    """Refuse more responses to one body than the key may ever have."""
    name = "n" if count == of_prompt else "prompt"
    limits = key.limits
    for limit, what in (
        (limits.concurrent, "run {} responses at a time"),
        (limits.requests_per_minute, "begin {} requests a minute"),
    ):
        if limit is not None and 1 < count > limit:
            raise InvalidRequest(
                f"'{name}' asks for {count} responses; this key may {what.format(limit)}.",
                param=name,
            )
