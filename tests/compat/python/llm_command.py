"""`llm`, the command: prompts, conversations, schemas and tools."""

from __future__ import annotations

import json
import os
from pathlib import Path

from compat_cases import MODEL, Cases, expect, shell

MODELS = """
- model_id: tiny
  model_name: {model}
  api_base: {url}/v1
  api_key_name: pascal
  reasoning: true
  supports_tools: true
  supports_schema: true
  can_stream: true
"""
FUNCTIONS = """
def calculator(expression: str) -> str:
    "Calculates an arithmetic expression."
    assert set(expression) <= set("0123456789.+-*/() ")
    return str(eval(expression))
"""
QUESTION = "What is 348 + 275?"

cases = Cases()


def llm(*words: str) -> str:
    """Run the command; what it printed."""
    user = Path(os.environ["HOME"]) / "llm"
    user.mkdir(exist_ok=True)
    (user / "extra-openai-models.yaml").write_text(MODELS.format(model=MODEL, url=cases.url))
    (user / "keys.json").write_text('{"pascal": "none"}')
    return shell("llm", *words, LLM_USER_PATH=str(user))


@cases("a prompt, streamed and whole")
def prompt() -> None:
    for extra in ([], ["--no-stream"]):
        text = llm("-m", "tiny", "-o", "temperature", "0", *extra, QUESTION)
        expect("623" in text, text)


@cases("a conversation that goes on")
def conversation() -> None:
    llm("-m", "tiny", QUESTION)
    text = llm("-c", "-o", "temperature", "0", "What is 12 + 30?")
    expect("42" in text, text)


@cases("reasoning_effort")
def effort() -> None:
    text = llm("-m", "tiny", "-o", "temperature", "0", "-o", "reasoning_effort", "low", QUESTION)
    expect("623" in text, text)


@cases("a schema")
def schema() -> None:
    form = {
        "type": "object",
        "properties": {"larger": {"type": "string", "enum": ["left", "right"]}},
        "required": ["larger"],
        "additionalProperties": False,
    }
    text = llm("-m", "tiny", "--schema", json.dumps(form), "Which is larger, 34 or 71?")
    expect(json.loads(text)["larger"] in ("left", "right"), text)


@cases("a tool, called three times")
def tools() -> None:
    asked = "Add 71 and 18, then multiply by 6, then subtract 34."
    text = llm("-m", "tiny", "-o", "temperature", "0", "--functions", FUNCTIONS, asked)
    expect("500" in text, text)


if __name__ == "__main__":
    cases.main()
