"""How much was used with one key, and how much of its limits is left: arithmetic without a clock.

Limits for a minute hold for *every* minute: what was used counts until 60 s have passed. Time is
cut into seconds, and a second counts in whole until all of it is that old, so that a limit is
never exceeded and a reset is told up to a second too late, never too early. A limit for a day
holds from midnight to midnight, UTC.

Tokens count as soon as they are known: those of the prompt when an engine has taken the request,
those of the output as they are generated. Nobody reports them one by one. The meter looks at the
running responses when somebody asks, and the owner has it look every second (`Meter.settle`).

A request is refused if a limit is reached, not if it might exceed one: nobody knows how long its
output will be. So responses that run can exceed a limit of tokens, and none can begin after that.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from gateway.store import KeyLimits, KeyUsage

MINUTE_S = 60
DAY_S = 86400


class Spending(Protocol):
    """A response that runs."""

    prompt_tokens: int  # 0 until they are known
    output_tokens: int  # so far


@dataclass(frozen=True, slots=True)
class Moment:
    """A time on both clocks: for minutes, and for days."""

    now: float  # monotonic, in seconds
    unix: float

    @property
    def day(self) -> int:
        """Days since 1970, UTC."""
        return int(self.unix // DAY_S)

    @property
    def until_tomorrow_s(self) -> float:
        """How long the day lasts."""
        return (self.day + 1) * DAY_S - self.unix


@dataclass(frozen=True, slots=True)
class Standing:
    """How much is left of a limit."""

    limit: int
    remaining: int
    reset_s: float  # until all of it is free again, if nothing more is used


@dataclass(frozen=True, slots=True)
class Standings:
    """How much is left of the limits of a key; None: it has no such limit."""

    requests: Standing | None
    tokens: Standing | None  # of a minute or of a day, whichever has less left


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request cannot begin now."""

    limit: str  # a field of `KeyLimits`
    message: str
    retry_after_s: float | None  # None: when another response ends


class Window:
    """What was used in the last minute."""

    __slots__ = ("_seconds", "total")

    def __init__(self) -> None:
        self.total = 0
        self._seconds: deque[list[int]] = deque()  # at most 62: a second, and what it used

    def add(self, amount: int, now: float) -> None:
        """Use some."""
        second = math.floor(now)
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append([second, 0])
        self._seconds[-1][1] += amount
        self.total += amount

    def take_back(self, amount: int, at_s: float) -> None:
        """Give back what was used at that time, if it still counts."""
        for entry in self._seconds:
            if entry[0] == math.floor(at_s):
                entry[1] -= amount
                self.total -= amount

    def expire(self, now: float) -> None:
        """Forget what is older than a minute."""
        while self._seconds and _ends_s(self._seconds[0][0]) <= now:
            self.total -= self._seconds.popleft()[1]

    def frees_s(self, amount: int, now: float) -> float:
        """When so much of what was used will have left, in seconds from now."""
        for second, used in self._seconds:
            amount -= used
            if amount <= 0:
                return _ends_s(second) - now
        return 0.0

    def empties_s(self, now: float) -> float:
        """When all of it will have left, in seconds from now."""
        used = [second for second, amount in self._seconds if amount]
        return _ends_s(used[-1]) - now if used else 0.0


@dataclass(slots=True, eq=False)
class Run:
    """A response of the key, from its place among those that run to its last token."""

    began: Moment
    with_prompt: bool  # False: its prompt is charged to another response
    spending: Spending | None = None  # once there is something that can spend tokens
    counted: bool = False  # as a request: an engine has taken it
    prompt_tokens: int = 0  # that were charged
    output_tokens: int = 0


