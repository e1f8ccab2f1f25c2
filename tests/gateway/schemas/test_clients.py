"""Bodies that clients send by default, taken from their wire or their sources."""

from __future__ import annotations

import enum
import json
from typing import Any, Literal

import httpx2
import openai
import pytest
from pydantic import BaseModel, Field

from gateway.config import PacingConfig
from gateway.schemas.bodies import ChatBody, ResponsesBody, parse_body, parse_json_object
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import Generation, default_targets, from_chat, from_responses
from gateway.schemas.messages import from_messages
from gateway.schemas.messages_body import parse_messages
from workers.messages import Structure

DEFAULTS = default_targets(PacingConfig(), {})
MESSAGES = [{"role": "user", "content": "What is 348 + 275?"}]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
PARAMETERS = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "path": {"type": "string", "description": "The file to read", "default": None},
        "lines": {"type": ["integer", "null"], "exclusiveMinimum": 0},
    },
    "required": ["path"],
    "additionalProperties": False,
}


def of_chat(**fields: Any) -> Generation:
    document = parse_json_object(json.dumps({"model": "m", "messages": MESSAGES, **fields}))
    return from_chat(parse_body(document, ChatBody), DEFAULTS)


def of_responses(**fields: Any) -> Generation:
    document = parse_json_object(json.dumps({"model": "m", "input": "What is 2 + 2?", **fields}))
    return from_responses(parse_body(document, ResponsesBody), (), DEFAULTS)


def functions(*names: str, nested: bool = True, **fields: Any) -> list[dict[str, Any]]:
    made = [{"name": name, "description": "x", "parameters": PARAMETERS} for name in names]
    if nested:
        return [{"type": "function", "function": {**one, **fields}} for one in made]
    return [{"type": "function", **one, **fields} for one in made]


CHAT: dict[str, dict[str, Any]] = {
    "AI SDK, openai-compatible": USAGE,
    "@langchain/openai": USAGE,
    "LibreChat": {
        **USAGE,
        "user": "u1",
        "temperature": 1,
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "reasoning": {"effort": "high"},
    },
    "n8n": {
        "temperature": 0.7,
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "stream": True,
    },
    "LlamaIndex": {"temperature": 0.1, "stream": False},
    "llm": {**USAGE, "reasoning_effort": "low"},
    "aider": {"stream": True, "temperature": 0},
    "opencode": {
        **USAGE,
        "max_tokens": 32000,
        "tools": functions("bash", "edit", "webfetch", "glob", "grep", "list", "read", "todowrite"),
        "tool_choice": "auto",
    },
    "Cline": {**USAGE, "temperature": 0, "max_tokens": 8192, "tools": functions("read_file")},
    "Open WebUI, emoji": {**USAGE, "max_tokens": 4},
    "Open WebUI, tools": {**USAGE, "tools": [], "tool_choice": "auto"},
    "Home Assistant, local_openai": {
        "temperature": 0.6,
        "parallel_tool_calls": False,
        "tools": functions("HassTurnOn", strict=False),
        "chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "low"},
        "metadata": {"session_id": "01J"},
        "thinking_token_budget": 512,
    },
    "Zed": {
        **USAGE,
        "max_completion_tokens": 4096,
        "temperature": 1.0,
        "prompt_cache_key": "k",
        "messages": [
            *MESSAGES,
            {"role": "assistant", "content": "623", "reasoning_content": "Add."},
            *MESSAGES,
        ],
    },
    "Continue": {"max_tokens": 2048, "stream": True, "stop": ["<|im_end|>"] * 20},
    "pydantic-ai, tool output": {
        "stream": False,
        "tools": functions("final_result", strict=True),
        "tool_choice": "required",
        "parallel_tool_calls": True,
    },
    "instructor, JSON schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "Sum", "schema": SCHEMA, "strict": True},
        }
    },
    "dspy": {"stream": False, "n": 1, "response_format": {"type": "json_object"}},
    "llm --schema": {
        **USAGE,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": SCHEMA},
        },
    },
    "vLLM's extras": {
        "min_tokens": 2,
        "stop_token_ids": [2],
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "add_generation_prompt": True,
        "continue_final_message": False,
        "include_reasoning": True,
        "reasoning": {},
        "enable_thinking": True,
    },
}


