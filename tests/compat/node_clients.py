"""The clients of `make compat` that run on Node.js, and the coding agents."""

from __future__ import annotations

from tests.compat.client import Client

NODE_CLIENTS = (
    # The newest that run on the oldest Node.js that the project takes.
    Client(
        "AI SDK",
        "npm",
        ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/openai-compatible@2.0.92"),
        "node/ai_sdk.mjs",
        servers=("embedded", "inside"),
    ),
)
