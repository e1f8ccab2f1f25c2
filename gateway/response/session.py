"""One response from submission to its terminal event: the session.

A synchronous state machine without I/O. The router reports what the worker sent, the service
reports the time and what the reader wants. Every call may append events to `log`, which clients
follow. The session owns the token log: all token ids so far, so that any instance can continue the
request.

After every call the owner must look at `next_release_s`, and call `release` at that moment.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from gateway.response import response_object
from gateway.response.delivery import Delivery
from gateway.response.event_log import EventLog
from gateway.response.lifecycle import FINAL, TRANSITIONS, Event, State, advance
from gateway.response.transcript import Transcript
from gateway.schemas import events
from gateway.schemas.errors import ApiError, InvalidRequest
from gateway.schemas.generation import Generation
from workers.messages import ChatMessage, Finish, Pace, TokenRun

_SESSION_BYTES = 8192  # a session without text: its objects, measured
_TOKEN_BYTES = 4  # in an array
_MOST_RUNS = 16  # that are put off: the garbage collector walks over them
_REASONING, _ANSWERING, _DELIVERING = State.REASONING, State.ANSWERING, State.DELIVERING


class Session:
    """State of one response.

    :param owner: who may see and stop it (a fingerprint of the API key; empty without keys).
    :param created_at: Unix time, for the response object only.
    :param now: monotonic seconds; all later ``now`` are of the same clock.
    :param log_bytes: see `EventLog`.
    """

    __slots__ = (
        "_cut_by",
        "_runs",
        "_token_ids",
        "cancelling",
        "created_at",
        "delivery",
        "due_s",
        "error",
        "failovers",
        "finish",
        "finished",
        "forgotten",
        "generation",
        "in_engine",
        "instance_id",
        "log",
        "migrations",
        "model",
        "output_tokens",
        "owner",
        "pause_ends_s",
        "preemptions",
        "prompt_tokens",
        "reasoning_tokens",
        "response_id",
        "state",
        "streaming",
        "thinking",
        "transcript",
        "wheel_slot",
    )

    def __init__(
        self,
        response_id: str,
        generation: Generation,
        *,
        model: str,
        owner: str,
        created_at: float,
        now: float,
        log_bytes: int,
    ) -> None:
        self.response_id = response_id
        self.generation = generation
        self.model = model
        self.owner = owner
        self.created_at = created_at
        self.state = State.QUEUED
        # Of the state: after the terminal event; tokens may still come; an instance generates them.
        self.finished, self.in_engine, self.streaming = False, True, False
        self.instance_id: str | None = None
        self.log = EventLog(log_bytes)
        self.delivery = Delivery(generation.targets, now)
        self.output_tokens = 0  # generated so far, of both phases
        self._token_ids = array("i")  # without those of `_runs`
        # Answering tokens behind others that wait for their time, and when they came.
        self._runs: list[tuple[float, TokenRun]] = []
        self.prompt_tokens = 0
        self.reasoning_tokens = 0
        self.thinking = True  # whether the boundary is still ahead, as far as is known
        self.finish: Finish | None = None
        self.preemptions = 0  # by all instances that reported some
        self.migrations = 0
        self.failovers = 0
        self.error: ApiError | None = None
        self.cancelling = False  # the instance was asked to stop it and has not confirmed yet
        self._cut_by: ApiError | None = None  # why the gateway itself stops it
        self.forgotten = False  # its owner deleted it: keep nothing after its end
        self.pause_ends_s: float | None = None  # when the reader's pause ends by itself
        self.wheel_slot: int | None = None  # its place in the gateway's `ReleaseWheel`
        self.due_s = 0.0  # of its next release, while it has a place there
        self.transcript = Transcript(self.log, response_id)

    # ---- what others ask ----------------------------------------------------------------------

    @property
    def kv_tokens(self) -> int:
        """Tokens whose KV its instance keeps; an estimate until the prompt is counted."""
        if not self.in_engine:
            return 0
        prompt = self.prompt_tokens or sum(
            8 + len(message.content) // 4 for message in self.generation.messages
        )
        return prompt + self.output_tokens

    @property
    def token_ids(self) -> array[int]:
        """The token log: all tokens so far."""
        self._take_in()
        return self._token_ids

    @property
    def answering_tokens(self) -> int:
        """Tokens generated after the phase boundary."""
        return self.output_tokens - self.reasoning_tokens

    def within_slo(self, slo_qoe: float, now: float) -> bool:
        """Whether the QoE of its reader is at least ``slo_qoe``."""
        return self.delivery.qoe_now(now) >= slo_qoe

    @property
    def reasoning_text(self) -> str:
        """The reasoning so far."""
        return self.transcript.reasoning.decoded()

    @property
    def answer_text(self) -> str:
        """The answer as far as the reader has it."""
        return self.transcript.answer.decoded()

    @property
    def conversation(self) -> tuple[ChatMessage, ...]:
        """The messages so far, with the answer as the reader has it, without instructions.

        Instructions belong to one request, so a later request does not inherit them.
        """
        messages = self.generation.messages
        if self.generation.instructions:
            messages = messages[1:]
        return (*messages, ChatMessage(role="assistant", content=self.answer_text))

    @property
    def pace(self) -> Pace:
        """The reader's pace, for the scheduler."""
        return Pace(
            tau_s=self.delivery.tpot_s,
            paced=self.delivery.paced,
            paused=self.delivery.paused,
        )

    @property
    def status(self) -> str:
        """The public status."""
        match self.state:
            case State.FAILED:
                return "failed"
            case State.DONE | State.CANCELLED:
                return "incomplete" if self.incomplete_reason else "completed"
            case _:
                return "in_progress"

    @property
    def incomplete_reason(self) -> str | None:
        """Why the response ended incomplete; None if it did not."""
        if self.state is State.CANCELLED:
            return "cancelled"
        if self.state is not State.DONE or self.finish is None:
            return None
        if self.finish.reason == "length" and not self._has_forced_lengths():
            return "max_output_tokens"
        return None if self.transcript.answer.shown else "no_answer"

    @property
    def size_bytes(self) -> int:
        """Memory that it takes without its events; an estimate."""
        texts = (self.transcript.reasoning.text, self.transcript.answer.text)
        characters = sum(map(len, texts)) + sum(len(m.content) for m in self.generation.messages)
        return _SESSION_BYTES + _TOKEN_BYTES * self.output_tokens + characters

    def next_release_s(self) -> float | None:
        """When `release` is due; None if no token waits."""
        if self.cancelling or self.finished:
            return None
        return self.delivery.schedule.next_release_s()

    def check_resume(self, starting_after: int) -> None:
        """Raise `InvalidRequest` if no event can follow ``starting_after`` (-1: from the start)."""
        last = self.log.next_sequence - 1
        if not -1 <= starting_after <= last:
            raise InvalidRequest(
                f"starting_after must be from -1 to {last}, the last event so far, "
                f"not {starting_after}.",
                param="starting_after",
            )
        if self.finished and starting_after == last:
            raise InvalidRequest(
                f"Response '{self.response_id}' has ended; nothing comes after {last}.",
                param="starting_after",
                code="nothing_to_resume",
            )

    # ---- what the worker reports --------------------------------------------------------------

    def accepted(self, instance_id: str, prompt_tokens: int, reasoning: bool) -> None:
        """An instance has queued the request. The first acceptance creates the response.

        :param reasoning: whether the model reasons after this prompt. After a move, some of that
            reasoning may be in the token log already.
        """
        first = self.state is State.QUEUED
        if first:
            self.thinking = reasoning
        self._advance(Event.REASONING_BEGAN if self.thinking else Event.ANSWERING_BEGAN)
        self.instance_id = instance_id
        if not first:
            return
        self.prompt_tokens = prompt_tokens
        self.log.append("response.created", {"response": self.response_object()})
        self.log.append("response.in_progress", {"response": self.response_object()})

    def tokens(self, run: TokenRun, now: float) -> bool:
        """New tokens, and perhaps the end, as the engine delivered them.

        The caller has checked that the run follows the token log. When an instance gives the
        request up (finish ``error`` or ``cancelled``), the caller passes the run without its
        finish, because the request goes on elsewhere.

        :return: whether the state or `next_release_s` may have changed.
        """
        if not self.in_engine:
            return True  # the response ended while these tokens were on their way
        self.output_tokens += len(run.token_ids)
        if (
            self.wheel_slot is not None
            and self.state is _ANSWERING
            and run.finish is None
            and len(self._runs) < _MOST_RUNS
        ):
            # Others wait for their time, and these are behind them. They are taken in when the next
            # token is released: then all that this touches is in the processor's cache once.
            self._runs.append((now, run))
            return False
        self._take_in()
        texts: Sequence[str] = run.texts
        delivery = self.delivery
        if texts:
            self._token_ids.extend(run.token_ids)
            if delivery.first_token_s is None:
                delivery.first_token_s = now
            if self.state is _REASONING:
                if run.boundary is None:
                    self.reasoning_tokens += len(texts)
                    self.transcript.add_thoughts(texts)
                    texts = ()
                else:
                    texts = self._last_thoughts(texts, run.boundary, now)
            if texts and not self.cancelling:
                waited = delivery.buffered_tokens
                self._add_answer(texts, now)
                if waited and delivery.paced and run.finish is None:
                    return False  # they are behind those that wait for their time
        elif run.finish is None:
            return False
        if run.finish is not None:
            self._generated(run.finish, now)
        elif not texts:
            return False
        self.release(now)
        return True

    def left(self) -> None:
        """Its instance has it no longer; it goes on elsewhere, from the token log."""
        self._take_in()
        if self.state in (State.REASONING, State.ANSWERING):
            self._advance(Event.LEFT)

    # ---- the reader and the clock -------------------------------------------------------------

    def release(self, now: float, early_s: float = 0.0) -> None:
        """Send the reader the due tokens; end the response after its last one.

        :param early_s: how much before its time a token may be sent.
        """
        if self.cancelling or self.finished:
            return
        if self._runs:
            self._take_in()
        delivery = self.delivery
        if deltas := delivery.release(now, early_s):
            self._show(deltas, now)
        if self.state is _DELIVERING and delivery.buffered_tokens == 0:
            self._advance(Event.DELIVERED)
            self._end(now)

    def set_pace(
        self, tpot_s: float | None, paused: bool | None, now: float, longest_pause_s: float
    ) -> None:
        """Change the pace, pause or resume; None leaves a setting as it is.

        A pause ends by itself ``longest_pause_s`` after it began. A second request for a pause does
        not prolong it.
        """
        self._take_in()
        if paused and not self.delivery.paused:
            self.pause_ends_s = now + longest_pause_s
        elif paused is False:
            self.pause_ends_s = None
        self.delivery.set_pace(tpot_s, paused, now)

    def cancel(self, now: float) -> bool:
        """Stop the response. True if the caller must cancel it at its instance, which confirms."""
        if self.finished:
            return False
        self._take_in()
        if self.in_engine:
            self.cancelling = True
            return True
        self._cancelled(now)
        return False

    def cut_short(self, error: ApiError, now: float) -> bool:
        """Stop the response because the gateway cannot wait: as `cancel`, but it fails.

        A response whose tokens are all generated is complete. Its reader gets the rest at once.
        """
        if self.state is State.DELIVERING:
            self._show(self.delivery.flush(now), now)
            self._advance(Event.DELIVERED)
            self._end(now)
            return False
        if not self.cancelling:
            self._cut_by = error
        return self.cancel(now)

    def confirm_cancel(self, now: float) -> None:
        """End a cancelled response, because no instance has it any longer."""
        if not self.finished:
            self._cancelled(now)

    def fail(self, error: ApiError, now: float) -> None:
        """End the response with an error, after sending the rest of the generated answer."""
        if self.finished:
            return
        self._take_in()
        if self.cancelling:
            self._cancelled(now)
            return
        self._show(self.delivery.flush(now), now)
        self.error = error
        self._advance(Event.FAIL)
        self._end(now)

    def abandon(self, error: ApiError, now: float) -> None:
        """End a response that even `fail` cannot end, because something in it is broken.

        The rest of the answer is lost, and the response object holds only what is safe to read.
        """
        self.error = error
        self._enter(State.FAILED)
        self.delivery.ended_s = now
        if not self.log.closed:
            body = response_object.failed_object(self)
            self.log.append(events.FAILED, {"response": body}, terminal=True)

    # ---- inside -------------------------------------------------------------------------------

    def _has_forced_lengths(self) -> bool:
        """Whether it reached the lengths that the client prescribed."""
        forced = self.generation.forced_lengths
        if forced is None:
            return False
        return self.output_tokens >= forced.reasoning_tokens + forced.answer_tokens

    def _advance(self, event: Event) -> None:
        self._enter(advance(TRANSITIONS, self.state, event))

    def _enter(self, state: State) -> None:
        self.state = state
        self.finished = state in FINAL
        self.in_engine = not self.finished and state is not _DELIVERING
        self.streaming = state is _ANSWERING or state is _REASONING

    def _boundary(self, now: float) -> None:
        self._advance(Event.BOUNDARY)
        self.thinking = False
        self.delivery.boundary(now)
        self.transcript.close_reasoning("completed", self.delivery.measurements().reasoning_s)

    def _take_in(self) -> None:
        """Take in the runs that were put off."""
        runs, self._runs = self._runs, []
        for now, run in runs:
            self._token_ids.extend(run.token_ids)
            self._add_answer(run.texts, now)

    def _add_answer(self, texts: Sequence[str], now: float) -> None:
        add = self.transcript.answer.add
        for text in texts:
            if tokens := add(text):
                self.delivery.arrived(tokens, now)

    def _last_thoughts(self, texts: Sequence[str], boundary: int, now: float) -> Sequence[str]:
        """Take in the run that ends the reasoning, and return the texts after that."""
        thoughts = texts[: boundary + 1]
        self.reasoning_tokens += len(thoughts)
        self.transcript.add_thoughts(thoughts)
        self._boundary(now)
        return texts[boundary + 1 :]

    def _show(self, deltas: int, now: float) -> None:
        """Send the next deltas of the answer."""
        if deltas:
            delivery, transcript = self.delivery, self.transcript
            answer = transcript.answer
            tokens = deltas if answer.odd is None else answer.tokens_of_next(deltas)
            delivery.released(tokens, now)
            transcript.show_answer(deltas, delivery.buffered_tokens, delivery.last_slack_s)

    def _generated(self, finish: Finish, now: float) -> None:
        self.finish = finish
        self.preemptions += finish.preemptions
        if self.cancelling:
            self._cancelled(now)
        elif finish.reason == "handed_over":
            self.left()
        else:
            self._advance(Event.GENERATED)

    def _cancelled(self, now: float) -> None:
        if self._cut_by is None:
            self._advance(Event.CANCEL)
        else:
            self._show(self.delivery.flush(now), now)
            self.error = self._cut_by
            self._advance(Event.FAIL)
        self._end(now)

    def _end(self, now: float) -> None:
        self.delivery.ended_s = now
        self.transcript.close_reasoning("incomplete", None)
        self.transcript.close_answer("completed" if self.status == "completed" else "incomplete")
        if self.state is State.FAILED:
            type_ = events.FAILED
        else:
            type_ = events.INCOMPLETE if self.incomplete_reason else events.COMPLETED
        self.log.append(type_, {"response": self.response_object()}, terminal=True)

    def response_object(self) -> dict[str, Any]:
        """The Responses API's response object as it stands."""
        return response_object.response_object(self)

    def measurements(self) -> dict[str, Any]:
        """The ``timing`` and ``qoe`` objects."""
        return response_object.measurements(self)

    def usage(self) -> dict[str, Any]:
        """Token counts of the Responses API."""
        return response_object.usage(self)
