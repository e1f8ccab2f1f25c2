"""Plays an engine over a `ScriptedWorker`. All engines generate the same output.

The token at place i has id i and its number as text, so that a token that is lost, doubled or out
of order shows in the text.
"""

from __future__ import annotations

import asyncio

from websockets.exceptions import ConnectionClosed

from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import Cancel, Finish, HandOver, SetPace, Submit

BOUNDARY = 3  # the place of the end-of-thinking token
LENGTH = 10

THOUGHTS = "".join(f"{place} " for place in range(BOUNDARY))
ANSWER = "".join(f"{place} " for place in range(BOUNDARY + 1, LENGTH))


def text_of(place: int) -> str:
    return "" if place == BOUNDARY else f"{place} "


class Actor:
    """One engine. It does not do the things named in ``holding``: accept, generate, hand over."""

    def __init__(self, worker: ScriptedWorker, holding: set[str]) -> None:
        self.worker = worker
        self.holding = holding
        self.until_place = LENGTH  # no token from here on, as long as it holds "generate"
        self.submits: list[Submit] = []
        self.paces: list[SetPace] = []
        self.cancelled: list[str] = []
        self.asked_for: list[str] = []  # by `HandOver`
        self.ticket_valid_s: float | None = 30.0  # None: hand over without a ticket
        self.refuses_tickets = False  # accepts the request, and computes
        self.errors: list[str] = []
        self.poisoned = False  # dies of every request that it accepts
        self._places: dict[str, int] = {}  # of the next token, per running request
        self._again = asyncio.Event()

    def release(self) -> None:
        """Do everything from now on."""
        self.holding.clear()
        self.wake()

    def wake(self) -> None:
        """Look again for something to do."""
        self._again.set()

    async def run(self) -> None:
        """Act until the link or the test ends."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen())
                tasks.create_task(self._work())
        except* (ConnectionClosed, EOFError):
            pass  # the test, or poison, dropped the link

    async def _listen(self) -> None:
        while True:
            match await self.worker.received():
                case Submit() as submit:
                    self.submits.append(submit)
                    known = submit.known_token_ids
                    if known != tuple(range(len(known))):
                        self.errors.append(f"wrong tokens: {known}")
                    if submit.request_id in self._places:
                        self.errors.append(f"came twice: {submit.request_id}")
                    self._places[submit.request_id] = -1 - len(known)  # not accepted yet
                case Cancel(request_id=name):
                    self.cancelled.append(name)
                    await self._cancel(name)
                case HandOver(request_id=name):
                    self.asked_for.append(name)
                case SetPace() as pace:
                    self.paces.append(pace)
            self._again.set()

    async def _cancel(self, name: str) -> None:
        place = self._places.pop(name, None)
        if place is None:
            return
        if place < 0:
            await self._accept(name)
            place = -1 - place
        await self.worker.tokens(name, place, finish=Finish(reason="cancelled"))

    async def _accept(self, name: str) -> None:
        submit = next(s for s in self.submits if s.request_id == name)
        await self.worker.accept(submit, reasoning=True)

    async def _work(self) -> None:
        while True:
            moved = False
            for name, place in list(self._places.items()):
                moved |= await self._advance(name, place)
            if not moved:
                self._again.clear()
                await self._again.wait()

    async def _advance(self, name: str, place: int) -> bool:
        """Do the next thing for one request; False if there is nothing to do."""
        if place < 0:
            if "accept" in self.holding:
                return False
            self._places[name] = -1 - place
            await self._accept(name)
            if self.poisoned:
                await self.worker.hang_up()
            return True
        if name in self.asked_for and "hand over" not in self.holding:
            self._places.pop(name, None)  # a cancel may have come first
            valid_s = self.ticket_valid_s
            ticket = None if valid_s is None else self.worker.ticket(20 + place, valid_s)
            await self.worker.hand_over(name, place, ticket)
            return True
        if "generate" in self.holding and place >= self.until_place:
            return False
        finish = Finish(reason="stop") if place == LENGTH - 1 else None
        boundary = 0 if place == BOUNDARY else None
        self._places[name] = place + 1
        if finish is not None:
            self._places.pop(name, None)  # a cancel may have come first
        await self.worker.tokens(
            name,
            place,
            text_of(place),
            finish=finish,
            boundary=boundary,
            kv_tokens=self._kv_tokens(name, place),
        )
        await asyncio.sleep(0)  # others have something to say, too
        return True

    def _kv_tokens(self, name: str, place: int) -> int | None:
        """The KV tokens that the first run reports for the request's ticket."""
        submit = next(s for s in self.submits if s.request_id == name)
        if submit.ticket is None or place != len(submit.known_token_ids):
            return None
        return 0 if self.refuses_tickets else submit.ticket.tokens
