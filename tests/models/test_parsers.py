"""vLLM's parsers read what the model writes: thoughts, calls and answer, token by token."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager

from models import judge
from models.conversation import calls_text, think
from models.evaluate import MODEL
from models.tools import KINDS, Task, Toolset

_PARSER = ParserManager.get_parser("hermes", "qwen3", True)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


def _request(toolset: Toolset, task: Task) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(
        {
            "messages": [{"role": "user", "content": task.question}],
            "tools": [tool.definition() for tool in toolset.tools],
        }
    )


def _streamed(tokenizer: Any, text: str, request: ChatCompletionRequest, step: int) -> Any:
    """The reasoning, the answer and the calls, from deltas of `step` tokens."""
    assert _PARSER is not None
    parser = _PARSER(tokenizer, request.tools)
    ids = tokenizer.encode(text)
    prompt = tokenizer.encode("<|im_start|>assistant\n")
    reasoning, content, calls, seen = "", "", dict[int, list[str]](), ""
    for start in range(0, len(ids), step):
        whole = tokenizer.decode(ids[: start + step])
        delta = parser.parse_delta(
            whole[len(seen) :],
            ids[start : start + step],
            request,
            prompt,
            finished=start + step >= len(ids),
        )
        seen = whole
        if delta is None:
            continue
        reasoning += delta.reasoning or ""
        content += delta.content or ""
        for call in delta.tool_calls or []:
            entry = calls.setdefault(call.index, ["", ""])
            entry[0] += call.function.name or ""
            entry[1] += call.function.arguments or ""
    return reasoning.strip("\n"), content.strip("\n"), [calls[i] for i in sorted(calls)]


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_parsers_of_vllm_read_the_model(tokenizer: Any, kind: str, step: int) -> None:
    for toolset, task in judge.draw_plays(kind, 6, seed=random.Random(kind).randrange(99)):
        request = _request(toolset, task)
        for turn in task.steps:
            text = think(turn.thinking) + calls_text(turn.calls)
            reasoning, content, calls = _streamed(tokenizer, text, request, step)
            assert reasoning == "\n".join(turn.thinking)
            assert not content
            assert [(name, json.loads(arguments)) for name, arguments in calls] == [
                (call.name, dict(call.arguments)) for call in turn.calls
            ]
        text = think(task.thinking) + task.answer
        reasoning, content, calls = _streamed(tokenizer, text, request, step)
        assert (reasoning, content, calls) == ("\n".join(task.thinking), task.answer, [])
