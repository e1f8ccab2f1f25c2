"""LlamaIndex: OpenAILike over completions and chat, Responses, and an agent with a tool."""

from __future__ import annotations

from typing import Any, Literal

from compat_cases import MODEL, Cases, calculated, expect
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from llama_index.llms.openai_like.responses import OpenAILikeResponses
from pydantic import BaseModel

QUESTION = "What is 348 + 275?"
CHAIN = "Add 71 and 18, then multiply by 6, then subtract 34."

cases = Cases()


class Larger(BaseModel):
    """Which number is larger."""

    larger: Literal["left", "right"]


def calculator(expression: str) -> str:
    """Calculates an arithmetic expression."""
    return calculated(expression)


def model_of(made: Any, **options: Any) -> Any:
    """A model of LlamaIndex."""
    settings = {"temperature": 0, "max_retries": 0, "context_window": 4096, **options}
    return made(model=MODEL, api_base=f"{cases.url}/v1", api_key="none", **settings)


def chat() -> Any:
    """Over chat completions."""
    return model_of(
        OpenAILike,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
    )


def responses() -> Any:
    """Over Responses."""
    return model_of(OpenAILikeResponses, is_function_calling_model=True)


@cases("complete() and stream_complete(), over completions as by default")
def completions() -> None:
    model = model_of(OpenAILike, max_tokens=8)
    whole = model.complete("348 + 275 =")
    *_, last = model.stream_complete("348 + 275 =")
    expect(whole.text, whole)
    expect(whole.text == last.text, (whole.text, last.text))


for name, make in (("chat completions", chat), ("Responses", responses)):

    @cases(f"chat() and stream_chat(), over {name}")
    def chats(make: Any = make) -> None:
        asked = [ChatMessage(role="user", content=QUESTION)]
        expect("623" in str(make().chat(asked)))
        chunks = list(make().stream_chat(asked))
        expect(len(chunks) > 3, len(chunks))
        expect("623" in str(chunks[-1]), chunks[-1])

    @cases(f"two turns, over {name}")
    def turns(make: Any = make) -> None:
        asked = [ChatMessage(role="user", content=QUESTION)]
        first = make().chat(asked).message
        second = make().chat([*asked, first, ChatMessage(role="user", content="What is 12 + 30?")])
        expect("42" in str(second), second)

    @cases(f"an agent with three steps, over {name}")
    async def agent(make: Any = make) -> None:
        tool: Any = FunctionTool.from_defaults(fn=calculator)
        made: Any = FunctionAgent
        worker = made(tools=[tool], llm=make(), system_prompt=None, streaming=True)
        result = await worker.run(user_msg=CHAIN)
        outputs = [call.tool_output.content for call in result.tool_calls]
        expect(outputs == ["89", "534", "500"], outputs)
        expect("500" in str(result), result)


@cases("structured_predict()")
def structured() -> None:
    found = chat().as_structured_llm(Larger).complete("Which is larger, 34 or 71?")
    expect(found.raw.larger in ("left", "right"), found)


@cases("the body that Responses send by default, a second turn by previous response")
def tracked() -> None:
    model = model_of(OpenAILikeResponses, track_previous_responses=True)
    expect("623" in str(model.chat([ChatMessage(role="user", content=QUESTION)])))
    second = model.chat([ChatMessage(role="user", content="What is 12 + 30?")])
    expect("42" in str(second), second)


if __name__ == "__main__":
    cases.main()
