"""LiteLLM as a library: chat completions, Responses and Messages."""

from __future__ import annotations

import json
from typing import Any, Literal

from compat_cases import MODEL, Cases, calculated, equal, expect
from pydantic import BaseModel

QUESTION: Any = {"role": "user", "content": "What is 348 + 275?"}
AGAIN: Any = {"role": "user", "content": "What is 12 + 30?"}
CHAIN = "Add 71 and 18, then multiply by 6, then subtract 34."
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Calculates an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "The expression."}},
            "required": ["expression"],
        },
    },
}
PROVIDERS = ("hosted_vllm", "openai")

cases = Cases()


class Larger(BaseModel):
    """Which number is larger."""

    larger: Literal["left", "right"]


def litellm() -> Any:
    """The library, which takes seconds to import."""
    import litellm as library

    library.suppress_debug_info = True
    return library


def options(provider: str) -> dict[str, Any]:
    """The model as LiteLLM names it, and where it is."""
    return {
        "model": f"{provider}/{MODEL}",
        "api_base": f"{cases.url}/v1",
        "api_key": "none",
        "temperature": 0,
        "num_retries": 0,
    }


for of in PROVIDERS:

    @cases(f"completion() of {of}, whole, with thoughts")
    def whole(provider: str = of) -> None:
        answer = litellm().completion(messages=[QUESTION], **options(provider))
        message = answer.choices[0].message
        expect("623" in message.content, message)
        expect(message.reasoning_content, message)

    @cases(f"completion() of {of}, streamed, with thoughts and usage")
    def streamed(provider: str = of) -> None:
        chunks = list(
            litellm().completion(
                messages=[QUESTION], stream=True, stream_options={"include_usage": True},
                **options(provider),
            )
        )  # fmt: skip
        built = litellm().stream_chunk_builder(chunks, messages=[QUESTION])
        message = built.choices[0].message
        expect("623" in message.content, message)
        expect(message.reasoning_content, message)
        expect(built.usage.completion_tokens > 0, built.usage)

    @cases(f"a loop of three calls, {of}", "BerriAI/litellm#30835")
    def loop(provider: str = of) -> None:
        messages: list[Any] = [{"role": "user", "content": CHAIN}]
        message: Any = None
        for number in range(4):
            stream = number % 2 == 1
            answer = litellm().completion(
                messages=messages, tools=[TOOL], stream=stream, **options(provider)
            )
            if stream:
                answer = litellm().stream_chunk_builder(list(answer), messages=messages)
            message = answer.choices[0].message
            expect(message.reasoning_content, message)
            messages.append(message.model_dump())
            calls = message.tool_calls or []
            equal(len(calls), 1 if number < 3 else 0)
            for call in calls:
                content = calculated(json.loads(call.function.arguments)["expression"])
                messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
        expect("500" in message.content, message)


@cases("reasoning_effort and thinking")
def effort() -> None:
    fields: dict[str, Any] = {"messages": [QUESTION], **options("hosted_vllm")}
    for extra in (
        {"reasoning_effort": "low"},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    ):
        message = litellm().completion(**extra, **fields).choices[0].message
        expect("623" in message.content, message)


@cases("response_format of a class")
def structured() -> None:
    answer = litellm().completion(
        messages=[{"role": "user", "content": "Which is larger, 34 or 71?"}],
        response_format=Larger,
        **options("hosted_vllm"),
    )
    Larger.model_validate_json(answer.choices[0].message.content)


@cases("text_completion()")
def text() -> None:
    fields = options("hosted_vllm")
    answer = litellm().text_completion(prompt="348 + 275 =", max_tokens=8, **fields)
    expect(answer.choices[0].text, answer)


@cases("responses(), whole and streamed, and a second turn by previous response")
def responses() -> None:
    first = litellm().responses(input=[QUESTION], **options("openai"))
    expect("623" in first.output[-1].content[0].text, first)
    events = list(
        litellm().responses(
            input=[AGAIN], stream=True, previous_response_id=first.id, **options("openai")
        )
    )
    last = events[-1].response
    expect("42" in last.output[-1].content[0].text, last)


@cases("anthropic_messages(), whole and streamed")
async def messages() -> None:
    fields = options("anthropic")
    fields["api_base"] = cases.url
    body: dict[str, Any] = {"messages": [QUESTION], "max_tokens": 1000, **fields}
    answer = await litellm().anthropic.messages.acreate(**body)
    expect("623" in answer["content"][-1]["text"], answer)
    stream = await litellm().anthropic.messages.acreate(stream=True, **body)
    found = b"".join([chunk async for chunk in stream])
    expect(b"message_stop" in found, found[-200:])


@cases("completion() of anthropic, streamed, with a call")
def anthropic() -> None:
    fields = options("anthropic")
    fields["api_base"] = cases.url
    asked: Any = {"messages": [{"role": "user", "content": CHAIN}], "tools": [TOOL]}
    chunks = list(litellm().completion(stream=True, max_tokens=1000, **asked, **fields))
    message = litellm().stream_chunk_builder(chunks).choices[0].message
    expect(message.reasoning_content, message)
    equal(calculated(json.loads(message.tool_calls[0].function.arguments)["expression"]), "89")


@cases("errors are those of the library")
def errors() -> None:
    fields = options("hosted_vllm")
    try:
        litellm().completion(messages=[{"role": "user", "content": "x " * 9000}], **fields)
    except litellm().ContextWindowExceededError as error:
        expect("context" in str(error), error)
    else:
        raise AssertionError("a prompt beyond the context was accepted")


if __name__ == "__main__":
    cases.main()
