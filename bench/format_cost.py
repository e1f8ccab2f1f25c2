"""Worker CPU per output token: how a format is read, against plain ``<think>`` texts.

    python -m bench.format_cost                       # the embedded model
    python -m bench.format_cost --model PATH          # another one, by its files

Reads one scripted output again and again, in the ways named below, interleaved, and prints the
median time per token with the ratio to the first way. Needs no engine.

    bare      the incremental decoder and a search for one token: the least that any reader does
    thoughts  the reader of the worker, thoughts and an answer
    tools     the same output, of a request that may call tools
    call      an output that ends with a call of about 40 tokens
    parser    the same output through vLLM's whole parser, one token at a time
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from workers.formats.form import Format
from workers.messages import ChatMessage, Pace, Sampling, Submit
from workers.requests.chat_template import ChatRenderer
from workers.requests.detokenize import IncrementalDecoder
from workers.requests.output_text import output_text
from workers.requests.parsed import ParsedText
from workers.settings import WorkerSettings

_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "The time",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
    },
}
_TEXT = "First 17 plus 25 is 42, then I compare it with 40. "
_CALL = '<tool_call>\n{"name": "clock", "arguments": {"zone": "UTC"}}\n</tool_call>'


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Worker CPU per output token, by format.")
    parser.add_argument("--model", default="models/tiny-reasoner", help="folder of the model")
    parser.add_argument("--tokens", type=int, default=2000, help="tokens of one output")
    parser.add_argument("--rounds", type=int, default=21, help="rounds, interleaved")
    arguments = parser.parse_args()
    ways = _ways(arguments.model, arguments.tokens)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run, _ in ways.values():
        run()  # warms up
    for _ in range(arguments.rounds):
        for name, (run, tokens) in ways.items():
            began = time.thread_time()
            run()
            times[name].append((time.thread_time() - began) / tokens * 1e6)
    first = statistics.median(times["bare"])
    thoughts = statistics.median(times["thoughts"])
    for name, found in times.items():
        median = statistics.median(found)
        print(
            f"{name:10} {median:7.2f} us a token  {median / first:5.2f} of bare  "
            f"{median / thoughts:5.2f} of thoughts"
        )


def _ways(model: str, count: int) -> dict[str, tuple[Callable[[], None], int]]:
    from workers.engine.vllm_config import vllm_config

    settings = WorkerSettings(
        instance_id="bench", listen="unix:/none", model=model, served_model_name="m"
    )
    form = Format.of(settings, vllm_config(settings))
    renderer = ChatRenderer(form, 4096)
    plain, tools = _submit(()), _submit((_TOOL,))

    def ids(text: str) -> list[int]:
        return list(form.tokenizer.encode(text, add_special_tokens=False))

    part = ids(_TEXT)
    half = part * (count // (2 * len(part)))
    two_phases = [*half, *ids("</think>"), *half]
    with_call = [*half, *ids("</think>"), *half, *ids(_CALL)]

    def reader(submit: Submit, output: Sequence[int]) -> Callable[[], None]:
        prompt = renderer.render(submit)

        def run() -> None:
            text = output_text(renderer, prompt, submit)
            for token_id in output:
                text.push((token_id,))

        return run

    def bare() -> None:
        decoder = IncrementalDecoder(renderer.decode)
        end = form.tokenizer.get_vocab()["</think>"]
        for token_id in two_phases:
            if token_id != end:
                decoder.push(token_id)

    prompt = renderer.render(plain)

    def parsed() -> None:
        request = prompt.request
        text = ParsedText(
            form.parser(request), request.wire, renderer.decode_all, request.markers, prompt.phase
        )
        for token_id in two_phases:
            text.push((token_id,))

    ways = {
        "bare": (bare, len(two_phases)),
        "thoughts": (reader(plain, two_phases), len(two_phases)),
    }
    if form.facts.tools:
        ways["tools"] = (reader(tools, two_phases), len(two_phases))
        ways["call"] = (reader(tools, with_call), len(with_call))
    return ways | {"parser": (parsed, len(two_phases))}


def _submit(tools: tuple[dict[str, Any], ...]) -> Submit:
    return Submit(
        request_id="bench",
        messages=(ChatMessage(role="user", content="Hi"),),
        sampling=Sampling(),
        pace=Pace(tau_s=0.1),
        tools=tools,
    )


if __name__ == "__main__":
    main()
