"""LangChain's agent: over chat completions and Responses, whole and streamed.

The second server's model opens its calls inside its thoughts.
"""

from __future__ import annotations

from typing import Any

from compat_cases import MODEL, Cases, calculated, expect

CHAIN = "Add 71 and 18, then multiply by 6, then subtract 34."
QUESTION = "What is 348 + 275?"
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


@cases("ChatAnthropic, agent with three steps, whole and streamed")
def anthropic() -> None:
    from langchain_anthropic import ChatAnthropic

    made: Any = ChatAnthropic
    model = made(
        base_url=cases.url, api_key="none", model_name=MODEL, max_tokens=1500, max_retries=0,
        temperature=0, thinking={"type": "enabled", "budget_tokens": 1024},
    )  # fmt: skip
    for stream in (False, True):
        chain_of_three(model, stream=stream)


@cases("streamed Responses show the thoughts", "CherryHQ/cherry-studio#17789")
def summaries() -> None:
    kinds: dict[str, str] = {}
    for chunk in responses().stream(QUESTION):
        for block in chunk.content_blocks:
            text = block.get("reasoning") or block.get("text") or ""
            kinds[block["type"]] = kinds.get(block["type"], "") + text
    expect(kinds.get("reasoning"), kinds)
    expect("623" in kinds["text"], kinds)


@cases("a conversation with its earlier messages, over both APIs", "langchain-ai/langchain#34177")
def history() -> None:
    for model in (chat(), responses()):
        first = model.invoke(QUESTION)
        second = model.invoke([("human", QUESTION), first, ("human", "What is 12 + 30?")])
        expect("42" in second.text, second)


@cases("with_structured_output, over both APIs and as a call")
def structured() -> None:
    schema = {
        "title": "Larger",
        "description": "Which number is larger.",
        "type": "object",
        "properties": {"larger": {"type": "string", "enum": ["left", "right"]}},
        "required": ["larger"],
        "additionalProperties": False,
    }
    for model, method in (
        (chat(), "json_schema"), (responses(), "json_schema"), (chat(), "function_calling"),
    ):  # fmt: skip
        found = model.with_structured_output(schema, method=method, strict=True).invoke(
            "Which is larger, 34 or 71?"
        )
        expect(found["larger"] in ("left", "right"), found)


@cases("usage of a stream")
def usage() -> None:
    total: Any = None
    for chunk in model_of(cases.url, stream_usage=True).stream(QUESTION):
        total = chunk if total is None else total + chunk
    expect(total.usage_metadata["output_tokens"] > 0, total)


if __name__ == "__main__":
    cases.main()
