"""The `openai` package: chat completions, Responses over HTTP and WebSocket, conversations."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

from compat_cases import MODEL, Cases, calculated, equal, expect, headers
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

QUESTION: Any = {"role": "user", "content": "What is 348 + 275?"}
WHICH: Any = {"role": "user", "content": "Which is larger, 34 or 71?"}
AGAIN: Any = {"role": "user", "content": "What is 12 + 30?"}
CHAIN = "Add 71 and 18, then multiply by 6, then subtract 34."
PAIR = "What is 7129 + 5418? And what is 64 * 12?"
FUNCTION: dict[str, Any] = {
    "name": "calculator",
    "description": "Calculates an arithmetic expression.",
    "parameters": {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "The expression."}},
        "required": ["expression"],
        "additionalProperties": False,
    },
}
CHAT_TOOL: Any = {"type": "function", "function": FUNCTION}
TOOL: Any = {"type": "function", **FUNCTION}
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0}

cases = Cases()


class Larger(BaseModel):
    """A form of an answer."""

    larger: Literal["left", "right"]


def options() -> dict[str, Any]:
    """What every client is made with."""
    url = f"{cases.url}/v1"
    return {
        "base_url": url, "api_key": "none", "max_retries": 0, "default_headers": headers(),
    }  # fmt: skip


def client() -> Any:
    """A client of the server."""
    return OpenAI(**options())


def result_of(arguments: str) -> str:
    """What the tool returns."""
    return calculated(json.loads(arguments)["expression"])


# ---- chat completions ----------------------------------------------------------------------------


@cases("models, with the length of the context")
def models() -> None:
    equal([one.id for one in client().models.list()], [MODEL])
    expect(client().models.retrieve(MODEL).to_dict()["max_model_len"] > 1000)


@cases("chat completion, whole, with thoughts")
def chat_whole() -> None:
    completion = client().chat.completions.create(messages=[QUESTION], **GREEDY)
    message = completion.choices[0].message
    expect("623" in message.content, message)
    expect(message.model_extra["reasoning_content"], message)
    equal(completion.choices[0].finish_reason, "stop")
    expect(completion.usage.total_tokens > completion.usage.prompt_tokens > 0, completion.usage)


@cases("chat completion, streamed, usage at the end", "vllm-project/vllm#7262")
def chat_streamed() -> None:
    stream = client().chat.completions.create(
        messages=[QUESTION], stream=True, stream_options={"include_usage": True}, **GREEDY
    )
    *chunks, last = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    expect("623" in "".join(delta.content or "" for delta in deltas))
    expect("".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas))
    equal((last.choices, last.usage.completion_tokens > 0), ([], True))
    equal(chunks[-1].choices[0].finish_reason, "stop")
    equal(deltas[0].role, "assistant")


@cases("chat completion, put together by the package's stream()")
def chat_stream_helper() -> None:
    with client().chat.completions.stream(messages=[QUESTION], **GREEDY) as stream:
        kinds = {event.type for event in stream}
        completion = stream.get_final_completion()
    expect({"chunk", "content.delta", "content.done"} <= kinds, kinds)
    expect("623" in completion.choices[0].message.content, completion)


@cases("chat completion, two choices with log probabilities")
def chat_choices() -> None:
    completion = client().chat.completions.create(
        messages=[QUESTION], n=2, logprobs=True, top_logprobs=2, model=MODEL, seed=1
    )
    equal([choice.index for choice in completion.choices], [0, 1])
    for choice in completion.choices:
        tokens = choice.logprobs.content
        equal("".join(one.token for one in tokens).strip(), choice.message.content.strip())
        expect(all(len(one.top_logprobs) == 2 for one in tokens))


def chat_loop(prompt: str, *, stream: bool) -> tuple[list[int], str]:
    """The number of calls of each turn, and the answer."""
    messages: list[Any] = [{"role": "user", "content": prompt}]
    counts: list[int] = []
    while len(counts) < 6:
        body = {"messages": messages, "tools": [CHAT_TOOL], **GREEDY}
        if stream:
            with client().chat.completions.stream(**body) as events:
                for _ in events:
                    pass
                message = events.get_final_completion().choices[0].message
        else:
            message = client().chat.completions.create(**body).choices[0].message
        expect(message.model_extra["reasoning_content"], message)
        messages.append(message.model_dump(exclude_none=True))
        calls = message.tool_calls or []
        counts.append(len(calls))
        if not calls:
            return counts, message.content
        for call in calls:
            content = result_of(call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    raise AssertionError(f"it goes on calling: {counts}")


for streamed in (False, True):
    how = "streamed" if streamed else "whole"

    @cases(f"chat completions, a loop of three calls, {how}", "vllm-project/vllm#27641")
    def chat_tools(stream: bool = streamed) -> None:
        counts, text = chat_loop(CHAIN, stream=stream)
        equal(counts, [1, 1, 1, 0])
        expect("500" in text, text)

    @cases(f"chat completions, two calls at once, {how}")
    def chat_two(stream: bool = streamed) -> None:
        counts, text = chat_loop(PAIR, stream=stream)
        equal(counts, [2, 0])
        expect("12547" in text and "768" in text, text)


@cases("chat completion, an empty list of tools", "open-webui/open-webui#26655")
def chat_no_tools() -> None:
    completion = client().chat.completions.create(messages=[QUESTION], tools=[], **GREEDY)
    expect("623" in completion.choices[0].message.content)


@cases("chat completions, parse() with thoughts before the form", "vllm-project/vllm#47027")
def chat_parse() -> None:
    completion = client().chat.completions.parse(messages=[WHICH], response_format=Larger, **GREEDY)
    message = completion.choices[0].message
    expect(message.parsed.larger in ("left", "right"), message)
    expect(message.model_extra["reasoning_content"], message)


@cases("completions, the older API")
def completions() -> None:
    completion = client().completions.create(prompt="348 + 275 =", max_tokens=8, **GREEDY)
    equal(completion.usage.completion_tokens, 8)
    chunks = list(
        client().completions.create(prompt="348 + 275 =", max_tokens=8, stream=True, **GREEDY)
    )
    equal("".join(chunk.choices[0].text for chunk in chunks if chunk.choices),
          completion.choices[0].text)  # fmt: skip


# ---- Responses -----------------------------------------------------------------------------------


@cases("Responses, whole, and every field read by its name")
def responses_whole() -> None:
    response = client().responses.create(input=[QUESTION], **GREEDY)
    expect("623" in response.output_text, response)
    equal([item.type for item in response.output], ["reasoning", "message"])
    equal(response.created_at, int(response.created_at))
    expect(response.usage.output_tokens_details.reasoning_tokens > 0, response.usage)
    equal(client().responses.retrieve(response.id).output_text, response.output_text)
    items = client().responses.input_items.list(response.id).data
    equal([item.type for item in items], ["message"])
    client().responses.delete(response.id)
    try:
        client().responses.retrieve(response.id)
    except NotFoundError as error:
        equal(error.code, "response_not_found")
    else:
        raise AssertionError("a deleted response is still there")


@cases("Responses, streamed, ids are the same in all events", "vllm-project/vllm#56285")
def responses_streamed() -> None:
    with client().responses.stream(
        input=[{"role": "user", "content": CHAIN}], tools=[TOOL], **GREEDY
    ) as stream:
        events = list(stream)
        response = stream.get_final_response()
    equal([event.sequence_number for event in events if "sequence_number" in event.to_dict()],
          list(range(len(events))))  # fmt: skip
    done = [event.item.id for event in events if event.type == "response.output_item.done"]
    equal(done, [item.id for item in response.output])
    arguments = [e for e in events if e.type == "response.function_call_arguments.done"]
    (call,) = [item for item in response.output if item.type == "function_call"]
    equal([(e.item_id, e.arguments) for e in arguments], [(call.id, call.arguments)])


@cases("Responses, the summary shows the thoughts", "CherryHQ/cherry-studio#17789")
def responses_summary() -> None:
    with client().responses.stream(
        input=[QUESTION], reasoning={"summary": "auto"}, **GREEDY
    ) as stream:
        kind = "response.reasoning_summary_text.delta"
        text = "".join(event.delta for event in stream if event.type == kind)
        response = stream.get_final_response()
    expect(text)
    equal(response.output[0].summary[0].text, text)


for streamed in (False, True):
    how = "streamed" if streamed else "whole"

    @cases(f"Responses, a loop of three calls by previous response, {how}")
    def responses_tools(stream: bool = streamed) -> None:
        inputs: Any = CHAIN
        response: Any = None
        fields: dict[str, Any] = {"tools": [TOOL], **GREEDY}
        for number in range(4):
            if stream:
                with client().responses.stream(input=inputs, **fields) as events:
                    response = events.get_final_response()
            else:
                response = client().responses.create(input=inputs, **fields)
            calls = [item for item in response.output if item.type == "function_call"]
            equal(len(calls), 1 if number < 3 else 0)
            fields["previous_response_id"] = response.id
            inputs = [
                {
                    "type": "function_call_output",
                    "call_id": call.call_id,
                    "output": result_of(call.arguments),
                }
                for call in calls
            ]
        expect("500" in response.output_text, response)


@cases("Responses, output sent back as objects and as model_dump()",
       "openai/openai-python#3008", "vllm-project/vllm#28248")  # fmt: skip
def responses_output_back() -> None:
    first = client().responses.create(input=[QUESTION], **GREEDY)
    for output in (first.output, [item.model_dump() for item in first.output]):
        second = client().responses.create(input=[QUESTION, *output, AGAIN], **GREEDY)
        expect("42" in second.output_text, second)


@cases("Responses, references to items", "commontoolsinc/labs#5071")
def responses_references() -> None:
    first = client().responses.create(input=[QUESTION], **GREEDY)
    items = [{"type": "item_reference", "id": item.id} for item in first.output]
    second = client().responses.create(input=[QUESTION, *items, AGAIN], **GREEDY)
    expect("42" in second.output_text, second)


@cases("Responses, a custom tool", "vllm-project/vllm#56285")
def responses_custom_tool() -> None:
    tool = {"type": "custom", "name": "calculator", "description": FUNCTION["description"]}
    with client().responses.stream(
        input="What is 7129 + 5418?",
        tools=[tool],
        tool_choice={"type": "custom", "name": "calculator"},
        max_output_tokens=600,
        **GREEDY,
    ) as stream:
        events = list(stream)
        response = stream.get_final_response()
    (call,) = [item for item in response.output if item.type == "custom_tool_call"]
    done = [event for event in events if event.type == "response.custom_tool_call_input.done"]
    equal([(event.item_id, event.input) for event in done], [(call.id, call.input)])


@cases("Responses, parse() with thoughts before the form", "vllm-project/vllm#47027")
def responses_parse() -> None:
    response = client().responses.parse(input=[WHICH], text_format=Larger, **GREEDY)
    expect(response.output_parsed.larger in ("left", "right"), response)
    expect(response.output[0].content[0].text, response.output)


@cases("Responses, encrypted thoughts with nothing stored", "vllm-project/vllm#33089")
def responses_encrypted() -> None:
    fields = {"store": False, "include": ["reasoning.encrypted_content"], **GREEDY}
    first = client().responses.create(input=[QUESTION], **fields)
    expect(first.output[0].encrypted_content, first.output)
    second = client().responses.create(input=[QUESTION, *first.output, AGAIN], **fields)
    expect("42" in second.output_text, second)


@cases("Responses, the tokens of the input are counted")
def responses_input_tokens() -> None:
    first = client().responses.create(input=[QUESTION], **GREEDY)
    body: dict[str, Any] = {"input": [AGAIN], "tools": [TOOL], "previous_response_id": first.id}
    counted = client().responses.input_tokens.count(model=MODEL, **body)
    equal(counted.input_tokens, client().responses.create(**body, **GREEDY).usage.input_tokens)


@cases("Responses, log probabilities", "vllm-project/vllm#56285")
def responses_logprobs() -> None:
    response = client().responses.create(
        input=[QUESTION], include=["message.output_text.logprobs"], top_logprobs=2, **GREEDY
    )
    content = response.output[-1].content[0]
    equal("".join(one.token for one in content.logprobs).strip(), content.text.strip())


@cases("Responses in the background, polled")
def background_polled() -> None:
    response = client().responses.create(input=[QUESTION], background=True, **GREEDY)
    deadline_s = time.monotonic() + 60
    while response.status in ("queued", "in_progress"):
        expect(time.monotonic() < deadline_s, "not done after 60 s")
        time.sleep(0.05)
        response = client().responses.retrieve(response.id)
    equal((response.status, "623" in response.output_text), ("completed", True))


@cases("Responses in the background, streamed and resumed")
def background_streamed() -> None:
    stream = client().responses.create(input=[QUESTION], background=True, stream=True, **GREEDY)
    seen = []
    for event in stream:
        seen.append(event)
        if len(seen) == 5:
            break
    stream.close()
    rest = list(
        client().responses.retrieve(
            seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
        )
    )
    numbers = [event.sequence_number for event in (*seen, *rest)]
    equal(numbers, list(range(len(numbers))))
    expect("623" in rest[-1].response.output_text)


@cases("Responses in the background, cancelled")
def background_cancelled() -> None:
    response = client().responses.create(
        input=[QUESTION], background=True, model=MODEL,
        extra_body={"forced_lengths": {"reasoning_tokens": 900, "answer_tokens": 900}},
    )  # fmt: skip
    equal(client().responses.cancel(response.id).status, "cancelled")


@cases("conversations", "praxis-proxy/ai#53")
def conversations() -> None:
    conversation = client().conversations.create(metadata={"topic": "sums"})
    answers = [
        client().responses.create(input=[one], conversation=conversation.id, **GREEDY).output_text
        for one in (QUESTION, AGAIN)
    ]
    expect("623" in answers[0] and "42" in answers[1], answers)
    items = list(client().conversations.items.list(conversation.id, order="asc"))
    equal([item.type for item in items], ["message", "reasoning", "message"] * 2)
    equal(client().conversations.items.retrieve(items[0].id, conversation_id=conversation.id).id,
          items[0].id)  # fmt: skip
    client().conversations.update(conversation.id, metadata={"topic": "others"})
    equal(client().conversations.retrieve(conversation.id).metadata, {"topic": "others"})
    expect(client().conversations.delete(conversation.id).deleted)


# ---- WebSocket -----------------------------------------------------------------------------------


def of_one(connection: Any) -> list[Any]:
    """The events up to a terminal one."""
    events = []
    for event in connection:
        events.append(event)
        if event.type in ("response.completed", "response.incomplete", "error"):
            return events
    raise AssertionError("the connection was closed")


@cases("Responses over a WebSocket, a loop of three calls", "openai/openai-agents-python#2558")
def websocket_tools() -> None:
    with client().responses.connect() as connection:
        inputs: Any = CHAIN
        response: Any = None
        fields: dict[str, Any] = {"tools": [TOOL], **GREEDY}
        for number in range(4):
            connection.response.create(input=inputs, **fields)
            response = of_one(connection)[-1].response
            calls = [item for item in response.output if item.type == "function_call"]
            equal(len(calls), 1 if number < 3 else 0)
            fields["previous_response_id"] = response.id
            inputs = [
                {
                    "type": "function_call_output",
                    "call_id": call.call_id,
                    "output": result_of(call.arguments),
                }
                for call in calls
            ]
        expect("500" in response.output_text, response)


@cases("Responses over a WebSocket, another one after an error", "anomalyco/opencode#50848")
def websocket_error() -> None:
    with client().responses.connect() as connection:
        connection.response.create(model="another", input=[QUESTION])
        equal(of_one(connection)[-1].type, "error")
        connection.response.create(input=[QUESTION], **GREEDY)
        expect("623" in of_one(connection)[-1].response.output_text)


@cases("Responses over a WebSocket, decimals", "openai/openai-python#2919")
def websocket_decimals() -> None:
    with client().responses.connect() as connection:
        connection.response.create(input=[QUESTION], model=MODEL, temperature=0.01, top_p=0.95)
        equal(of_one(connection)[-1].response.top_p, 0.95)


# ---- errors and clients that leave ---------------------------------------------------------------


@cases("errors are those of the package, with the field and the request's id")
def errors() -> None:
    try:
        client().responses.create(input=[{"role": "nobody", "content": "x"}], **GREEDY)
    except BadRequestError as error:
        equal((error.param, bool(error.request_id)), ("input[0].role", True))
    else:
        raise AssertionError("a wrong role was accepted")


@cases("a stream that the client closes, and the next request")
async def closed() -> None:
    async with AsyncOpenAI(**options()) as api:
        create: Any = api.responses.create
        stream = await create(input=[QUESTION], stream=True, **GREEDY)
        async for event in stream:
            if event.type == "response.output_item.added":
                break
        await stream.close()
        response = await create(input=[AGAIN], **GREEDY)
        expect("42" in response.output_text, response)


if __name__ == "__main__":
    cases.main()
