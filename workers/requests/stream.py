"""Turns the engine's outputs for one request into `TokenRun` messages.

Decides the positions of tokens in the request's output, their text, and how the request ended.
Pure; knows neither the engine nor the link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.engine.interface import EngineOutput, TokenScores
from workers.messages import Finish, TokenLogprob, TokenRun
from workers.policy.phase import Phase
from workers.requests.pieces import OutputText


@dataclass(frozen=True, slots=True)
class StreamUpdate:
    """What follows from one engine output."""

    run: TokenRun | None  # to send to the gateway
    cancel: bool = False  # in the engine: a stop string ended the request first
    told: Phase | None = None  # the phase that the scheduler cannot see by itself


class RequestStream:
    """The output of one accepted request.

    It drops all outputs that come after a run with a finish.
    """

    def __init__(
        self,
        request_id: str,
        text: OutputText,
        known_token_ids: Sequence[int],
        forced_total: int | None,
        vocabulary: Sequence[bytes] = (),
    ) -> None:
        """Begin after the known output.

        :param known_token_ids: output of earlier engines; positions continue after it.
        :param forced_total: length in tokens at which the output is complete; None if no length
            was forced.
        :param vocabulary: the bytes of every token id, for requests with log probabilities.
        """
        self.request_id = request_id
        self.finished = False
        self._text = text
        self._known = self._position = len(known_token_ids)
        self._forced_total = forced_total
        self._vocabulary = vocabulary
        # Sets the state; the text was sent before.
        self._told = text.push(known_token_ids).told  # goes out with the next tokens
        self.cached_tokens = 0  # of the prompt, that the engine found in its cache
        self._kv_tokens: int | None = None  # goes out with the next tokens

    @property
    def generated(self) -> int:
        """Tokens that were generated here."""
        return self._position - self._known

    def advance(self, output: EngineOutput) -> StreamUpdate:
        """Process what a step produced for this request."""
        if self.finished:
            return StreamUpdate(None)
        self.cached_tokens = max(self.cached_tokens, output.cached_tokens)
        if output.kv_tokens is not None:
            self._kv_tokens = output.kv_tokens
        reason = output.finish
        # If the request is handed over, the next worker gives out the text that is still held.
        last = reason not in (None, "handed_over")
        pieces = self._text.push(output.token_ids, last=last)
        token_ids = tuple(output.token_ids[: pieces.tokens])
        position = self._position
        self._position += len(token_ids)
        cancel = pieces.stopped and reason is None
        if pieces.stopped or (reason == "length" and self._position == self._forced_total):
            reason = "stop"
        finish = None
        if reason is not None:
            self.finished = True
            finish = Finish(
                reason=reason,
                preemptions=output.preemptions,
                cached_tokens=self.cached_tokens,
                message=output.message,
                param=output.param,
                ticket=output.ticket if reason == "handed_over" else None,
                stop=self._text.stop if reason == "stop" else None,
            )
        elif not token_ids:
            return StreamUpdate(None)
        told = pieces.told or self._told
        self._told = None
        kv_tokens = None
        if token_ids:
            kv_tokens, self._kv_tokens = self._kv_tokens, None
        return StreamUpdate(
            TokenRun(
                request_id=self.request_id,
                position=position,
                token_ids=token_ids,
                texts=pieces.texts,
                pieces=pieces.pieces,
                turns=pieces.turns,
                finish=finish,
                kv_tokens=kv_tokens,
                logprobs=self._logprobs(token_ids, output.logprobs),
            ),
            cancel,
            told,
        )

    def _logprobs(
        self, token_ids: Sequence[int], scores: Sequence[TokenScores]
    ) -> tuple[TokenLogprob, ...]:
        return tuple(
            self._logprob(token_id, score.logprob, score.top)
            for token_id, score in zip(token_ids, scores, strict=False)
        )

    def _logprob(
        self, token_id: int, logprob: float, top: Sequence[tuple[int, float]] = ()
    ) -> TokenLogprob:
        data = self._vocabulary[token_id]
        return TokenLogprob(
            token=data.decode("utf-8", "replace"),
            logprob=logprob,
            data=tuple(data),
            top=tuple(self._logprob(*one) for one in top),
        )

    def end(self, finish: Finish) -> TokenRun:
        """End the request without the engine; return its last run."""
        self.finished = True
        return TokenRun(
            request_id=self.request_id,
            position=self._position,
            token_ids=(),
            texts=(),
            finish=finish,
        )
