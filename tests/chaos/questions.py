"""What the readers ask: plain questions, and some with tools, so that faults strike in mid-call."""

from __future__ import annotations

from typing import Any

CALCULATOR: dict[str, Any] = {
    "name": "calculator",
    "description": "Calculates an arithmetic expression.",
    "parameters": {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "The expression."}},
        "required": ["expression"],
    },
}


def tools(index: int) -> list[dict[str, Any]]:
    """The tools of a question: the model calls the calculator once, or twice in one turn."""
    return [CALCULATOR] if index % 4 > 1 else []


def question(index: int) -> dict[str, Any]:
    """The part of a body that both APIs share. Most have long forced lengths, some have none."""
    body: dict[str, Any] = {
        "temperature": 0,
        "store": False,
        "pacing": {"tpot_s": 0.04 if index % 3 == 1 else 0.01} if index % 3 else False,
    }
    if not tools(index) and index % 5:
        lengths = {"reasoning_tokens": 60 + 12 * index, "answer_tokens": 80 + 9 * index}
        body["forced_lengths"] = lengths
    return body


def prompt(index: int) -> str:
    """The text of a question."""
    if index % 4 == 3:
        return f"What is {7129 + index} + 5418? And what is {64 + index} * 12?"
    if index % 4 == 2:
        return f"Add {71 + index} and {18 + index}, then multiply by 6, then subtract 34."
    return f"What is {137 + 41 * index} + {259 + 17 * index}?"
