"""The clients of `make compat` that run on Node.js, and the coding agents."""

from __future__ import annotations

from tests.compat.client import Client

# The newest that run on the oldest Node.js that the project takes.
NODE_CLIENTS = (
    Client(
        "openai for Node", "npm", ("openai@6.49.0", "ws@8.23.0"), "node/openai_sdk.mjs",
        limit_minutes=15,
    ),
    Client(
        "anthropic for Node", "npm", ("@anthropic-ai/sdk@1.14.0",), "node/anthropic_sdk.mjs",
        limit_minutes=10,
    ),
    Client(
        "AI SDK",
        "npm",
        (
            "ai@6.0.326",
            "@ai-sdk/openai@3.0.141",
            "@ai-sdk/openai-compatible@2.0.92",
            "@ai-sdk/anthropic@3.0.140",
        ),
        "node/ai_sdk.mjs",
        servers=("embedded", "inside"),
        limit_minutes=20,
    ),
    Client(
        "Codex CLI", "npm", ("@openai/codex@0.171.0",), "node/codex.mjs",
        servers=("agents",), limit_minutes=20,
    ),
    Client(
        "opencode", "npm", ("opencode-ai@1.18.33",), "node/opencode.mjs",
        servers=("agents",), limit_minutes=20,
    ),
    Client(
        "Claude Code", "npm", ("@anthropic-ai/claude-code@2.1.197",), "node/claude_code.mjs",
        servers=("agents",), limit_minutes=20,
    ),
)  # fmt: skip
