"""aiperf: synthetic prompts over each API that it knows, and the metrics of the server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from compat_cases import MODEL, TOKENIZER, Cases, equal, expect, shell

REQUESTS = 6
REPOSITORY = "pascal/tiny-reasoner"
REVISION = "0" * 40

cases = Cases()


def cache() -> str:
    """The folder of a cache of Hugging Face's that has the tokenizer; aiperf reads no other."""
    home = Path("hugging-face").resolve()
    repository = home / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(TOKENIZER, repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return str(home)


def profile(kind: str) -> None:
    """Run it, and look at what it measured."""
    folder = Path(f"aiperf-{kind}").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    shell(
        "aiperf", "profile", "--model", MODEL, "--url", cases.url, "--endpoint-type", kind,
        "--streaming", "--tokenizer", REPOSITORY, "--request-count", REQUESTS, "--concurrency", 2,
        "--isl", 40, "--osl", 24, "--ui", "none", "--no-gpu-telemetry",
        "--artifact-dir", folder, HF_HOME=cache(),
    )  # fmt: skip
    (file,) = folder.rglob("profile_export_aiperf.json")
    result = json.loads(file.read_text())
    equal(int(result["request_count"]["avg"]), REQUESTS)
    expect(not (result.get("error_request_count") or {}).get("avg"), result.get("error_summary"))
    expect(result["time_to_first_token"]["avg"] > 0, result)


for endpoint in ("chat", "completions", "responses", "messages"):

    @cases(f"a streamed profile of the endpoint type {endpoint}")
    def streamed(kind: str = endpoint) -> None:
        profile(kind)


@cases("the metrics of the server are read beside it")
def server_metrics() -> None:
    (file,) = Path("aiperf-chat").rglob("server_metrics_export.json")
    text = file.read_text()
    expect("pascal_requests" in text, text[:300])


if __name__ == "__main__":
    cases.main()