@pytest.mark.parametrize("client", CHAT)
def test_chat_completions_of(client: str) -> None:
    assert of_chat(**CHAT[client]).messages[0].content == "What is 348 + 275?"


NULLS = ["include", "instructions", "max_output_tokens", "metadata", "previous_response_id", "user"]
CODEX_TOOLS = [
    *functions("shell", "update_plan", "view_image", nested=False, strict=False),
    {
        "type": "namespace",
        "name": "multi_agent",
        "description": "Agents.",
        "tools": functions("spawn", nested=False, strict=False),
    },
]
CODEX: dict[str, Any] = {
    "stream": True,
    "input": [
        {"type": "message", "role": role, "content": [{"type": "input_text", "text": "x"}]}
        for role in ("developer", "developer", "user", "user")
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199",
    "client_metadata": {"a": "b"},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "AI SDK, openai": {"stream": True},
    "@langchain/openai": {"stream": True, "text": {}},
    "langchain-openai": {"stream": False, "reasoning": {}},
    "n8n": {"text": {}, "service_tier": "auto", "metadata": {}, "top_logprobs": 0},
    "LlamaIndex": {
        **dict.fromkeys(NULLS),
        "truncation": "disabled",
        "tools": [],
        "top_p": 1,
        "store": True,
    },
    "Agents SDK": {"stream": False, "include": [], "tools": []},
    "Semantic Kernel": {"metadata": {}, "previous_response_id": None, "text": {}, "tools": []},
    "Home Assistant": {
        "max_output_tokens": 150,
        "top_p": 1,
        "temperature": 1,
        "user": "u1",
        "store": False,
        "stream": True,
        "tools": functions("HassTurnOn", nested=False, strict=False),
    },
    "Zed": {"stream": True, "max_output_tokens": 900, "reasoning": {"effort": "medium"}},
    "Codex": {**CODEX, "tools": CODEX_TOOLS},
    "pydantic-ai": {
        "text": {"format": {"type": "json_schema", "name": "Sum", "schema": SCHEMA, "strict": True}}
    },
}


@pytest.mark.parametrize("client", RESPONSES)
def test_responses_of(client: str) -> None:
    assert of_responses(**RESPONSES[client]).messages


def test_what_they_ask_for_reaches_the_worker() -> None:
    assistant = of_chat(**CHAT["Home Assistant, local_openai"])
    assert (assistant.thinking, assistant.template) == (False, {"reasoning_effort": "low"})
    assert (assistant.tool_choice.parallel, assistant.sampling.thinking_budget) == (False, 512)
    assert of_chat(**CHAT["LibreChat"]).effort == "high"
    assert of_chat(**CHAT["Zed"]).messages[1].reasoning == "Add."
    assert of_chat(**CHAT["dspy"]).structure == Structure(kind="json_object")
    schema = Structure(kind="json", value=SCHEMA)
    assert of_chat(**CHAT["instructor, JSON schema"]).structure == schema
    assert of_responses(**RESPONSES["pydantic-ai"]).structure == schema
    assert of_chat(**CHAT["opencode"]).tools[0]["function"]["parameters"] == PARAMETERS
    codex = of_responses(**RESPONSES["Codex"])
    assert [tool["function"]["name"] for tool in codex.tools] == [
        *("shell", "update_plan", "view_image", "multi_agent__spawn")
    ]


@pytest.mark.parametrize(
    "extra",
    [
        {"repeat_penalty": 1.1},
        {"num_ctx": 4096},
        {"mirostat": 1},
        {"think": True},
        {"keep_alive": "5m"},
        {"include_reasoning": False},
        {"skip_special_tokens": False},
        {"add_generation_prompt": False},
        {"continue_final_message": True},
    ],
)
def test_what_would_change_the_answer_and_is_not_known_is_refused(extra: dict[str, Any]) -> None:
    (name,) = extra
    with pytest.raises(InvalidRequest) as caught:
        of_chat(**extra)
    assert caught.value.param == name


def test_the_search_of_codex_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidRequest) as caught:
        of_responses(**{**CODEX, "tools": [*CODEX_TOOLS, {"type": "web_search"}]})
    assert caught.value.param == "tools[4].type"


