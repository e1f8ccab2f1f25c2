"""The clients of `make compat` that run on Python."""

from __future__ import annotations

from tests.compat.client import Client

PYTHON_CLIENTS = (
    Client(
        "LangChain",
        "pypi",
        ("langchain==1.5.2", "langchain-openai==1.7.4", "langchain-anthropic==1.7.10"),
        "python/langchain_agent.py",
        servers=("embedded", "inside"),
    ),
)