class Meter:
    """The use of one key. Every method that gets a `Moment` expects none before an earlier one.

    :param today: what was used on the day of ``moment`` already.
    """

    def __init__(self, limits: KeyLimits, today: KeyUsage, moment: Moment) -> None:
        self.limits = limits
        self.total = KeyUsage()  # since this meter was made
        self._requests = Window()
        self._tokens = Window()
        self._day = moment.day
        self._day_tokens = today.tokens
        self._runs: set[Run] = set()
        self._unsaved: dict[int, KeyUsage] = {}  # by day

    @property
    def running(self) -> int:
        """Responses that are being generated, or about to be."""
        return len(self._runs)

    # ---- responses ----------------------------------------------------------------------------

    def refusal(self, moment: Moment, count: int = 1) -> Refusal | None:
        """Why so many requests cannot begin now; of several limits, the one that lasts longest."""
        self.settle(moment)
        refusals = self._refusals(moment, count)
        return max(refusals, key=lambda one: one.retry_after_s or 0.0, default=None)

    def begin(self, moment: Moment, *, with_prompt: bool = True) -> Run:
        """Count a request, whatever the limits; call `end` when nothing more is generated."""
        run = Run(moment, with_prompt)
        self._runs.add(run)
        self._requests.add(1, moment.now)
        return run

    def end(self, run: Run, moment: Moment) -> None:
        """Nothing more is generated. A request that no engine took does not count."""
        if run not in self._runs:
            return
        self._runs.remove(run)
        self._expire(moment)
        self._charge(run, moment)
        if not run.counted:
            self._requests.take_back(1, run.began.now)

    # ---- what was used ------------------------------------------------------------------------

    def settle(self, moment: Moment) -> None:
        """Charge what the running responses have used since the last time."""
        self._expire(moment)
        for run in self._runs:
            self._charge(run, moment)

    def standings(self, moment: Moment) -> Standings:
        """How much is left."""
        self.settle(moment)
        now, limits = moment.now, self.limits
        tokens = []
        if (limit := limits.tokens_per_minute) is not None:
            tokens.append(_standing(limit, self._tokens.total, self._tokens.empties_s(now)))
        if (limit := limits.tokens_per_day) is not None:
            until_s = moment.until_tomorrow_s if self._day_tokens else 0.0
            tokens.append(_standing(limit, self._day_tokens, until_s))
        requests = None
        if (limit := limits.requests_per_minute) is not None:
            requests = _standing(limit, self._requests.total, self._requests.empties_s(now))
        return Standings(requests, min(tokens, key=lambda one: one.remaining, default=None))

    def take_unsaved(self) -> dict[int, KeyUsage]:
        """What was used since the last call, by day."""
        unsaved, self._unsaved = self._unsaved, {}
        return unsaved

    # ---- inside -------------------------------------------------------------------------------

    def _refusals(self, moment: Moment, count: int) -> list[Refusal]:
        limits, found = self.limits, []
        limit = limits.concurrent
        if limit is not None and self.running + count > limit:
            text = f"This key has {self.running} responses running; its limit is {limit}."
            found.append(Refusal("concurrent", text, None))
        limit, used = limits.requests_per_minute, self._requests.total
        if limit is not None and used + count > limit:
            text = f"{used} requests began with this key in a minute; its limit is {limit}."
            free_s = self._requests.frees_s(used + count - limit, moment.now)
            found.append(Refusal("requests_per_minute", text, free_s))
        limit, used = limits.tokens_per_minute, self._tokens.total
        if limit is not None and used >= limit:
            text = f"This key has used {used} tokens in a minute; its limit is {limit}."
            free_s = self._tokens.frees_s(used - limit + 1, moment.now)
            found.append(Refusal("tokens_per_minute", text, free_s))
        limit, used = limits.tokens_per_day, self._day_tokens
        if limit is not None and used >= limit:
            text = f"This key has used {used} tokens today (UTC); its limit is {limit}."
            found.append(Refusal("tokens_per_day", text, moment.until_tomorrow_s))
        return found

    def _expire(self, moment: Moment) -> None:
        self._requests.expire(moment.now)
        self._tokens.expire(moment.now)
        if moment.day > self._day:
            self._day, self._day_tokens = moment.day, 0

    def _charge(self, run: Run, moment: Moment) -> None:
        spending = run.spending
        if spending is None:
            return
        request = int(not run.counted and spending.prompt_tokens > 0)
        prompt = spending.prompt_tokens - run.prompt_tokens if run.with_prompt else 0
        output = spending.output_tokens - run.output_tokens
        if not (request or prompt or output):
            return
        run.counted |= bool(request)
        run.prompt_tokens += prompt
        run.output_tokens += output
        self._tokens.add(prompt + output, moment.now)
        self._day_tokens += prompt + output
        used = KeyUsage(request, prompt, output)
        self.total += used
        self._unsaved[moment.day] = self._unsaved.get(moment.day, KeyUsage()) + used


def _ends_s(second: int) -> float:
    """When what was used in a second no longer counts."""
    return second + 1 + MINUTE_S


def _standing(limit: int, used: int, reset_s: float) -> Standing:
    return Standing(limit, max(0, limit - used), reset_s)
