"""What engines can still generate in time: who takes how much, for how long, and when room frees.

A request that reasons wants its KV in memory all the time. One that answers a paced reader needs
the engine for a share of the time only: a step makes a token, and the reader takes longer to read
it. So each request is `Work` with two spans, and `Bookings` adds up the spans of all requests over
the next minutes. A new request fits where no second would be booked above the `Supply`.

Pure: ``now`` is a parameter. Times are seconds of one clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import add

SLOT_S = 1.0  # bookings are means over slots of this length
SLOTS = 600  # how far bookings reach
_OTHERS_TAU_S = 0.1  # seconds per token, of readers that nothing is known of
_UNKNOWN_STEP_S = 0.025  # until an engine has made steps
_MARGIN = 0.9  # a step may take this share of the time in which a reader reads a token
_CLOSE = 0.7  # below this part of what a reader needs, steps are not too slow soon
_FEW = 4.0  # places that are there in any case: slow steps of a few requests have another cause
_SAMPLE_S = 0.25  # steps are timed over at least so long
_WEIGHT = 0.3  # of a new sample of the step time
_TINY = 1e-6  # sums of fractions are not exact
_MANY = 256  # finished requests whose lengths are remembered
_PRIOR = ((64, 64), (128, 128), (256, 256))  # reasoning and answer, until requests have finished


class StepTimer:
    """Seconds per step of one engine while it was busy, as the gateway sees it."""

    def __init__(self) -> None:
        self.step_s: float | None = None  # of late
        self.least_step_s: float | None = None  # with the emptiest batch so far
        self.running = 0.0  # requests in the batch, in the steps that `step_s` is about
        self._busy = False
        self._since_s = 0.0
        self._steps = 0

    def note(self, steps_total: int, running: int, busy: bool, now: float) -> None:
        """Take in what the engine reported.

        :param steps_total: since the engine started.
        :param running: requests in its batch.
        :param busy: whether it has requests, in the batch or not.
        """
        passed_s, steps = now - self._since_s, steps_total - self._steps
        if self._busy and passed_s < _SAMPLE_S:
            self._busy = busy
            return
        if self._busy and steps > 0:
            sample_s = passed_s / steps
            if self.step_s is None:
                self.step_s, self.running = sample_s, float(running)
            self.step_s += _WEIGHT * (sample_s - self.step_s)
            self.running += _WEIGHT * (running - self.running)
            self.least_step_s = min(self.least_step_s or self.step_s, self.step_s)
        self._busy, self._since_s, self._steps = busy, now, steps_total


class Lengths:
    """Expected lengths of requests that force none, from those that finished lately.

    A request of place ``u`` (from 0 to 1) among its like is expected to have the length of that
    quantile of the remembered ones that are longer than it is by now. Places that are spread evenly
    give a crowd of requests the same lengths, in all, as the remembered ones.
    """

    def __init__(self) -> None:
        self._finished: deque[tuple[int, int]] = deque(maxlen=_MANY)
        self._sorted: tuple[Sequence[int], Sequence[int]] | None = None

    def note(self, reasoning_tokens: int, answer_tokens: int) -> None:
        """A request has finished."""
        self._finished.append((reasoning_tokens, answer_tokens))
        self._sorted = None

    def reasoning_tokens(self, u: float, so_far: int) -> float:
        """Expected tokens up to the boundary, in all."""
        return self._expected(0, u, so_far)

    def answer_tokens(self, u: float, so_far: int) -> float:
        """Expected tokens after the boundary, in all."""
        return self._expected(1, u, so_far)

    def _expected(self, phase: int, u: float, so_far: int) -> float:
        if self._sorted is None:
            pairs = self._finished or _PRIOR
            self._sorted = sorted(pair[0] for pair in pairs), sorted(pair[1] for pair in pairs)
        lengths = self._sorted[phase]
        first = bisect_right(lengths, so_far)
        if first == len(lengths):  # longer than all before
            return 1.25 * so_far + 1
        return lengths[first + int(u * (len(lengths) - first))]


@dataclass(frozen=True, slots=True)
class Engine:
    """One instance in service."""

    kv_tokens: int  # that fit into its memory
    places: int  # in its batch
    longest: int  # tokens of prompt and output that one request can have
    running: float = 0.0  # requests in its batch, in the steps that `step_s` is about
    step_s: float | None = None  # seconds per step, of late; None: not known yet
    least_step_s: float | None = None  # seconds per step with an almost empty batch
    # Of requests that other gateways have there.
    others: int = 0
    others_kv_tokens: int = 0
    others_thinking: int = 0


@dataclass(frozen=True, slots=True)
class Supply:
    """What the instances have together for the requests of this gateway."""

    kv_tokens: float
    places: float
    step_s: float


def supply_of(
    engines: Iterable[Engine],
    load: float,
    tau_s: float | None = None,
    others_tau_s: float = _OTHERS_TAU_S,
) -> Supply:
    """What instances may be booked for.

    Steps take longer the more requests are in the batch. An engine whose steps are close to being
    too slow for a reader has no more places than let them keep pace. What other gateways have now
    is taken off for all times, because nobody here knows when it ends.

    :param load: the share of the memory and of the places that may be booked.
    :param tau_s: seconds per token of the fastest reader; None: nobody reads at a pace.
    :param others_tau_s: seconds per token of the readers of other gateways.
    """
    engines = list(engines)
    known = [engine.step_s for engine in engines if engine.step_s is not None]
    step_s = sum(known) / len(known) if known else _UNKNOWN_STEP_S
    kv_tokens = load * sum(engine.kv_tokens for engine in engines)
    places = load * sum(_places(engine, tau_s) for engine in engines)
    share = min(1.0, step_s / others_tau_s)  # of a place, for a reader
    others = sum(e.others_thinking + share * (e.others - e.others_thinking) for e in engines)
    return Supply(
        kv_tokens=max(0.0, kv_tokens - sum(engine.others_kv_tokens for engine in engines)),
        places=max(0.0, places - others),
        step_s=step_s,
    )


def keeps_pace(engines: Iterable[Engine], tau_s: float) -> bool:
    """Whether any of the engines could ever keep pace with a reader of ``tau_s`` per token."""
    return any((engine.least_step_s or 0.0) < _MARGIN * tau_s for engine in engines)


def _places(engine: Engine, tau_s: float | None) -> float:
    if tau_s is None or engine.step_s is None or engine.least_step_s is None:
        return engine.places
    enough_s = _MARGIN * tau_s
    if engine.step_s < _CLOSE * enough_s or engine.least_step_s >= enough_s:
        return engine.places
    growth_s = (engine.step_s - engine.least_step_s) / max(engine.running, 1.0)
    if growth_s <= 0.0:
        return engine.places
    places = (enough_s - engine.least_step_s) / growth_s
    return min(engine.places, max(_FEW, places))


@dataclass(frozen=True, slots=True)
class Work:
    """What is left of a request. Tokens may be expected values."""

    kv_tokens: float  # of its prompt and its output so far
    reasoning_tokens: float  # still to come
    answer_tokens: float  # still to come
    tau_s: float | None  # seconds per token of its reader; None: takes them as they come
    buffered_tokens: float = 0.0  # that its reader has yet to read

    def seconds(self, step_s: float) -> float:
        """How long it takes, if it gets what it needs."""
        return sum(seconds for seconds, _, _ in self.spans(step_s))

    def spans(self, step_s: float) -> Iterator[tuple[float, float, float]]:
        """Its phases: seconds, and the KV tokens and places that it needs on average."""
        reasoning, answer = self.reasoning_tokens, self.answer_tokens
        if reasoning > 0:
            yield reasoning * step_s, self.kv_tokens + reasoning / 2, 1.0
        if answer > 0:
            seconds = answer * step_s
            if self.tau_s is not None:  # there is time until its reader has read it all
                seconds = max(seconds, (answer + self.buffered_tokens) * self.tau_s)
            share = answer * step_s / seconds
            kv_tokens = self.kv_tokens + reasoning + answer / 2
            yield seconds, kv_tokens * share, share


class Bookings:
    """How much of a supply is taken in each slot of the next minutes.

    :param origin_s: when the first slot begins. All times are of the same clock.
    """

    def __init__(self, supply: Supply, origin_s: float) -> None:
        self.supply = supply
        self.origin_s = origin_s
        self._kv_changes = [0.0] * (SLOTS + 2)  # from one slot to the next
        self._place_changes = [0.0] * (SLOTS + 2)
        self._levels: tuple[list[float], list[float]] | None = None

    def with_all_of(self, other: Bookings | None = None) -> Bookings:
        """A copy, with the bookings of another one of the same origin added."""
        copy = Bookings(self.supply, self.origin_s)
        copy._kv_changes = self._kv_changes.copy()
        copy._place_changes = self._place_changes.copy()
        if other is not None:
            copy._kv_changes = list(map(add, self._kv_changes, other._kv_changes))
            copy._place_changes = list(map(add, self._place_changes, other._place_changes))
        return copy

    def advance(self, supply: Supply, origin_s: float) -> None:
        """Begin later, by whole slots; what lies before is forgotten."""
        self.supply = supply
        slots = min(round((origin_s - self.origin_s) / SLOT_S), SLOTS)
        if slots > 0:
            for changes in (self._kv_changes, self._place_changes):
                changes[slots] += sum(changes[:slots])
                changes[:] = changes[slots:] + [0.0] * slots
        self.origin_s = origin_s
        self._levels = None

    def book(self, work: Work, at_s: float, step_s: float, weight: float = 1.0) -> None:
        """Book what a request needs that begins at ``at_s``.

        :param weight: the probability that it comes; below 0 takes a booking back.
        """
        for first, last, into, out, kv_tokens, places in self._spread(work, at_s, step_s):
            for changes, amount in (
                (self._kv_changes, weight * kv_tokens),
                (self._place_changes, weight * places),
            ):
                if first == last:
                    changes[first] += amount * (into + out - 1.0)
                    changes[first + 1] -= amount * (into + out - 1.0)
                else:
                    changes[first] += amount * into
                    changes[first + 1] += amount * (1.0 - into)
                    changes[last] -= amount * (1.0 - out)
                    changes[last + 1] -= amount * out
        self._levels = None

    def fits(self, work: Work, at_s: float, beyond: float = 1.0) -> bool:
        """Whether there is room for a request that begins at ``at_s``.

        A request larger than the whole supply fits where nothing else is booked.

        :param beyond: the part of the supply that may be booked.
        """
        return self._blocked(work, at_s, beyond) is None

    def first_fit(self, work: Work, from_s: float) -> float | None:
        """The first time from ``from_s``, in steps of slots, at which it fits; None: no such."""
        at_s, end_s = from_s, self.origin_s + SLOTS * SLOT_S
        while at_s < end_s:
            shift = self._blocked(work, at_s)
            if shift is None:
                return at_s
            at_s += shift * SLOT_S
        return None

    @property
    def load(self) -> float:
        """The booked share of the supply now, of memory or of places, whichever is more."""
        kv_levels, place_levels = self._booked()
        supply = self.supply
        return max(  # a part of the first slot may be over
            max(kv_levels[:2]) / supply.kv_tokens if supply.kv_tokens else 0.0,
            max(place_levels[:2]) / supply.places if supply.places else 0.0,
        )

    def _blocked(self, work: Work, at_s: float, beyond: float = 1.0) -> int | None:
        """None if the request fits, else by how many slots it would have to begin later, at least.

        A span that meets a full slot does so for every start up to the one that puts it behind it.
        """
        kv_levels, place_levels = self._booked()
        kv_limit, place_limit = beyond * self.supply.kv_tokens, beyond * self.supply.places
        for first, last, _, out, kv_tokens, places in self._spread(work, at_s, self.supply.step_s):
            kv_room = kv_limit - min(kv_tokens, kv_limit) + _TINY
            place_room = place_limit - min(places, place_limit) + _TINY
            stop = min(max(first + 1, last if out == 0.0 else last + 1), SLOTS)
            for slot in range(stop - 1, first - 1, -1):
                if kv_levels[slot] > kv_room or place_levels[slot] > place_room:
                    return slot + 1 - first
        return None

    def _booked(self) -> tuple[list[float], list[float]]:
        if self._levels is None:
            self._levels = list(accumulate(self._kv_changes)), list(accumulate(self._place_changes))
        return self._levels

    def _spread(
        self, work: Work, at_s: float, step_s: float
    ) -> Iterator[tuple[int, int, float, float, float, float]]:
        """The first and last slot of each span, the parts of them that it covers, and amounts."""
        begin = (at_s - self.origin_s) / SLOT_S
        for seconds, kv_tokens, places in work.spans(step_s):
            end = min(begin + seconds / SLOT_S, float(SLOTS))
            since = max(begin, 0.0)
            begin = end
            if since >= end:
                continue
            first, last = int(since), int(end)
            yield first, last, first + 1.0 - since, end - last, kv_tokens, places
