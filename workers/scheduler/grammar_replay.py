"""The grammar of a request that goes on here, in the state in which it left the other engine.

Each grammar is bounded, see `workers.scheduler.bounded_grammar`.

vLLM compiles the grammar in a thread and advances it with each token that it samples. A request
whose first tokens are known has that part of its output in the prompt, of which vLLM's grammar
knows nothing. So they are fed to it, through vLLM's own function, when the compilation has ended
and before the request is scheduled. If the grammar does not take them, the request ends with an
error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from workers.policy.phase import Phase
from workers.scheduler.bounded_grammar import BoundedGrammar

_replays = ThreadPoolExecutor(4, thread_name_prefix="grammar-replay")


class GrammarMismatch(Exception):
    """The output so far is not one that the grammar allows."""


def replay(
    manager: StructuredOutputManager,
    request: Request,
    known: int,
    began: Phase,
    on_late: Callable[[], None],
) -> None:
    """Tell vLLM where the answer of a new request stands; no effect without a structure.

    :param known: number of tokens at the end of the prompt that are output.
    :param began: phase of the first of them, or of the first new token.
    :param on_late: as in `BoundedGrammar`.
    """
    structured = request.structured_output_request
    if structured is None:
        return
    # What the prompt looks like does not decide: it holds the markers of earlier turns, too.
    structured.reasoning_ended = began is not Phase.REASONING
    compiled = structured._grammar
    assert isinstance(compiled, Future)  # vLLM compiles in a thread, see `_create_grammar`
    assert request.prompt_token_ids is not None
    tokens = request.prompt_token_ids
    split = len(tokens) - known
    ready: Future[Any] = Future()
    structured.grammar = ready  # so the request waits for it
    progress = _Progress(request.request_id, structured, tokens[:split])

    def advance(compilation: Future[Any]) -> None:
        try:
            progress.grammar = BoundedGrammar(compilation.result(), on_late)
            progress.feed(manager, tokens[split:])
        except Exception as error:  # noqa: BLE001 (the scheduler ends this request with an error)
            ready.set_exception(error)
        else:
            if known:
                structured.reasoning_ended = progress.structured_output_request.reasoning_ended
            ready.set_result(progress.grammar)

    if not known:
        compiled.add_done_callback(advance)
        return
    # In a thread of its own: neither the engine nor vLLM's next compilation waits for it.
    compiled.add_done_callback(lambda done: _replays.submit(advance, done))


class _Progress:
    """What vLLM's function reads of a request, while the known tokens pass again."""

    use_structured_output = True

    def __init__(self, request_id: str, structured: Any, prompt: Sequence[int]) -> None:
        self.request_id = request_id
        self.prompt_token_ids = prompt
        self.all_token_ids = list(prompt)
        # A copy: the scheduler looks at the request's own one meanwhile.
        self.structured_output_request = SimpleNamespace(
            grammar=None,
            reasoner=None,
            reasoning_ended=structured.reasoning_ended,
            reasoning_parser_kwargs=structured.reasoning_parser_kwargs,
        )

    @property
    def grammar(self) -> Any:
        return self.structured_output_request.grammar

    @grammar.setter
    def grammar(self, grammar: Any) -> None:
        self.structured_output_request.grammar = grammar

    def feed(self, manager: StructuredOutputManager, known: Sequence[int]) -> None:
        """One by one: only the token that ends the thoughts costs a look at all of them."""
        request: Any = self
        for token in known:
            self.all_token_ids.append(token)
            if not manager.accept_tokens(request, [token]):
                raise GrammarMismatch("the known output does not have the structure")