CACHED = {"cache_control": {"type": "ephemeral"}}
CLAUDE_CODE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 32000,
    "stream": True,
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'},
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli;"},
        {"type": "text", "text": "You are an agent.", **CACHED},
        {"type": "text", "text": "Rules.", **CACHED},
    ],
    "tools": [{"name": "Read", "description": "x", "input_schema": PARAMETERS}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Say hello."}]},
        {"role": "system", "content": "Available agents."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "tool_use", "id": "c1", "name": "Read", "input": {"path": "a"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": "<tool_use_error>No such file.</tool_use_error>",
                    "is_error": True,
                    **CACHED,
                }
            ],
        },
    ],
}


def test_a_turn_of_claude_code() -> None:
    """vllm-project/vllm#44000: turns of the system among the messages."""
    document = parse_json_object(json.dumps(CLAUDE_CODE))
    found = from_messages(parse_messages(document), DEFAULTS)
    assert [message.role for message in found.messages] == [
        *("system", "user", "system", "assistant", "tool")
    ]
    assert (found.effort, found.messages[3].reasoning) == ("high", "hm")


def test_a_conversation_in_which_another_model_used_a_tool_goes_on() -> None:
    question = {"role": "user", "content": "What is 2 + 2?"}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat = of_chat(
        messages=[
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "623"},
            question,
        ]
    )
    responses = of_responses(
        input=[
            {"role": "user", "content": "x"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "623"},
            question,
        ]
    )
    assert chat.messages == responses.messages
    assert [message.role for message in chat.messages] == ["user", "assistant", "tool", "user"]


class Unit(enum.Enum):
    METRE = "m"
    FOOT = "ft"


class Step(BaseModel):
    """One step; it may have steps of its own."""

    what: str = Field(description="What to do", max_length=80)
    unit: Unit | None = None
    amount: float = Field(default=0.0, ge=0)
    steps: list[Step] = []


class Plan(BaseModel):
    """A plan."""

    first: Step
    kind: Literal["short", "long"]
    tags: dict[str, str] | None = None


class Convert(BaseModel):
    """Convert a length."""

    amount: float
    to: Unit


def sent_by(call: Any) -> dict[str, Any]:
    """The body that the client of the `openai` package sends in a call."""
    sent: list[bytes] = []

    def refuse(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.content)
        return httpx2.Response(400, json={"error": {"message": "enough"}})

    with (
        httpx2.Client(transport=httpx2.MockTransport(refuse)) as http,
        openai.OpenAI(api_key="k", base_url="http://server/v1", http_client=http) as client,
        pytest.raises(openai.BadRequestError),
    ):
        call(client)
    return parse_json_object(sent[0])


def test_schemas_that_the_openai_package_makes_of_classes_are_accepted() -> None:
    tool = openai.pydantic_function_tool(Convert)
    document = sent_by(
        lambda client: client.chat.completions.parse(
            model="m", messages=MESSAGES, response_format=Plan, tools=[tool]
        )
    )
    generation = from_chat(parse_body(document, ChatBody), DEFAULTS)
    assert generation.tools[0]["function"]["name"] == "Convert"
    of_both = generation.structure
    document = sent_by(
        lambda client: client.responses.parse(
            model="m",
            input="x",
            text_format=Plan,
            tools=[{"type": "function", **tool["function"]}],
        )
    )
    generation = from_responses(parse_body(document, ResponsesBody), (), DEFAULTS)
    assert generation.tools[0]["function"]["strict"] is True
    assert generation.structure == of_both
    assert of_both is not None
    assert "$ref" in json.dumps(of_both.value)
