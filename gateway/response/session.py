"""One response from submission to its terminal event: the session.

A synchronous state machine without I/O. The router reports what the worker sent, the service
reports the time and what the reader wants. Every call may append events to `log`, which clients
follow. The session owns the token log: all token ids so far, so that any instance can continue the
request.

After every call the owner must look at `next_release_s`, and call `release` at that moment.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Sequence
from typing import Any

from gateway.response import response_object
from gateway.response.delivery import Delivery
from gateway.response.event_log import EventLog
from gateway.response.lifecycle import FINAL, GENERATING, TRANSITIONS, Event, State, advance
from gateway.response.output_item import OutputItem
from gateway.response.parts import Unread, by_token, logprob_json
from gateway.response.transcript import Transcript
from gateway.schemas import events
from gateway.schemas.errors import ApiError, InvalidRequest
from gateway.schemas.generation import Generation
from workers.messages import (
    ChatMessage,
    Finish,
    Pace,
    PhaseName,
    Piece,
    TokenLogprob,
    TokenRun,
)

_SESSION_BYTES = 8192  # a session without text: its objects, measured
_TOKEN_BYTES = 4  # in an array
_MOST_PUT_OFF = 48  # entries for 16 tokens: the garbage collector walks over them
_REASONING, _ANSWERING, _DELIVERING = State.REASONING, State.ANSWERING, State.DELIVERING
_BEGAN: dict[PhaseName, Event] = {
    "reasoning": Event.REASONING_BEGAN,
    "answering": Event.ANSWERING_BEGAN,
    "calling": Event.CALLING_BEGAN,
}
_TURNS: dict[PhaseName, Event] = {
    "reasoning": Event.TO_REASONING,
    "answering": Event.TO_ANSWERING,
    "calling": Event.TO_CALLING,
}


class _SessionHot:
    """What is read for each token, next to each other in memory."""

    __slots__ = (
        "_put_off",
        "cancelling",
        "delivery",
        "due_s",
        "finished",
        "log",
        "output_tokens",
        "state",
        "streaming",
        "transcript",
        "wheel_slot",
    )


class Session(_SessionHot):
    """State of one response.

    :param owner: who may see and stop it (the API key's id or fingerprint; empty without keys).
    :param created_at: Unix time, for the response object only.
    :param now: monotonic seconds; all later ``now`` are of the same clock.
    :param log_bytes: see `EventLog`.
    :param x_request_id: of the HTTP request that asked for it, for the log.
    """

    __slots__ = (
        "_cut_by",
        "_token_ids",
        "calling_tokens",
        "created_at",
        "error",
        "failovers",
        "finish",
        "first_noted",
        "forgotten",
        "generation",
        "in_engine",
        "instance_id",
        "migrations",
        "model",
        "owner",
        "pause_ends_s",
        "phase",
        "preemptions",
        "prompt_tokens",
        "read_reported",
        "read_tokens",
        "reasoning_tokens",
        "response_id",
        "x_request_id",
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
        x_request_id: str | None = None,
    ) -> None:
        self.response_id = response_id
        self.generation = generation
        self.model = model
        self.owner = owner
        self.x_request_id = x_request_id
        self.created_at = created_at
        self.state = State.QUEUED
        # Of the state: after the terminal event; tokens may still come; an instance generates them.
        self.finished, self.in_engine, self.streaming = False, True, False
        self.instance_id: str | None = None
        self.log = EventLog(log_bytes)
        self.delivery = Delivery(generation.targets, now)
        self.output_tokens = 0  # generated so far, of all phases
        self._token_ids = array("i")  # without those of `_put_off`
        # Answering tokens behind others that wait for their time: for each token when it came, its
        # id and its text. One flat list, because the collector walks over objects.
        self._put_off: list[Any] = []
        self.prompt_tokens = 0
        self.reasoning_tokens = 0
        self.calling_tokens = 0
        self.phase: PhaseName = "reasoning"  # of the next token, as far as is known
        self.finish: Finish | None = None
        self.preemptions = 0  # by all instances that reported some
        self.migrations = 0
        self.failovers = 0
        self.error: ApiError | None = None
        self.cancelling = False  # the instance was asked to stop it and has not confirmed yet
        self._cut_by: ApiError | None = None  # why the gateway itself stops it
        self.forgotten = False  # its owner deleted it: keep nothing after its end
        self.read_tokens: int | None = None  # of the answer, as the client said last
        self.first_noted = False  # its first released token was counted
        self.read_reported = False  # the client has said with what QoE it was read
        self.pause_ends_s: float | None = None  # when the reader's pause ends by itself
        self.wheel_slot: int | None = None  # its place in the gateway's `ReleaseWheel`
        self.due_s = 0.0  # of its next release, while it has a place there
        self.transcript = Transcript(
            self.log,
            response_id,
            generation.tool_names,
            seal=generation.seal,
            summary=generation.summary,
        )

    # ---- what others ask ----------------------------------------------------------------------

    @property
    def kv_tokens(self) -> int:
        """Tokens whose KV its instance keeps; an estimate until the prompt is counted."""
        if not self.in_engine:
            return 0
        prompt = self.prompt_tokens or self.generation.prompt_tokens_guess
        return prompt + self.output_tokens

    @property
    def token_ids(self) -> array[int]:
        """The token log: all tokens so far."""
        self._take_in()
        return self._token_ids

    @property
    def answering_tokens(self) -> int:
        """Tokens of the answer that were generated."""
        return self.output_tokens - self.reasoning_tokens - self.calling_tokens

    @property
    def waiting_tokens(self) -> int:
        """Tokens of the answer that wait for their time."""
        return self.delivery.buffered_tokens + len(self._put_off) // 3

    @property
    def thinking(self) -> bool:
        """Whether it thinks, as far as is known."""
        return self.phase == "reasoning"

    def within_slo(self, slo_qoe: float, now: float) -> bool:
        """Whether the QoE of its reader is at least ``slo_qoe``."""
        return self.delivery.qoe_now(now) >= slo_qoe

    @property
    def reasoning_text(self) -> str:
        """The reasoning so far."""
        return self.transcript.text("reasoning")

    @property
    def answer_text(self) -> str:
        """The answer as far as the reader has it."""
        return self.transcript.text("answer")

    @property
    def conversation(self) -> tuple[ChatMessage, ...]:
        """The messages so far, with the output as the reader has it, without instructions.

        Instructions belong to one request, so a later request does not inherit them.
        """
        messages = self.generation.messages
        if self.generation.instructions:
            messages = messages[1:]
        answer = ChatMessage(
            role="assistant",
            content=self.answer_text,
            reasoning=self.reasoning_text or None,
            tool_calls=self.transcript.calls(whole=True),
        )
        return (*messages, answer)

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
        shown = self.transcript.shown
        return None if shown("answer") or shown("call") else "no_answer"

    @property
    def size_bytes(self) -> int:
        """Memory that it takes without its events; an estimate."""
        texts = self.transcript.size_bytes + self.generation.input_characters
        texts += len(self.generation.input_items)
        return _SESSION_BYTES + _TOKEN_BYTES * self.output_tokens + texts

    def next_release_s(self) -> float | None:
        """When `release` is due; None if no token waits."""
        if self.cancelling or self.finished:
            return None
        delivery = self.delivery
        due_s = delivery.next_release_s()
        if (
            due_s is None
            and delivery.lead_s
            and self.state is _DELIVERING
            and not delivery.buffered_tokens
        ):
            return delivery.shown_s()  # then it ends
        return due_s

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
            self.phase = "reasoning" if reasoning else "answering"
        self._advance(_BEGAN[self.phase])
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
        waits = self.wheel_slot is not None and run.finish is None and not run.turns
        if waits and self.put_off(run, now):
            return False
        if not self.in_engine:
            return True  # the response ended while these tokens were on their way
        tokens = len(run.token_ids)
        self.output_tokens += tokens
        if self._put_off:
            self._take_in()
        delivery = self.delivery
        look = False  # whether text of the answer may be due, or a phase ended
        if tokens:
            self._token_ids.extend(run.token_ids)
            if self.output_tokens == tokens:  # the first ones
                delivery.first_token_s = now
            if run.turns or run.pieces is not None or run.logprobs:
                self._take_parts(run, now)
                look = True
            elif self.state is not _ANSWERING:
                self._unread(run.texts)
            elif not self.cancelling:
                waited = delivery.buffered_tokens
                self._add_answer(run.texts, now)
                look = not (waited and delivery.paced)  # else they are behind those that wait
        if run.finish is not None:
            self._generated(run.finish, now)
        elif not look:
            return False
        self.release(now)
        return True

    def put_off(self, run: TokenRun, now: float) -> bool:
        """Do as `tokens`, if the run is behind tokens that wait for their time.

        Runs like this are taken in together, when the last of the others is released. The caller
        has checked that `wheel_slot` is set, and that the run has no finish and no turn.

        :return: whether it was put off. Else nothing has happened.
        """
        put_off = self._put_off
        if self.state is not _ANSWERING or run.logprobs or len(put_off) >= _MOST_PUT_OFF:
            return False
        texts = run.texts
        if len(texts) == 1:
            put_off += (now, run.token_ids[0], texts[0])
            self.output_tokens += 1
            return True
        if run.pieces is not None:
            return False
        for token_id, text in zip(run.token_ids, texts, strict=True):
            put_off += (now, token_id, text)
        self.output_tokens += len(texts)
        return True

    def left(self) -> None:
        """Its instance has it no longer; it goes on elsewhere, from the token log."""
        self._take_in()
        if self.streaming:
            self._advance(Event.LEFT)

    # ---- the reader and the clock -------------------------------------------------------------

    def release(self, now: float, early_s: float = 0.0) -> float | None:
        """Send the reader the due tokens; end the response after its last one.

        :param early_s: how much before its time a token may be sent.
        :return: as `next_release_s`.
        """
        delivery, item = self.delivery, self.transcript.head
        if item is not None and item.plain and delivery.paced and not self.cancelling:
            # The short way, for nearly every token.
            behind = len(self._put_off) // 3
            slack_s = delivery.pop_next(now, early_s, behind)
            if slack_s is not None:
                delivery.buffered_tokens = buffered = delivery.buffered_tokens - 1
                self.log.add_plain(item, buffered + behind, slack_s)
                if buffered == 1 and behind:
                    self._take_in()  # so that another one waits at the next release
                return delivery.then_s
        if self.cancelling or self.finished:
            return None
        if self._put_off and delivery.buffered_tokens < 2:
            self._take_in()
        if delivery.lead_s:
            while delivery.pop_due(now, early_s, most=1):
                self._show(1, now)
        elif deltas := delivery.release(now, early_s):
            self._show(deltas, now)
        due_s = delivery.next_release_s()
        if due_s is None:
            if self._put_off:
                self._take_in()
                return self.release(now, early_s)
            if self.state is _DELIVERING and delivery.buffered_tokens == 0:
                if delivery.lead_s:
                    ends_s = delivery.shown_s()
                    if ends_s is None or ends_s > now + early_s:
                        return ends_s
                self._advance(Event.DELIVERED)
                self._end(now)
        return due_s

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

    def cancel(self, now: float, read_tokens: int | None = None) -> bool:
        """Stop the response. True if the caller must cancel it at its instance, which confirms.

        :param read_tokens: of the answer that the reader has read, for a client that shows them
            later than it gets them. The answer is kept up to there.
        """
        if self.finished:
            return False
        if read_tokens is not None:
            self.read_tokens = read_tokens
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
        with contextlib.suppress(Exception):  # it may be what is broken
            self.transcript.head = None  # nothing more is shown
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
        total = forced.reasoning_tokens + forced.answer_tokens + forced.call_tokens
        return self.output_tokens >= total

    def _advance(self, event: Event) -> None:
        self._enter(advance(TRANSITIONS, self.state, event))

    def _enter(self, state: State) -> None:
        self.state = state
        self.finished = state in FINAL
        self.in_engine = not self.finished and state is not _DELIVERING
        self.streaming = state in GENERATING

    def _turn(self, phase: PhaseName, now: float) -> None:
        """The next token belongs to another phase."""
        if phase == self.phase:
            return
        delivery, transcript = self.delivery, self.transcript
        before, self.phase = self.phase, phase
        self._advance(_TURNS[phase])
        transcript.end_segment(delivery.thoughts_ended(now) if before == "reasoning" else None)
        if phase == "answering":
            delivery.boundary(now)
        else:
            # Nobody waits for the text that the model does not write meanwhile.
            delivery.stand_when_dry(now)
        if phase == "reasoning":
            delivery.thinking_since_s = now
        elif phase == "calling" and not self.cancelling:
            self._show(delivery.flush(now), now)  # an agent waits for the call
        transcript.catch_up()

    def _take_in(self) -> None:
        """Take in the tokens that were put off."""
        if not self._put_off:
            return
        waited, self._put_off = self._put_off, []
        times, texts = waited[::3], waited[2::3]
        self._token_ids.extend(waited[1::3])
        item = self.transcript.tail
        if item is not None and item.plain and item.add_all(texts):
            self.delivery.arrived_each(times)
            return
        for now, text in zip(times, texts, strict=True):
            self._add_answer((text,), now)

    def _add_answer(
        self, texts: Sequence[str], now: float, logprob: TokenLogprob | None = None
    ) -> None:
        """Add the texts of answering tokens; with ``logprob``, of one token."""
        item, arrived = self.transcript.tail, self.delivery.arrived
        for text in texts:
            if item is None or item.ended or not item.live_fields:
                if not text:
                    continue
                item = self._open_answer(now)
            if logprob is not None:
                tokens = item.add_with_logprob(text, logprob_json(logprob))
            else:
                tokens = item.add(text)
            if tokens:
                arrived(tokens, now)

    def _open_answer(self, now: float) -> OutputItem:
        self.delivery.go_on(now)
        return self.transcript.segment("answer")

    def _unread(self, texts: Sequence[str]) -> None:
        """Add one step's tokens of the thoughts or of a call, and show them."""
        tokens = len(texts)
        text = texts[0] if tokens == 1 else "".join(texts)
        if self.state is _REASONING:
            self.reasoning_tokens += tokens
            self.transcript.show_text("reasoning", text, tokens)
        else:
            self.calling_tokens += tokens
            self.transcript.show_text("call", text, tokens)

    def _take_parts(self, run: TokenRun, now: float) -> None:
        """Take in a run in which the phase or the segment changes, or with log probabilities."""
        turns = {turn.at: turn.phase for turn in run.turns}
        pieces = by_token(run, self.phase)
        unread = Unread(self.transcript)
        for at in range(len(run.token_ids)):
            if at in turns:
                unread.add()
                self._turn(turns[at], now)
            if self.phase == "reasoning":
                self.reasoning_tokens += 1
                unread.tokens += 1
            elif self.phase == "calling":
                self.calling_tokens += 1
                unread.tokens += 1
            for piece in pieces[at]:
                if piece.kind != "answer":
                    if piece.name is not None:
                        unread.add()
                        self._open_call(piece, now)
                    unread.put(piece)
                elif not self.cancelling:
                    unread.add()
                    logprob = run.logprobs[at] if run.logprobs else None
                    self._add_answer((piece.text,), now, logprob)
        unread.add()
        if len(run.token_ids) in turns:
            self._turn(turns[len(run.token_ids)], now)
        self.transcript.catch_up()

    def _open_call(self, piece: Piece, now: float) -> None:
        if not self.cancelling:
            self._show(self.delivery.flush(now), now)
        self.transcript.open("call", piece.name or "", piece.call_id)

    def _show(self, deltas: int, now: float) -> None:
        """Send the next deltas of the answer."""
        if not deltas:
            return
        delivery, transcript, behind = self.delivery, self.transcript, len(self._put_off) // 3
        item = transcript.head
        if deltas == 1 and item is not None and item.plain:  # as nearly always
            slack_s = delivery.released(1, now, behind)
            self.log.add_delta(item, delivery.buffered_tokens + behind, slack_s)
        else:
            slack_s = delivery.released(transcript.tokens_of_next(deltas), now, behind)
            transcript.show_answer(deltas, delivery.buffered_tokens + behind, slack_s)

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
            self.delivery.stop(now)
            if self.read_tokens is not None:
                self.transcript.cut_answer(self.read_tokens)
            self._advance(Event.CANCEL)
        else:
            self._show(self.delivery.flush(now), now)
            self.error = self._cut_by
            self._advance(Event.FAIL)
        self._end(now)

    def _end(self, now: float) -> None:
        self.delivery.ended_s = now
        self.transcript.close("completed" if self.status == "completed" else "incomplete")
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
