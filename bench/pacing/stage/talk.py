"""The conversation with a process of the benchmark: one command, one answer.

Built on `bench.policies.engine_process`, which carries JSON lines. A command that fails is an
answer too, so that the measurement can say what went wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from bench.policies.engine_process import EngineProcess, Send
from bench.reporting.errors import BenchmarkError

Action: TypeAlias = Callable[..., Awaitable[Any]]


class Command(msgspec.Struct, frozen=True):
    """What the process shall do, and the arguments of that action."""

    do: str
    arguments: dict[str, Any]


class Answer(msgspec.Struct, frozen=True):
    """What it did; ``error`` says why it could not."""

    value: Any = None
    error: str | None = None


class Helper(EngineProcess):
    """A process that carries out commands."""

    def tell(self, do: str, **arguments: Any) -> None:
        """Send a command without waiting for its answer."""
        self.send(Command(do, arguments))

    def hear(self) -> Any:
        """The answer to the oldest open command.

        :raises BenchmarkError: if the command failed.
        """
        answer = self.receive(Answer)
        if answer.error is not None:
            raise BenchmarkError(f"{self.name}: {answer.error}")
        return answer.value

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send a command and wait for its answer."""
        self.tell(do, **arguments)
        return self.hear()


async def obey(messages: Iterator[bytes], send: Send, actions: Mapping[str, Action]) -> None:
    """Carry out commands one after another, while the loop serves connections."""
    loop = asyncio.get_running_loop()
    while True:
        command = msgspec.json.decode(
            await loop.run_in_executor(None, next, messages), type=Command
        )
        try:
            answer = Answer(await actions[command.do](**command.arguments))
        except (BenchmarkError, OSError, TimeoutError) as error:
            answer = Answer(error=str(error) or type(error).__name__)
        send(answer)
