"""What happened to one request, as marks, and its details for a viewer who asks.

The watch writes a mark when it sees a change anyway: a few numbers for each request. Details are
computed while a viewer follows the request, and at no other time. Neither has any of its text.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

from gateway.response.session import Session
from gateway.response.tally import LIVE_STATES

MARKS: Final = (*LIVE_STATES, "waits", "goes_on", "dry", "refilled")
_QUEUED, _REASONING, _ANSWERING = (
    MARKS.index(state) for state in ("queued", "reasoning", "answering")
)
WAITS, GOES_ON, DRY, REFILLED = (MARKS.index(name) for name in MARKS[len(LIVE_STATES) :])
MOST_MARKS: Final = 64  # of one request; then the oldest goes, but for the first
_NUMBERS = 3  # of one mark: when, what, and the instance


class Life:
    """The marks of one request, in the order of time."""

    __slots__ = ("_numbers", "dropped", "watched_s")

    def __init__(self, session: Session, place: int, state: int, now: float) -> None:
        """Take over what the session knows of the time before it was seen."""
        delivery = session.delivery
        self._numbers = array("d", (delivery.submitted_s, _QUEUED, -1))
        self.dropped = 0  # marks
        self.watched_s = now  # since when nothing is missed
        if session.output_tokens and delivery.first_token_s is not None:
            thought = session.reasoning_tokens or state == _REASONING
            self.add(delivery.first_token_s, _REASONING if thought else _ANSWERING, place)
            if thought and delivery.boundary_s is not None:
                self.add(delivery.boundary_s, _ANSWERING, place)
        if (state, place) != self._last:
            self.add(now, state, place)

    def changed(self, session: Session, state: int, place: int, now: float) -> None:
        """Note another state, or another instance; at the time that the session knows of it."""
        delivery, (before, was_at) = session.delivery, self._last
        begun_s = now if delivery.first_token_s is None else delivery.first_token_s
        if before == _QUEUED and state > _REASONING and session.reasoning_tokens:
            self.add(begun_s, _REASONING, place)  # it was over before it was seen
            before = _REASONING
        at = now
        if before == _QUEUED and state in (_REASONING, _ANSWERING):
            at = begun_s
        elif before == _REASONING and state == _ANSWERING and delivery.boundary_s is not None:
            at = delivery.boundary_s
        if (state, place) != (before, was_at):
            self.add(at, state, place)

    def add(self, at: float, what: int, place: int) -> None:
        """Note something; not before what was noted last."""
        numbers = self._numbers
        if len(numbers) >= MOST_MARKS * _NUMBERS:
            del numbers[_NUMBERS : 2 * _NUMBERS]
            self.dropped += 1
        numbers.extend((max(at, numbers[-_NUMBERS]), what, place))

    def marks(self, names: list[str]) -> list[list[Any]]:
        """Each as seconds since the submission, what, and the name of the instance or None."""
        numbers = self._numbers
        return [
            [
                round(numbers[n] - numbers[0], 3),
                MARKS[int(numbers[n + 1])],
                None if numbers[n + 2] < 0 else names[int(numbers[n + 2])],
            ]
            for n in range(0, len(numbers), _NUMBERS)
        ]

    @property
    def _last(self) -> tuple[int, int]:
        """The last state and instance."""
        numbers = self._numbers
        for n in range(len(numbers) - _NUMBERS, -1, -_NUMBERS):
            if numbers[n + 1] < len(LIVE_STATES):
                return int(numbers[n + 1]), int(numbers[n + 2])
        return _QUEUED, -1


def details(
    number: int, session: Session, life: Life, names: list[str], now: float
) -> dict[str, Any]:
    """A request for a viewer who follows it.

    :param names: of the instances, by their number.
    """
    delivery = session.delivery
    ended_s = delivery.ended_s if session.finished else None
    ttft_s, ttfat_s = delivery.times_to_first()
    if not delivery.began:
        qoe = None
    elif session.finished:
        qoe = delivery.measurements().qoe
    else:
        qoe = delivery.qoe_now(now)
    ahead_s = None if session.finished else ahead_of(session, now)
    return {
        "number": number,
        "response": session.response_id,
        "status": session.status,
        "instance": session.instance_id,
        "created_at": round(session.created_at, 3),
        "age_s": round((now if ended_s is None else ended_s) - delivery.submitted_s, 3),
        "watched_s": round(max(0.0, life.watched_s - delivery.submitted_s), 3),
        "marks": life.marks(names),
        "marks_dropped": life.dropped,
        "tokens": {
            "prompt": session.prompt_tokens,
            "reasoning": session.reasoning_tokens,
            "answering": session.answering_tokens,
            "calling": session.calling_tokens,
            "waiting": session.waiting_tokens,
        },
        "ttft_s": ttft_s,
        "ttfat_s": ttfat_s,
        "qoe": None if qoe is None else round(qoe, 4),
        "ahead_s": None if ahead_s is None else round(ahead_s, 2),
        "tpot_s": delivery.tpot_s if delivery.paced else None,
        "paused": delivery.paused,
        "moves": session.migrations,
        "failovers": session.failovers,
        "preemptions": session.preemptions,
    }


def ahead_of(session: Session, now: float) -> float | None:
    """Seconds of text that its reader has ahead; None before the answer and while paused."""
    delivery = session.delivery
    slack_s = delivery.slack_s(now) if delivery.began else None
    if slack_s is None:
        return None
    unread = session.waiting_tokens - delivery.buffered_tokens  # put off: not in the schedule
    return slack_s + unread * delivery.tau_s
