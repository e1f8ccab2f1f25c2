"""Keeps each request's place in the policy's queues, and its reader, as its tokens come.

Also keeps the time of the next decision, which some of these events bring forward. It decides what
a change of phase means for the place of a request, but not who runs (`workers.policy.decide`).
Pure: knows no engine and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from workers.messages import Pace
from workers.policy.decide import queue_of
from workers.policy.phase import Phase, PhaseTracker
from workers.policy.settings import PolicySettings
from workers.scheduler.reader import Reader
from workers.scheduler.request_state import PhaseState, QueueState

_ANSWERING = Phase.ANSWERING  # members of an enum are slow to reach


def queue_state_of(state: PhaseState) -> QueueState:
    """The queue state of a request that a policy schedules."""
    queue_state = state.queue_state
    assert queue_state is not None, "every request of a dispatcher has arrived"
    return queue_state


class Queues:
    """The queues of one scheduler."""

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self._calls_are_read = settings.calls == "answering"
        self._arrivals = 0
        self._positions = 0
        self.review_at = 0.0  # the next decision is made at this time or later
        self._review_at_least = 0.0  # the earliest time of a decision, whatever happens

    # ---- the policy changes

    def change(self, settings: PolicySettings, states: Iterable[PhaseState]) -> None:
        """Go on by another policy, from the next step on.

        :raises ValueError: if it takes calls for something else; what readers have read depends
            on that.
        """
        if settings.calls != self._settings.calls:
            raise ValueError("`calls` cannot change while there are requests")
        self._settings = settings
        self.review_at = self._review_at_least = 0.0
        for state in states:
            state.settle()
            queue_state = queue_state_of(state)
            queue = queue_of(settings, queue_state.phase, _urgent_tokens(state.tracker))
            if queue != queue_state.queue:
                queue_state.queue, queue_state.position = queue, self._next_position()
            queue_state.view = None
            state.quiet = self._quiet_tokens(state, queue_state)

    def joined(self, state: PhaseState, now: float) -> QueueState:
        """A request that vLLM's own order has scheduled so far; :return: its place.

        It has used up the quanta of its tokens. Its reader began with the first text, and has read
        without a pause since then.
        """
        state.settle()
        queue_state, tracker = self.arrived(state, state.user, now), state.tracker
        quantum, urgent = self._settings.quantum_tokens, _urgent_tokens(tracker)
        queue_state.queue = queue_of(self._settings, queue_state.phase, urgent)
        if queue_state.phase is _ANSWERING:
            queue_state.urgent_quanta = urgent // quantum
            urgent = tracker.answering_tokens
            queue_state.boundary_at = now if state.text_since is None else state.text_since
        queue_state.quanta = urgent // quantum
        queue_state.left_tokens = quantum - urgent % quantum
        queue_state.run_tokens = urgent
        if tokens := self._read_tokens(state):
            since = now if state.text_since is None else state.text_since
            reader = queue_state.reader = Reader(self._tau_s(state.pace), False, since)
            if not self._is_read(tracker.phase):
                reader.text_ends(tokens, now)
            if state.pace is not None and state.pace.paused:
                reader.pace(self._tau_s(state.pace), True, now)
        state.quiet = self._quiet_tokens(state, queue_state)
        return queue_state

    # ---- what happens to requests

    def arrived(self, state: PhaseState, user: str | None, now: float) -> QueueState:
        """A request is about to be queued; :return: its new place."""
        phase = self._scheduled_phase(state.tracker.phase, 0)
        self._arrivals += 1
        self._review_soon(now)
        queue_state = QueueState(
            arrival=self._arrivals,
            user=user,
            waiting_since=now,
            queue=queue_of(self._settings, phase, 0),
            position=self._next_position(),
            left_tokens=self._settings.quantum_tokens,
            phase=phase,
            boundary_at=now if phase is _ANSWERING else None,
        )
        state.queue_state = queue_state
        state.quiet = self._quiet_tokens(state, queue_state)
        return queue_state

    def produced(self, state: PhaseState, tokens: int, before: Phase, now: float) -> None:
        """A request got tokens that the policy must note.

        :param before: its phase before them.
        """
        queue_state_of(state).count(tokens)
        self.turned(state, before, now)

    def turned(self, state: PhaseState, before: Phase, now: float) -> None:
        """A request may have come to another phase, or to the end of its quantum."""
        queue_state, tracker = queue_state_of(state), state.tracker
        if before is not tracker.phase:
            called = before is Phase.CALLING and tracker.phase is _ANSWERING
            more = self._settings.after_call_tokens if called and not self._calls_are_read else 0
            queue_state.after_call = more
        self._note_reader(state, queue_state, before, now)
        self._note_phase(state, queue_state, now)
        queue = queue_of(self._settings, queue_state.phase, _urgent_tokens(tracker))
        used_up = queue_state.left_tokens <= 0
        if used_up:
            queue_state.quanta += 1
        if used_up or queue != queue_state.queue:
            queue_state.queue = queue
            queue_state.position = self._next_position()
            queue_state.left_tokens = self._settings.quantum_tokens
        queue_state.view = None
        state.quiet = self._quiet_tokens(state, queue_state)

    def preempted(self, state: PhaseState, now: float) -> None:
        """A running request gave up its memory, by the policy's decision or vLLM's."""
        state.settle()
        queue_state = queue_state_of(state)
        queue_state.run_tokens = 0
        queue_state.waiting_since = now
        queue_state.view = None

    def paced(self, state: PhaseState, pace: Pace, now: float) -> None:
        """The reader changed pace, paused or resumed."""
        queue_state = queue_state_of(state)
        queue_state.view = None
        self._review_soon(now)
        if queue_state.reader is not None:
            queue_state.reader.pace(self._tau_s(pace), pace.paused, now)

    # ---- what the policy sees

    def dry_at(self, state: PhaseState) -> float | None:
        """When the reader runs out of tokens; None: not in sight, or the model does not answer."""
        queue_state = queue_state_of(state)
        if queue_state.phase is not _ANSWERING:
            return None
        if queue_state.reader is not None:
            return queue_state.reader.dry_at(self._read_tokens(state))
        if queue_state.boundary_at is None or (state.pace is not None and state.pace.paused):
            return None
        return queue_state.boundary_at + self._settings.ttfat_s  # by then the first token is due

    def plan_review(self, requests: int, now: float) -> None:
        """Set the time of the next decision.

        :param requests: number of requests that this decision is about.
        """
        settings = self._settings
        pause_s = max(settings.review_s, requests * settings.review_s_per_request)
        self.review_at = now + min(pause_s, settings.low_water_s / 4)
        self._review_at_least = now + requests * settings.review_least_s_per_request

    def _review_soon(self, now: float) -> None:
        """An event has made the last decision out of date: decide again soon."""
        self.review_at = min(self.review_at, max(now, self._review_at_least))

    # ---- what a change of phase means

    def _note_phase(self, state: PhaseState, queue_state: QueueState, now: float) -> None:
        """Between thoughts and calls on one side and answers on the other, the class changes."""
        was = queue_state.phase
        queue_state.phase = self._scheduled_phase(state.tracker.phase, queue_state.after_call)
        answers = queue_state.phase is _ANSWERING
        if answers == (was is _ANSWERING):
            return
        self._review_soon(now)  # its rank is still that of the other class
        if answers:
            queue_state.urgent_quanta, queue_state.quanta = queue_state.quanta, 0
        else:
            queue_state.quanta = queue_state.urgent_quanta

    def _note_reader(
        self, state: PhaseState, queue_state: QueueState, before: Phase, now: float
    ) -> None:
        """Text begins and ends for the reader; the first token of it starts the reader's clock."""
        reads = self._is_read(state.tracker.phase)
        turned = reads != self._is_read(before)
        tokens = self._read_tokens(state)
        if queue_state.reader is None and tokens:
            paused = state.pace is not None and state.pace.paused
            queue_state.reader = Reader(self._tau_s(state.pace), paused, now)
            turned = not reads  # its text may have ended with these same tokens
        if not turned:
            return
        if queue_state.reader is None:
            queue_state.boundary_at = now if reads else None
        elif reads:
            queue_state.reader.text_begins(now)
        else:
            queue_state.reader.text_ends(tokens, now)

    def _quiet_tokens(self, state: PhaseState, queue_state: QueueState) -> int:
        """Tokens until the policy must note something: the quantum, the queue, the reader."""
        left = queue_state.left_tokens
        if queue_state.reader is None and self._is_read(state.tracker.phase):
            return 1
        if queue_state.after_call:
            return min(left, queue_state.after_call)
        if queue_state.phase is _ANSWERING:
            return left
        to_demotion = self._settings.demotion_tokens - _urgent_tokens(state.tracker)
        return min(left, to_demotion) if to_demotion > 0 else left

    def _scheduled_phase(self, phase: Phase, after_call: int) -> Phase:
        """The phase as the policy sees it.

        :param after_call: further tokens that count to the call before them.
        """
        if phase is Phase.CALLING and self._calls_are_read:
            return _ANSWERING
        return Phase.CALLING if after_call and phase is _ANSWERING else phase

    def _is_read(self, phase: Phase) -> bool:
        return phase is _ANSWERING or (self._calls_are_read and phase is Phase.CALLING)

    def _read_tokens(self, state: PhaseState) -> int:
        """Tokens that the reader has got, or will."""
        tracker = state.tracker
        calls = tracker.calling_tokens if self._calls_are_read else 0
        return tracker.answering_tokens + calls

    def _tau_s(self, pace: Pace | None) -> float:
        return self._settings.tau_s if pace is None else pace.tau_s

    def _next_position(self) -> int:
        self._positions += 1
        return self._positions


def _urgent_tokens(tracker: PhaseTracker) -> int:
    return tracker.reasoning_tokens + tracker.calling_tokens
