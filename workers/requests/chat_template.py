"""Turns the messages of a conversation into a prompt, and finds the phase that it starts in.

Decides how the model's chat template is rendered, and which prompts are too long. Knows the
tokenizer, but no engine and no event loop. A long conversation takes seconds, so call `render` in
a thread: it lets other Python threads run meanwhile.
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
    """A rendered conversation."""

    token_ids: tuple[int, ...]
    phase: Phase  # of the first token that the engine generates


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
        """A function from token ids to text without special tokens."""
        return lambda ids: self._backend.decode(ids, skip_special_tokens=True)

    def render(self, messages: Sequence[ChatMessage], thinking: bool | None) -> Prompt:
        """Render the prompt for the assistant's next message.

        :param thinking: value of the template's ``enable_thinking``; None leaves it out.
        :raises RequestRejected: if the template refuses the messages, or if they leave no room
            for output in the model's context.
        """
        text = self._text(messages, thinking, generation=True)
        if len(text) > self._max_model_len * self._longest_token:
            # Certainly too long: refuse it without seconds of counting.
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
        # Only the tokenizer's batch methods let other Python threads run.
        (encoding,) = self._backend.encode_batch([text], add_special_tokens=False)
        return tuple(encoding.ids)

    def _start_phase(
        self, text: str, messages: Sequence[ChatMessage], thinking: bool | None
    ) -> Phase:
        """The phase of the first generated token.

        Only what the template adds after the messages counts, because users may write markers too.
        """
        if self.markers is None:
            return Phase.ANSWERING
        history = self._text(messages, thinking, generation=False)
        added = text[len(history) :] if text.startswith(history) else ""
        phase = self.markers.phase_after(self._encode(added)) if added else None
        if phase is not None:
            return phase
        if thinking is False and text != self._text(messages, None, generation=True):
            return Phase.ANSWERING  # the template switches thinking off without markers
        return Phase.REASONING  # the model writes the start marker itself

    def _too_long(self, tokens: str) -> RequestRejected:
        return RequestRejected(
            "context_length_exceeded",
            f"the messages take {tokens} tokens, and the model's context is "
            f"{self._max_model_len} tokens for prompt and output together",
            "messages",
        )
