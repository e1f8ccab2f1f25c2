"""Turns the engine's outputs for one request into `TokenRun` messages.

Decides the positions of tokens in the request's output, their text, and how the request ended.
Pure; knows neither the engine nor the link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.engine.interface import EngineOutput
from workers.messages import Finish, TokenRun
from workers.requests.detokenize import Detokenizer


@dataclass(frozen=True, slots=True)
class StreamUpdate:
    """What follows from one engine output."""

    run: TokenRun | None  # to send to the gateway
    cancel: bool = False  # in the engine: a stop string ended the request first


class RequestStream:
    """The output of one accepted request.

    It drops all outputs that come after a run with a finish.
    """

    def __init__(
        self,
        request_id: str,
        detokenizer: Detokenizer,
        known_token_ids: Sequence[int],
        forced_total: int | None,
    ) -> None:
        """Begin after the known output.

        :param known_token_ids: output of earlier engines; positions continue after it.
        :param forced_total: length in tokens at which the output is complete; None if no length
            was forced.
        """
        self.request_id = request_id
        self.finished = False
        self._detokenizer = detokenizer
        self._position = len(known_token_ids)
        self._forced_total = forced_total
        detokenizer.push(known_token_ids)  # sets the state; the text was sent before
        self._cached_tokens = 0
        self._kv_tokens: int | None = None  # goes out with the next tokens

    def advance(self, output: EngineOutput) -> StreamUpdate:
        """Process what a step produced for this request."""
        if self.finished:
            return StreamUpdate(None)
        self._cached_tokens = max(self._cached_tokens, output.cached_tokens)
        if output.kv_tokens is not None:
            self._kv_tokens = output.kv_tokens
        reason = output.finish
        # If the request is handed over, the next worker gives out the text that is still held.
        last = reason not in (None, "handed_over")
        pieces = self._detokenizer.push(output.token_ids, last=last)
        token_ids = tuple(output.token_ids[: len(pieces.texts)])
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
                cached_tokens=self._cached_tokens,
                message=output.message,
                ticket=output.ticket if reason == "handed_over" else None,
            )
        elif not token_ids:
            return StreamUpdate(None)
        kv_tokens = None
        if token_ids:
            kv_tokens, self._kv_tokens = self._kv_tokens, None
        return StreamUpdate(
            TokenRun(
                request_id=self.request_id,
                position=position,
                token_ids=token_ids,
                texts=pieces.texts,
                boundary=pieces.boundary,
                finish=finish,
                kv_tokens=kv_tokens,
            ),
            cancel,
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
