"""Calls of tools and their results: each result belongs to a call that was made before it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.schemas.errors import InvalidRequest
from gateway.schemas.json_schema import check_depth
from workers.messages import ChatMessage, ToolCall


class OpenCalls:
    """Calls that wait for their results, by id."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, str]] = {}  # name of the tool, path of the id

    def continue_from(self, history: Iterable[ChatMessage]) -> None:
        """Take the calls of an earlier conversation that have no result yet."""
        for message in history:
            for call in message.tool_calls:
                self._waiting[call.call_id] = (call.name, "input")
            if message.tool_call_id is not None:
                self._waiting.pop(message.tool_call_id, None)

    def make(self, call_id: str, name: str, where: str) -> None:
        """Note a call.

        :param where: path of its id.
        """
        if not call_id:
            raise InvalidRequest("The id of a call must not be empty.", param=where)
        if call_id in self._waiting:
            raise InvalidRequest(f"Two calls have the id {quoted(call_id)}.", param=where)
        self._waiting[call_id] = (name, where)

    def answer(self, call_id: str, where: str) -> str:
        """Note the result of a call; return the name of the tool.

        :param where: path of the id.
        """
        if call_id not in self._waiting:
            raise InvalidRequest(
                f"No earlier call with the id {quoted(call_id)} waits for a result.", param=where
            )
        name, _ = self._waiting.pop(call_id)
        return name

    def check_none_waits(self) -> None:
        """Raise `InvalidRequest` for a call that should have a result by now."""
        for call_id, (name, where) in self._waiting.items():
            raise InvalidRequest(
                f"The call {quoted(call_id)} of the tool {quoted(name)} has no result.",
                param=where,
            )


def call_of(call_id: str, name: str, arguments: str, where: str) -> ToolCall:
    """A call that the client sends back.

    :param arguments: as JSON; empty for none.
    :param where: path of its name and its arguments.
    :raises InvalidRequest: naming the field.
    """
    if not name:
        raise InvalidRequest("The call names no tool.", param=f"{where}.name")
    try:
        decoded = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"The arguments are not JSON: {error}.", param=f"{where}.arguments"
        ) from error
    if not isinstance(decoded, dict):
        raise InvalidRequest("The arguments must be a JSON object.", param=f"{where}.arguments")
    check_depth(decoded, "The object of arguments", f"{where}.arguments")
    return ToolCall(call_id=call_id, name=name, arguments=arguments or "{}")


def quoted(text: str) -> str:
    """The begin of a client's text, in quotes."""
    return repr(text[:64])
