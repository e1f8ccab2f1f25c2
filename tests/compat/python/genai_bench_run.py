"""genai-bench: a traffic scenario over chat completions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from compat_cases import MODEL, TOKENIZER, Cases, equal, expect, shell

REQUESTS = 4

cases = Cases()


@cases("text-to-text with two concurrent requests")
def benchmark() -> None:
    folder = Path("genai-bench").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    shell(
        "genai-bench", "benchmark", "--api-backend", "vllm", "--api-base", cases.url,
        "--api-key", "none", "--api-model-name", MODEL, "--model-tokenizer", TOKENIZER,
        "--task", "text-to-text", "--traffic-scenario", "D(60,24)", "--num-concurrency", 2,
        "--max-time-per-run", 2, "--max-requests-per-run", REQUESTS, "--server-engine", "vLLM",
        "--server-version", "0", "--server-gpu-type", "H100", "--server-gpu-count", "1",
        "--experiment-base-dir", folder, "--experiment-folder-name", "run", "--log-dir", folder,
    )  # fmt: skip
    (file,) = (folder / "run").glob("D*_time_*s.json")
    found = json.loads(file.read_text())["aggregated_metrics"]
    equal(found["num_error_requests"], 0)
    expect(found["num_completed_requests"] >= REQUESTS, found)
    expect(found["stats"]["ttft"]["mean"] > 0, found)


if __name__ == "__main__":
    cases.main()
