"""Tool loops of LangChain's agent against servers with the embedded model.

    python -m tests.acceptance.clients.langchain_agent URL URL

The second server's model opens its calls inside its thoughts. Over chat completions and Responses,
whole and streamed. A failed check ends it with status 1; the last line counts the loops. Needs the
packages of `tests.acceptance.with_clients`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

MODEL = "tiny-reasoner"
CHAIN = "Add 71 and 18, then multiply by 6, then subtract 34."
PAIR = "What is 7129 + 5418? And what is 64 * 12?"


def calculator(expression: str) -> str:
    """Calculates an arithmetic expression."""
    if not re.fullmatch(r"[0-9.+\-*/() ]+", expression):
        raise ValueError(f"no arithmetic: {expression!r}")
    return f"{eval(expression):g}"


class Loops:
    """Runs of agents, counted."""

    def __init__(self) -> None:
        self.ran = 0

    def model(self, url: str, **options: Any) -> Any:
        """A model of LangChain for a server."""
        from langchain_openai import ChatOpenAI

        made: Any = ChatOpenAI
        return made(
            base_url=f"{url}/v1",
            api_key="none",
            model=MODEL,
            temperature=0,
            max_retries=0,
            **options,
        )

    def run(self, model: Any, text: str, *, stream: bool) -> list[Any]:
        """Run an agent to its end; the messages after the user's."""
        from langchain.agents import create_agent

        agent: Any = create_agent(model, [calculator])
        asked = {"messages": [{"role": "user", "content": text}]}
        self.ran += 1
        if not stream:
            return list(agent.invoke(asked)["messages"][1:])
        found: list[Any] = []
        chunks = 0
        for mode, part in agent.stream(asked, stream_mode=["messages", "updates"]):
            if mode == "messages":
                chunks += 1
            else:
                found += [one for update in part.values() for one in update["messages"]]
        expect(chunks > 2 * len(found), chunks)
        return found

    def check(self, model: Any, *, stream: bool) -> None:
        """A chain of three calls, and two calls at once."""
        chain = self.run(model, CHAIN, stream=stream)
        expect([calls_of(message) for message in chain[::2]] == [1, 1, 1, 0], chain)
        expect("500" in chain[-1].text, chain)
        pair = self.run(model, PAIR, stream=stream)
        expect([calls_of(message) for message in (pair[0], pair[-1])] == [2, 0], pair)
        # The two tools run at once, and the one that ends first is seen first.
        by_call = {message.tool_call_id: message.content for message in pair[1:-1]}
        results = [by_call.get(call["id"]) for call in pair[0].tool_calls]
        expect(results == ["12547", "768"], pair)
        expect(all(result in pair[-1].text for result in results), pair)

    def calls_in_the_thoughts(self, model: Any, *, stream: bool) -> None:
        """Nothing but a call ends the thoughts, so that there is no text beside them."""
        chain = self.run(model, CHAIN, stream=stream)
        expect([calls_of(message) for message in chain[::2]] == [1, 1, 1, 0], chain)
        expect([message.content for message in chain[1::2]] == ["89", "534", "500"], chain)
        expect(not any(message.text for message in chain[::2]), chain)


def calls_of(message: Any) -> int:
    """How many tools a message calls."""
    return len(getattr(message, "tool_calls", ()))


def expect(holds: bool, seen: Any) -> None:
    """:raises AssertionError: it does not hold."""
    if not holds:
        raise AssertionError(seen)


def main(argv: Sequence[str] | None = None) -> None:
    """Run all loops."""
    parser = argparse.ArgumentParser(description="Tool loops of LangChain's agent.")
    parser.add_argument("url", help="of the server")
    parser.add_argument("inside", help="of the server whose model calls inside its thoughts")
    urls = parser.parse_args(argv)
    loops = Loops()
    chat = loops.model(urls.url)
    inside = loops.model(urls.inside)
    responses = loops.model(
        urls.url,
        use_responses_api=True,
        store=False,
        output_version="responses/v1",
        reasoning={"summary": "auto"},
    )
    for stream in (False, True):
        loops.check(chat, stream=stream)
        loops.check(responses, stream=stream)
        loops.calls_in_the_thoughts(inside, stream=stream)
    print(f"{loops.ran} tool loops of LangChain, over chat completions and Responses")


if __name__ == "__main__":
    main()
