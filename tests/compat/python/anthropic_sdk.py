"""The `anthropic` package: whole messages, streams with thoughts and tools, counts of tokens."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic, AsyncAnthropic, BadRequestError, NotFoundError
from compat_cases import MODEL, Cases, calculated, equal, expect, headers

QUESTION: Any = {"role": "user", "content": "What is 348 + 275?"}
AGAIN: Any = {"role": "user", "content": "What is 12 + 30?"}
CHAIN = "Add 71 and 18, then multiply by 6, then subtract 34."
PAIR = "What is 7129 + 5418? And what is 64 * 12?"
TOOL: Any = {
    "name": "calculator",
    "description": "Calculates an arithmetic expression.",
    "input_schema": {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "The expression."}},
        "required": ["expression"],
    },
}
# Newer versions of the package have no name for the temperature.
BODY: dict[str, Any] = {"model": MODEL, "max_tokens": 1500, "extra_body": {"temperature": 0}}

cases = Cases()


def options() -> dict[str, Any]:
    """What every client is made with."""
    return {
        "base_url": cases.url, "api_key": "none", "max_retries": 0, "default_headers": headers(),
    }  # fmt: skip


def client() -> Any:
    """A client of the server."""
    return Anthropic(**options())


def spoken(stream: bool, **fields: Any) -> Any:
    """A message, as the package puts it together."""
    body = {**BODY, **fields}
    if not stream:
        return client().messages.create(**body)
    with client().messages.stream(**body) as events:
        return events.get_final_message()


def loop(prompt: str, *, stream: bool) -> tuple[list[int], Any]:
    """The number of calls of each turn, and the last message."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    counts: list[int] = []
    while len(counts) < 6:
        message = spoken(stream, messages=messages, tools=[TOOL])
        equal(message.content[0].type, "thinking")
        calls = [block for block in message.content if block.type == "tool_use"]
        counts.append(len(calls))
        equal(message.stop_reason, "tool_use" if calls else "end_turn")
        if not calls:
            return counts, message
        results = [
            {
                "type": "tool_result",
                "tool_use_id": call.id,
                "content": calculated(call.input["expression"]),
            }
            for call in calls
        ]
        messages += [
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": results},
        ]
    raise AssertionError(f"it goes on calling: {counts}")


for streamed in (False, True):
    how = "streamed" if streamed else "whole"

    @cases(f"message with thinking, {how}")
    def message(stream: bool = streamed) -> None:
        found = spoken(
            stream, messages=[QUESTION], thinking={"type": "enabled", "budget_tokens": 1024}
        )
        equal([block.type for block in found.content], ["thinking", "text"])
        expect(found.content[0].thinking and found.content[0].signature, found)
        expect("623" in found.content[1].text, found)

    @cases(f"a loop of three calls with thoughts sent back, {how}", "huggingface/chat-ui#2470")
    def chain(stream: bool = streamed) -> None:
        counts, last = loop(CHAIN, stream=stream)
        equal(counts, [1, 1, 1, 0])
        expect("500" in last.content[-1].text, last)
        expect(last.usage.cache_read_input_tokens > 0, last.usage)

    @cases(f"two calls at once, {how}")
    def pair(stream: bool = streamed) -> None:
        counts, last = loop(PAIR, stream=stream)
        equal(counts, [2, 0])
        expect("12547" in last.content[-1].text and "768" in last.content[-1].text, last)


@cases("events of a stream, in the order of the API")
def events() -> None:
    kinds: list[str] = []
    text = thoughts = ""
    with client().messages.stream(messages=[QUESTION], **BODY) as stream:
        for event in stream:
            kinds.append(event.type)
            text += event.text if event.type == "text" else ""
            thoughts += event.thinking if event.type == "thinking" else ""
        final = stream.get_final_message()
    equal((kinds[0], kinds[-1]), ("message_start", "message_stop"))
    equal([final.content[0].thinking, final.content[1].text], [thoughts, text])
    equal(kinds.count("content_block_start"), kinds.count("content_block_stop"))
    expect("signature" in kinds, set(kinds))


