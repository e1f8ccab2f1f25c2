"""guidellm: synthetic prompts over chat completions, completions and Responses."""

from __future__ import annotations

import json
from pathlib import Path

from compat_cases import MODEL, TOKENIZER, Cases, equal, expect, shell

REQUESTS = 4

cases = Cases()


def run(request_format: str) -> None:
    """Run it, and look at what it measured."""
    file = Path(f"guidellm{request_format.replace('/', '-')}.json").resolve()
    shell(
        "guidellm", "run", "--disable-console-interactive",
        "--backend",
        f"kind=openai_http,target={cases.url},model={MODEL},request_format={request_format}",
        "--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}",
        "--profile", "kind=concurrent,streams=2",
        "--constraint", f"kind=max_requests,count={REQUESTS}",
        "--data", "kind=synthetic_text,prompt_tokens=40,output_tokens=24",
        "--output", f"kind=json,path={file}",
    )  # fmt: skip
    (benchmark,) = json.loads(file.read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    equal((totals["successful"], totals["errored"]), (REQUESTS, 0))
    expect(benchmark["metrics"]["output_token_count"]["successful"]["mean"] > 0, totals)


for route in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):

    @cases(f"concurrent requests to {route}")
    def concurrent(route: str = route) -> None:
        run(route)


if __name__ == "__main__":
    cases.main()
