"""Asks workers about prompts and tokens: they render or decode, and generate nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gateway.routing.members import Members
from gateway.routing.worker_link import FrameTooLarge
from gateway.schemas.errors import ApiError, InvalidRequest, Overloaded, Unavailable
from gateway.schemas.generation import Generation
from workers.messages import Count, Counted, Detokenize, Detokenized, Pace, Rejected, Submit

_MOST = 64  # counts at a time: they use the thread that renders prompts of requests
_TIMEOUT_S = 30.0


_Answer: TypeAlias = Counted | Detokenized
_Question: TypeAlias = Count | Detokenize


@dataclass(frozen=True, slots=True)
class _Waiting:
    instance_id: str
    public_param: Callable[[str | None], str | None]  # from a field of the link to one of the API
    answer: asyncio.Future[_Answer]


class PromptCounter:
    """Asks workers what only a tokenizer knows, and waits for their answers.

    Each method raises:

    - `InvalidRequest`: it cannot be rendered, or a token does not exist; names the field.
    - `Unavailable`: no instance is there, or none answers.
    - `Overloaded`: too many answers are waited for.

    :param retry_after_s: what a client is told that is refused.
    """

    def __init__(self, members: Members, retry_after_s: int) -> None:
        self._members = members
        self._retry_after_s = retry_after_s
        self._waiting: dict[str, _Waiting] = {}

    async def count(self, generation: Generation, now: float) -> int:
        """The length of the prompt in tokens."""
        return (await self.tokens(generation, now, ids=False)).prompt_tokens

    async def tokens(
        self, generation: Generation, now: float, *, ids: bool = True, names: bool = False
    ) -> Counted:
        """The tokens of the prompt.

        :param ids: whether they are wanted, not just their number.
        :param names: whether their names in the vocabulary are wanted, too.
        """
        request_id = _new_id()
        question = Count(prompt=_prompt(request_id, generation), tokens=ids, names=names)
        counted = await self._ask(request_id, question, generation.public_param, now)
        assert isinstance(counted, Counted)
        return counted

    async def text(self, token_ids: Sequence[int], now: float) -> str:
        """The text of tokens, with special ones. A token that does not exist names ``tokens``."""
        request_id = _new_id()
        question = Detokenize(request_id=request_id, token_ids=tuple(token_ids))
        found = await self._ask(request_id, question, lambda _: "tokens", now)
        assert isinstance(found, Detokenized)
        return found.text

    async def _ask(
        self,
        request_id: str,
        question: _Question,
        public_param: Callable[[str | None], str | None],
        now: float,
    ) -> _Answer:
        usable = self._members.usable(now)
        if not usable:
            raise Unavailable("No instance can count now.", code="no_instance")
        if len(self._waiting) >= _MOST:
            raise Overloaded(
                f"{_MOST} prompts are being counted.",
                code="server_overloaded",
                retry_after_s=self._retry_after_s,
            )
        held = [waiting.instance_id for waiting in self._waiting.values()]
        instance = min(usable, key=lambda one: held.count(one.instance_id))
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = _Waiting(instance.instance_id, public_param, answer)
        try:
            instance.link.send(question)
            return await asyncio.wait_for(answer, _TIMEOUT_S)
        except FrameTooLarge:
            raise InvalidRequest(
                "The conversation is longer than the model's context length.",
                param=public_param("messages"),
                code="context_length_exceeded",
            ) from None
        except TimeoutError:
            raise Unavailable("The instance does not answer.", code="no_instance") from None
        finally:
            self._waiting.pop(request_id, None)

    def answered(self, message: _Answer | Rejected) -> bool:
        """Take in an answer; False if it belongs to no question."""
        waiting = self._waiting.get(message.request_id)
        if waiting is None:
            return False
        if waiting.answer.done():
            return True
        if not isinstance(message, Rejected):
            waiting.answer.set_result(message)
        elif message.code in ("internal_error", "engine_failed"):
            broken = ApiError("Internal error.", code="internal_error")
            waiting.answer.set_exception(broken)
        else:
            param = waiting.public_param(message.param)
            refused = InvalidRequest(message.message, param=param, code=message.code)
            waiting.answer.set_exception(refused)
        return True

    def lost(self, instance_id: str) -> None:
        """An instance is gone: fail what it was to count."""
        for waiting in self._waiting.values():
            if waiting.instance_id == instance_id and not waiting.answer.done():
                error = Unavailable("The instance was lost.", code="instance_lost")
                waiting.answer.set_exception(error)


def _new_id() -> str:
    return f"count_{secrets.token_hex(8)}"


def _prompt(request_id: str, generation: Generation) -> Submit:
    return Submit(
        request_id=request_id,
        messages=generation.messages,
        sampling=generation.sampling,
        pace=Pace(tau_s=generation.targets.tpot_s),
        thinking=generation.thinking,
        tools=generation.tools,
        tool_choice=generation.tool_choice,
        template=dict(generation.template),
        effort=generation.effort,
        prompt=generation.prompt,
    )
