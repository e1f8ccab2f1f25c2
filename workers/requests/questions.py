"""Questions about prompts and tokens that need the model's tokenizer, and no engine.

Each is answered by one message, whatever goes wrong. An error could quote the prompt, so only its
type is logged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import structlog

from workers.errors import RequestRejected
from workers.messages import Count, Counted, Detokenize, Detokenized, Rejected
from workers.requests.chat_template import ChatRenderer
from workers.requests.output_bounds import check_values

_log = structlog.get_logger()

Question: TypeAlias = Count | Detokenize
Answer: TypeAlias = Counted | Detokenized | Rejected


class InThread(Protocol):
    """Runs a function in the thread that renders prompts."""

    def __call__(self, work: Callable[[], Answer], /) -> Awaitable[Answer]:
        """Return what the function returns, or raise what it raises."""


async def answer(question: Question, renderer: ChatRenderer, in_thread: InThread) -> Answer:
    """The answer to a question, which may be a refusal. Never raises."""
    try:
        return await in_thread(lambda: _answered(question, renderer))
    except RequestRejected as error:
        return refused(id_of(question), error)
    except Exception as error:  # noqa: BLE001 (a template can raise any error)
        return not_answered(question, type(error).__name__)


def not_answered(question: Question, kind: str) -> Rejected:
    """The answer to a question that could not be answered.

    :param kind: of the error; must not quote text of the prompt.
    """
    _log.error("question_not_answered", request_id=id_of(question), kind=kind)
    unknown = RequestRejected("internal_error", "the question could not be answered")
    return refused(id_of(question), unknown)


def refused(request_id: str, error: RequestRejected) -> Rejected:
    """A refusal as a message."""
    return Rejected(
        request_id=request_id, code=error.code, message=error.message, param=error.param
    )


def id_of(question: Question) -> str:
    """The id that the answer carries."""
    return question.prompt.request_id if isinstance(question, Count) else question.request_id


def _answered(question: Question, renderer: ChatRenderer) -> Answer:
    if isinstance(question, Detokenize):
        renderer.check_tokens(question.token_ids, "token_ids")
        text = renderer.decode_all(question.token_ids)
        return Detokenized(request_id=question.request_id, text=text)
    check_values(question.prompt)
    token_ids = renderer.render(question.prompt).token_ids
    return Counted(
        request_id=question.prompt.request_id,
        prompt_tokens=len(token_ids),
        token_ids=token_ids if question.tokens else (),
        names=renderer.names(token_ids) if question.names else (),
    )
