"""LangChain's agent: over chat completions and Responses, whole and streamed.

The second server's model opens its calls inside its thoughts.
"""

from __future__ import annotations

from typing import Any

from compat_cases import MODEL, Cases, calculated, expect

CHAIN = "Add 71 and 18, then multiply by 6, then subtract 34."
PAIR = "What is 7129 + 5418? And what is 64 * 12?"

cases = Cases()


def calculator(expression: str) -> str:
    """Calculates an arithmetic expression."""
    return calculated(expression)


def model_of(url: str, **options: Any) -> Any:
    """A model of LangChain for a server."""
    from langchain_openai import ChatOpenAI

    made: Any = ChatOpenAI
    return made(
        base_url=f"{url}/v1", api_key="none", model=MODEL, temperature=0, max_retries=0, **options
    )


def chat() -> Any:
    """Over chat completions."""
    return model_of(cases.url)


def responses() -> Any:
    """Over Responses, with thoughts and nothing stored."""
    return model_of(
        cases.url,
        use_responses_api=True,
        store=False,
        output_version="responses/v1",
        reasoning={"summary": "auto"},
    )


def run(model: Any, text: str, *, stream: bool) -> list[Any]:
    """Run an agent to its end; the messages after the user's."""
    from langchain.agents import create_agent

    agent: Any = create_agent(model, [calculator])
    asked = {"messages": [{"role": "user", "content": text}]}
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


def calls_of(message: Any) -> int:
    """How many tools a message calls."""
    return len(getattr(message, "tool_calls", ()))


def chain_of_three(model: Any, *, stream: bool) -> None:
    """Three calls, one after another."""
    chain = run(model, CHAIN, stream=stream)
    expect([calls_of(message) for message in chain[::2]] == [1, 1, 1, 0], chain)
    expect("500" in chain[-1].text, chain)


def two_at_once(model: Any, *, stream: bool) -> None:
    """Two calls in one turn."""
    pair = run(model, PAIR, stream=stream)
    expect([calls_of(message) for message in (pair[0], pair[-1])] == [2, 0], pair)
    # The two tools run at once, and the one that ends first is seen first.
    by_call = {message.tool_call_id: message.content for message in pair[1:-1]}
    results = [by_call.get(call["id"]) for call in pair[0].tool_calls]
    expect(results == ["12547", "768"], pair)
    expect(all(result in pair[-1].text for result in results), pair)


def calls_in_the_thoughts(model: Any, *, stream: bool) -> None:
    """Nothing but a call ends the thoughts, so that there is no text beside them."""
    chain = run(model, CHAIN, stream=stream)
    expect([calls_of(message) for message in chain[::2]] == [1, 1, 1, 0], chain)
    expect([message.content for message in chain[1::2]] == ["89", "534", "500"], chain)
    expect(not any(message.text for message in chain[::2]), chain)


for streamed in (False, True):
    how = "streamed" if streamed else "whole"
    for name, made in (("chat completions", chat), ("Responses", responses)):
        cases(f"agent over {name}, three steps, {how}")(
            lambda made=made, stream=streamed: chain_of_three(made(), stream=stream)
        )
        cases(f"agent over {name}, two calls at once, {how}")(
            lambda made=made, stream=streamed: two_at_once(made(), stream=stream)
        )
    cases(f"agent, calls inside the thoughts, {how}", "vllm-project/vllm#16511")(
        lambda stream=streamed: calls_in_the_thoughts(model_of(cases.urls[1]), stream=stream)
    )

if __name__ == "__main__":
    cases.main()
