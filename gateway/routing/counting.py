"""Counts the tokens of prompts: a worker renders the conversation, and generates nothing."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from gateway.routing.members import Members
from gateway.routing.worker_link import FrameTooLarge
from gateway.schemas.errors import ApiError, InvalidRequest, Overloaded, Unavailable
from gateway.schemas.generation import Generation
from workers.messages import Count, Counted, Pace, Rejected, Submit

_MOST = 64  # counts at a time: they use the thread that renders prompts of requests
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    instance_id: str
    generation: Generation
    answer: asyncio.Future[int]


class PromptCounter:
    """Asks workers, and waits for their answers.

    :param retry_after_s: what a client is told that is refused.
    """

    def __init__(self, members: Members, retry_after_s: int) -> None:
        self._members = members
        self._retry_after_s = retry_after_s
        self._waiting: dict[str, _Waiting] = {}

    async def count(self, generation: Generation, now: float) -> int:
        """The length of the prompt in tokens.

        :raises InvalidRequest: it cannot be rendered; names the field.
        :raises Unavailable: no instance is there, or none answers.
        :raises Overloaded: too many are being counted.
        """
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
        request_id = f"count_{secrets.token_hex(8)}"
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = _Waiting(instance.instance_id, generation, answer)
        try:
            instance.link.send(Count(prompt=_prompt(request_id, generation)))
            return await asyncio.wait_for(answer, _TIMEOUT_S)
        except FrameTooLarge:
            raise InvalidRequest(
                "The conversation is longer than any model reads.",
                param=generation.messages_param,
                code="context_length_exceeded",
            ) from None
        except TimeoutError:
            raise Unavailable("The instance does not answer.", code="no_instance") from None
        finally:
            self._waiting.pop(request_id, None)

    def answered(self, message: Counted | Rejected) -> bool:
        """Take in an answer; False if it belongs to no count."""
        waiting = self._waiting.get(message.request_id)
        if waiting is None:
            return False
        if waiting.answer.done():
            return True
        if isinstance(message, Counted):
            waiting.answer.set_result(message.prompt_tokens)
        elif message.code in ("internal_error", "engine_failed"):
            broken = ApiError("Internal error.", code="internal_error")
            waiting.answer.set_exception(broken)
        else:
            param = waiting.generation.public_param(message.param)
            refused = InvalidRequest(message.message, param=param, code=message.code)
            waiting.answer.set_exception(refused)
        return True

    def lost(self, instance_id: str) -> None:
        """An instance is gone: fail what it was to count."""
        for waiting in self._waiting.values():
            if waiting.instance_id == instance_id and not waiting.answer.done():
                error = Unavailable("The instance was lost.", code="instance_lost")
                waiting.answer.set_exception(error)


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
    )
