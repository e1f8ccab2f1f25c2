"""``truncation: "auto"``: a conversation that is too long loses its oldest turns.

A turn begins with a message of the user. Turns are dropped whole, the oldest first. If the last one
is too long by itself, it loses its oldest rounds of calls and results. Instructions, the messages
of the user in the last turn, and what comes after the last round begins, always stay.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog

from gateway.schemas.errors import ApiError, InvalidRequest
from gateway.schemas.generation import Generation
from workers.messages import ChatMessage

log = structlog.get_logger()

TOO_LONG = "context_length_exceeded"
_SHARE = 4  # of the context at most one in so many tokens is kept free for the output


def is_too_long(error: ApiError) -> bool:
    """Whether the conversation is at fault, which does not fit into the model's context."""
    return error.code == TOO_LONG and error.param != "forced_lengths"


async def truncated(
    generation: Generation, count: Callable[[Generation], Awaitable[int]], context_tokens: int
) -> Generation | None:
    """The request without the turns for which there is no room; None if none can be dropped.

    As few as possible are dropped. They make room for the output, too: for as much as was asked
    for, or a quarter of the context.

    :param count: the tokens of a prompt; see `gateway.routing.counting.PromptCounter.count`.
    :param context_tokens: of the model, for prompt and output.
    :raises ApiError: the workers cannot count now.
    """
    units = droppable(generation.messages)
    if not units:
        return None
    room = min(generation.sampling.max_tokens or context_tokens, context_tokens // _SHARE)

    async def tokens(dropped: int) -> int:
        try:
            return await count(without(generation, units[:dropped]))
        except InvalidRequest as error:
            if is_too_long(error):
                return context_tokens
            raise

    low, high = 1, len(units)
    while low < high:
        middle = (low + high) // 2
        if await tokens(middle) + room <= context_tokens:
            high = middle
        else:
            low = middle + 1
    shorter = without(generation, units[:low])
    dropped = len(generation.messages) - len(shorter.messages)
    log.info("conversation_truncated", messages=len(generation.messages), dropped=dropped)
    return shorter


def droppable(messages: Sequence[ChatMessage]) -> list[list[int]]:
    """The messages that may be dropped together, by their indexes; the oldest first."""
    turns: list[list[int]] = [[]]
    last_role = ""
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "user" and last_role != "user":
            turns.append([])
        turns[-1].append(index)
        last_role = message.role
    rounds: list[list[int]] = []
    for index in turns[-1]:
        if messages[index].role == "assistant":
            rounds.append([])
        if messages[index].role != "user" and rounds:
            rounds[-1].append(index)
    return [turn for turn in turns[:-1] if turn] + rounds[:-1]


def without(generation: Generation, units: Sequence[Sequence[int]]) -> Generation:
    """The request without these messages, and without results whose calls are among them."""
    gone = {index for unit in units for index in unit}
    calls = {call.call_id for index in gone for call in generation.messages[index].tool_calls}
    kept = [
        index
        for index, message in enumerate(generation.messages)
        if index not in gone and message.tool_call_id not in calls
    ]
    before = len(generation.messages) - len(generation.message_items)
    items = [generation.message_items[index - before] for index in kept if index >= before]
    messages = tuple(generation.messages[index] for index in kept)
    return replace(generation, messages=messages, message_items=tuple(items))