@cases("input of a call comes in pieces of JSON")
def pieces_of_input() -> None:
    pieces = ""
    asked = [{"role": "user", "content": CHAIN}]
    with client().messages.stream(messages=asked, tools=[TOOL], **BODY) as stream:
        for event in stream:
            if event.type == "input_json":
                pieces += event.partial_json
        final = stream.get_final_message()
    expect(final.content[-1].input["expression"] in pieces, pieces)


@cases("thinking disabled, adaptive, and not shown")
def thinking() -> None:
    disabled = spoken(False, messages=[QUESTION], thinking={"type": "disabled"})
    equal([block.type for block in disabled.content], ["text"])
    adaptive = spoken(False, messages=[QUESTION], thinking={"type": "adaptive"})
    equal([block.type for block in adaptive.content], ["thinking", "text"])
    hidden = spoken(True, messages=[QUESTION], thinking={"type": "adaptive", "display": "omitted"})
    equal(hidden.content[0].thinking, "")


@cases("system as blocks with cache_control", "vllm-project/vllm#44000")
def system_blocks() -> None:
    block = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    found = spoken(False, system=[block], messages=[QUESTION])
    expect("623" in found.content[-1].text, found)


@cases("a system turn inside messages", "vllm-project/vllm#44000")
def system_turn() -> None:
    # The template of the embedded model knows one such turn, at the beginning.
    found = spoken(False, messages=[{"role": "system", "content": "Be brief."}, QUESTION])
    expect("623" in found.content[-1].text, found)


@cases("a system prompt with a billing header is the same prompt each time",
       "sgl-project/sglang#21064")  # fmt: skip
def billing_header() -> None:
    used = []
    for nonce in ("1f0c", "9e3a"):
        line = f"x-anthropic-billing-header: cc_version=2.1.40; cch={nonce};"
        blocks = [{"type": "text", "text": line}, {"type": "text", "text": "Be brief. " * 60}]
        used.append(spoken(False, system=blocks, messages=[QUESTION]).usage)
    expect(used[1].cache_read_input_tokens > used[1].input_tokens, used)


@cases("stop sequences and bounds")
def bounds() -> None:
    stopped = spoken(True, messages=[QUESTION], stop_sequences=["623"])
    equal((stopped.stop_reason, stopped.stop_sequence), ("stop_sequence", "623"))
    equal(spoken(False, messages=[QUESTION], max_tokens=3).stop_reason, "max_tokens")


@cases("a tool that must be called, and none at all")
def choices() -> None:
    asked: Any = {"messages": [AGAIN], "tools": [TOOL]}
    must = spoken(False, tool_choice={"type": "tool", "name": "calculator"}, **asked)
    equal(must.stop_reason, "tool_use")
    none = spoken(False, tool_choice={"type": "none"}, **asked)
    equal(none.stop_reason, "end_turn")


@cases("tokens are counted as they are used")
def counted() -> None:
    found = client().messages.count_tokens(model=MODEL, messages=[QUESTION], tools=[TOOL])
    usage = spoken(False, messages=[QUESTION], tools=[TOOL]).usage
    equal(found.input_tokens, usage.input_tokens + usage.cache_read_input_tokens)


@cases("the beta client")
def beta() -> None:
    found = client().beta.messages.create(
        messages=[QUESTION], betas=["interleaved-thinking-2025-05-14"], **BODY
    )
    expect("623" in found.content[-1].text, found)


@cases("models")
def models() -> None:
    expect(MODEL in [one.id for one in client().models.list()])
    equal(client().models.retrieve(MODEL).id, MODEL)


@cases("errors are those of the package, with the request's id")
def errors() -> None:
    for wanted, fields in (
        (BadRequestError, {"messages": []}),
        (NotFoundError, {"messages": [QUESTION], "model": "another"}),
    ):
        try:
            spoken(False, **fields)
        except wanted as error:
            expect(error.request_id, error)
        else:
            raise AssertionError(f"no error for {fields}")


@cases("a stream that the client closes, and the next request")
async def closed() -> None:
    async with AsyncAnthropic(**options()) as api:
        made: Any = api.messages
        async with made.stream(messages=[QUESTION], **BODY) as stream:
            async for event in stream:
                if event.type == "content_block_start":
                    break
        found = await made.create(messages=[AGAIN], **BODY)
        expect("42" in found.content[-1].text, found)


if __name__ == "__main__":
    cases.main()
