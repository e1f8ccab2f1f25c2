"""From the turns of a conversation to the prompt's token ids, and the phase generation starts in.

Decides how the model's chat template is rendered and which prompts are too long. Knows the
tokenizer, but no engine and no event loop. Rendering a long conversation takes seconds: call it
from a thread. Other Python threads run on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from workers.engine.tokenizer import Tokenizer
from workers.errors import RequestRejected, WorkerError
from workers.messages import ChatMessage
from workers.policy.phase import Phase, ThinkMarkers
from workers.requests.detokenize import Decode


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine gets."""

    token_ids: tuple[int, ...]
    phase: Phase  # of the first token it generates


class ChatRenderer:
    """Renders conversations for one model."""

    def __init__(self, tokenizer: Tokenizer, max_model_len: int) -> None:
        """:raises WorkerError: if the model has no chat template or no fast tokenizer."""
        if not tokenizer.chat_template:
            raise WorkerError("the model has no chat template")
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise WorkerError("the model has no fast tokenizer (tokenizer.json)")
        vocabulary = tokenizer.get_vocab()
        self.markers = ThinkMarkers.of_vocabulary(vocabulary)
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._max_model_len = max_model_len
        self._longest_token = max(map(len, vocabulary))  # characters

    @property
    def decode(self) -> Decode:
        """Token ids to text, special tokens left out."""
        return lambda ids: self._backend.decode(ids, skip_special_tokens=True)

    def render(self, messages: Sequence[ChatMessage], thinking: bool | None) -> Prompt:
        """The prompt for the next turn of the assistant.

        :param thinking: what the template is told as ``enable_thinking``; None: nothing.
        :raises RequestRejected: if the template refuses the messages, or they leave no room for
            output in the model's context.
        """
        text = self._text(messages, thinking, generation=True)
        if len(text) > self._max_model_len * self._longest_token:
            # Certainly too long: do not spend seconds on counting.
            raise self._too_long(f"at least {len(text) // self._longest_token}")
        token_ids = self._encode(text)
        if len(token_ids) >= self._max_model_len:
            raise self._too_long(str(len(token_ids)))
        return Prompt(token_ids, self._start_phase(text, messages, thinking))

    def _text(
        self, messages: Sequence[ChatMessage], thinking: bool | None, *, generation: bool
    ) -> str:
        options = {} if thinking is None else {"enable_thinking": thinking}
        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in messages],
                tokenize=False,
                add_generation_prompt=generation,
                **options,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            raise RequestRejected(
                "invalid_value", f"the model's chat template: {error}", "messages"
            ) from error
        return str(text)

    def _encode(self, text: str) -> tuple[int, ...]:
        # Of the tokenizer's methods only the batch ones let other Python threads run.
        (encoding,) = self._backend.encode_batch([text], add_special_tokens=False)
        return tuple(encoding.ids)

    def _start_phase(
        self, text: str, messages: Sequence[ChatMessage], thinking: bool | None
    ) -> Phase:
        """Judged by what the template adds for the generation alone: a user may write markers."""
        if self.markers is None:
            return Phase.ANSWERING
        history = self._text(messages, thinking, generation=False)
        added = text[len(history) :] if text.startswith(history) else ""
        phase = self.markers.phase_after(self._encode(added)) if added else None
        if phase is not None:
            return phase
        if thinking is False and text != self._text(messages, None, generation=True):
            return Phase.ANSWERING  # the template has another way to switch thinking off
        return Phase.REASONING  # the model opens its thoughts itself

    def _too_long(self, tokens: str) -> RequestRejected:
        return RequestRejected(
            "context_length_exceeded",
            f"the messages take {tokens} tokens, and the model's context is "
            f"{self._max_model_len} tokens for prompt and output together",
            "messages",
        )
