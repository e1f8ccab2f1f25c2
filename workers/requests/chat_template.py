"""Turns a conversation into a prompt, and finds the phase that it starts in.

Decides which prompts are too long. What the model can do, and how it writes, is decided in
`workers.formats`. Knows no engine and no event loop. A long conversation takes seconds, so call
`render` in a thread: it lets other Python threads run meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workers.emulation.calls import CallTooShort, call_of_length
from workers.emulation.script import seed_of
from workers.errors import RequestRejected, WorkerError
from workers.formats.form import Format, Request
from workers.messages import PlainPrompt, Submit
from workers.policy.phase import Phase
from workers.requests.detokenize import Decode

_TAIL = 16  # tokens at the end of a prompt, among which a template may open the thoughts


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation."""

    token_ids: tuple[int, ...]
    phase: Phase  # of the first token that the engine generates


@dataclass(frozen=True, slots=True)
class Rendered(Prompt):
    """A prompt, with what its output needs."""

    request: Request  # what the format says about it
    begun: tuple[int, ...]  # tokens at its end that begin the assistant's turn


class ChatRenderer:
    """Renders conversations for one model."""

    def __init__(self, form: Format, max_model_len: int) -> None:
        """:raises WorkerError: if the model has no fast tokenizer, and vLLM has none of its own."""
        self.form = form
        self.markers = form.reading.markers
        self._template = form.template
        self._tokenizer = form.tokenizer
        self._backend: Any = getattr(form.tokenizer, "backend_tokenizer", None)
        if self._backend is None and form.template.marks_generation:
            raise WorkerError("the model has no fast tokenizer (tokenizer.json)")
        self._max_model_len = max_model_len
        vocabulary = form.tokenizer.get_vocab()
        self._longest_token = max(map(len, vocabulary))  # characters
        self._last_token = max(vocabulary.values())

    @property
    def decode(self) -> Decode:
        """A function from token ids to text without special tokens."""
        return self._decoder(skip=True)

    @property
    def decode_all(self) -> Decode:
        """A function from token ids to text with special tokens, which vLLM's parsers read."""
        return self._decoder(skip=False)

    def _decoder(self, *, skip: bool) -> Decode:
        if self._backend is not None:
            return lambda ids: self._backend.decode(ids, skip_special_tokens=skip)
        return lambda ids: self._tokenizer.decode(list(ids), skip_special_tokens=skip)

    def render(self, submit: Submit) -> Rendered:
        """Render the prompt for the assistant's next message.

        :raises RequestRejected: if the model cannot do what the request asks for, if the template
            refuses the messages, or if they leave no room for output in the model's context.
        """
        if submit.prompt is not None:
            return self._plain(submit, submit.prompt)
        request = self.form.request(submit)
        written = self._template.write(request.messages, request.tools, request.control.options)
        if isinstance(written, str) and len(written) > self._max_model_len * self._longest_token:
            # Certainly too long: refuse it without seconds of counting.
            raise self._too_long(f"at least {len(written) // self._longest_token}")
        token_ids = self._encode(written) if isinstance(written, str) else tuple(written)
        if len(token_ids) >= self._max_model_len:
            raise self._too_long(str(len(token_ids)))
        begun = self._begun(written, token_ids, request)
        return Rendered(token_ids, self._start_phase(written, begun, request), request, begun)

    def _plain(self, submit: Submit, prompt: PlainPrompt) -> Rendered:
        token_ids = prompt.token_ids
        if token_ids is None:
            if len(prompt.text) > self._max_model_len * self._longest_token:
                least = len(prompt.text) // self._longest_token
                raise self._too_long(f"at least {least}", "prompt")
            token_ids = self._encode(prompt.text, special=prompt.special_tokens)
        else:
            self.check_tokens(token_ids, "prompt")
        if not token_ids:
            raise RequestRejected("invalid_value", "the prompt has no tokens", "prompt")
        if len(token_ids) >= self._max_model_len:
            raise self._too_long(str(len(token_ids)), "prompt")
        return Rendered(token_ids, Phase.ANSWERING, self.form.plain(submit), ())

    def check_tokens(self, token_ids: Sequence[int], param: str) -> None:
        """:raises RequestRejected: naming ``param``, if one is not in the vocabulary."""
        for token_id in token_ids:
            if not 0 <= token_id <= self._last_token:
                raise RequestRejected(
                    "invalid_value",
                    f"the vocabulary has no token {token_id}; its last one is {self._last_token}",
                    param,
                )

    def names(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        """The names of tokens in the vocabulary; empty for an id without a token."""
        convert: Any = self._tokenizer
        return tuple(name or "" for name in convert.convert_ids_to_tokens(list(token_ids)))

    def forced_call(self, submit: Submit, prompt: Prompt) -> tuple[int, ...]:
        """The tokens of the call that a request's forced lengths prescribe; none: no call.

        :raises RequestRejected: no call has so few tokens.
        """
        forced = submit.forced_lengths
        if forced is None or not forced.call_tokens:
            return ()
        # The same at every instance, so that another can go on in the middle of it.
        rng = random.Random(seed_of(prompt.token_ids, 0))
        tokens, choice = forced.call_tokens, submit.tool_choice
        try:
            return call_of_length(tokens, submit.tools, choice, self._encode, rng)
        except CallTooShort as error:
            param = "forced_lengths.call_tokens"
            raise RequestRejected("invalid_value", f"{error}, got {tokens}", param) from error

    def _encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        if self._backend is None:
            return tuple(self._tokenizer.encode(text, add_special_tokens=special))
        # Only the tokenizer's batch methods let other Python threads run.
        (encoding,) = self._backend.encode_batch([text], add_special_tokens=special)
        return tuple(encoding.ids)

    def _start_phase(
        self, written: str | list[int], begun: tuple[int, ...], request: Request
    ) -> Phase:
        """The phase of the first generated token.

        Only what the template adds after the messages counts, because users may write markers too.
        """
        markers = request.markers
        if markers is None or not self.form.facts.thinks:
            return Phase.ANSWERING
        if markers.channels is not None:
            return Phase.REASONING  # what the model writes first is a header
        phase = markers.phase_after(begun) if begun else None
        if phase is not None:
            return phase
        if request.control.thinking is False and self._switched(written, request):
            return Phase.ANSWERING  # the template switches thinking off without markers
        return self._phase_of_parser(begun, request)

    def _begun(
        self, written: str | list[int], token_ids: tuple[int, ...], request: Request
    ) -> tuple[int, ...]:
        if self._template.marks_generation and isinstance(written, str):
            history = self._template.write(
                request.messages, request.tools, request.control.options, generation=False
            )
            if isinstance(history, str) and written.startswith(history):
                return self._encode(written[len(history) :])
            return ()
        # A renderer of vLLM's own does not write the one without the other. What it adds comes
        # after the special token that begins the assistant's turn.
        watched = request.markers.watched if request.markers is not None else frozenset()
        special = {*self._tokenizer.all_special_ids} - watched
        tail = token_ids[-_TAIL:]
        at = max((at for at, token_id in enumerate(tail) if token_id in special), default=-1)
        return tail[at + 1 :]

    def _switched(self, written: str | list[int], request: Request) -> bool:
        """Whether the template writes another prompt because thinking was switched off."""
        switch = self.form.facts.switch
        options = {k: v for k, v in request.control.options.items() if k not in switch}
        return written != self._template.write(request.messages, request.tools, options)

    def _phase_of_parser(self, begun: tuple[int, ...], request: Request) -> Phase:
        """The phase that vLLM's parser begins in: some models open their thoughts themselves."""
        if self.form.names.reasoning is None:
            return Phase.REASONING
        parser = self.form.composed(request).reasoning_parser
        if parser is None or parser.is_reasoning_end(list(begun)):
            return Phase.ANSWERING
        return Phase.REASONING

    def _too_long(self, tokens: str, param: str = "messages") -> RequestRejected:
        # Clients shorten a conversation when they find the first words, which are OpenAI's.
        return RequestRejected(
            "context_length_exceeded",
            f"This model's maximum context length is {self._max_model_len} tokens, for prompt and "
            f"output together. The {param} {'take' if param == 'messages' else 'takes'} {tokens} "
            "tokens.",
            param,
        )
