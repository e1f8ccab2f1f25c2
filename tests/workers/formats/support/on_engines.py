"""Phases of outputs on an engine: those that its scheduler counts, and those of the stream.

``python -m tests.workers.formats.support.on_engines`` reads cases from its input, as JSON, and
prints what it saw of each. A case is a model with its parsers, and requests to it. A request with
an ``output`` gets just these tokens: an emulated engine plays them, with the real scheduler.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bench.reporting.vllm_environment import prepare_environment

CALCULATOR: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Calculates an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "The expression."}},
            "required": ["expression"],
        },
    },
}
MAX_MODEL_LEN = 1024
BLOCK_SIZE = 32


def main() -> None:
    """Run all cases, one engine after the other."""
    prepare_environment()
    print(json.dumps([_case(case) for case in json.load(sys.stdin)]))


def _case(case: dict[str, Any]) -> list[dict[str, Any]]:
    from bench.policies.local_engine import LocalEngine
    from workers.formats.form import Format
    from workers.requests.chat_template import ChatRenderer
    from workers.settings import WorkerSettings

    settings = WorkerSettings(
        instance_id="a",
        listen="",
        served_model_name="",
        model=case["model"],
        dtype="float32",
        reasoning_parser=case["reasoning"],
        tool_parser=case["tool"],
        emulate=case.get("profile"),
        max_model_len=MAX_MODEL_LEN,
        kv_blocks=2 * MAX_MODEL_LEN // BLOCK_SIZE,
        block_size=BLOCK_SIZE,
        enforce_eager=True,
    )
    engine = LocalEngine(settings)
    renderer = ChatRenderer(Format.of(settings, engine.config), MAX_MODEL_LEN)
    return [_request(engine, renderer, request) for request in case["requests"]]


def _request(engine: Any, renderer: Any, asked: dict[str, Any]) -> dict[str, Any]:
    from vllm.inputs.engine import tokens_input

    from tests.workers.formats.support.reading import outcome
    from workers.engine.interface import EngineRequest
    from workers.engine.sampling import sampling_params
    from workers.messages import ChatMessage, Pace, Sampling, Submit
    from workers.requests.output_text import output_text

    submit = Submit(
        request_id="r",
        messages=(ChatMessage(role="user", content=asked["text"]),),
        sampling=Sampling(temperature=0.0),
        pace=Pace(tau_s=0.1),
        tools=(CALCULATOR,) if asked["tools"] else (),
        template=asked.get("options", {}),
    )
    prompt = renderer.render(submit)
    request = EngineRequest(
        request_id="r",
        prompt_token_ids=prompt.token_ids,
        sampling=submit.sampling,
        max_tokens=MAX_MODEL_LEN - len(prompt.token_ids),
        phase=prompt.phase,
        pace=submit.pace,
        tools=prompt.request.tools,
    )
    if "output" in asked:
        encode = renderer.form.tokenizer.encode
        _play(encode(asked["output"], add_special_tokens=False))
    params = sampling_params(request, {}, emulated="output" in asked)
    scheduler: list[str] = []
    _record(engine.scheduler, scheduler)
    engine.llm.add_request("r", tokens_input(list(prompt.token_ids)), params)
    reader = output_text(renderer, prompt, submit)
    token_ids: list[int] = []
    stream: list[str] = []
    while engine.scheduler.has_unfinished_requests():
        for output in engine.llm.step():
            new = list(output.outputs[0].token_ids)
            pieces = reader.push(new, last=output.finished)
            token_ids += new
            stream += [reader.phase.value] * len(new)
            if pieces.told is not None:  # as the worker's service does
                engine.scheduler.turn("r", pieces.told)
    whole = outcome(output_text(renderer, prompt, submit), token_ids, range(len(token_ids)))
    return {
        "prompt": list(prompt.token_ids),
        "token_ids": token_ids,
        "start": prompt.phase.value,
        "scheduler": scheduler,
        "stream": stream,
        "turns": whole.turns,
        "segments": whole.segments,
    }


def _record(scheduler: Any, phases: list[str]) -> None:
    """Note the phase that the scheduler counts after each token; after the last one there is none.

    :param phases: is written.
    """
    update = type(scheduler).update_from_output

    def recording(*args: Any, **kwargs: Any) -> Any:
        outputs = update(scheduler, *args, **kwargs)
        tokens = sum(len(one.new_token_ids) for batch in outputs.values() for one in batch.outputs)
        stats = scheduler.phase_stats()
        for name in ("reasoning", "answering", "calling"):
            counts = getattr(stats, name)
            phases.extend([name] * tokens * (counts.running + counts.waiting))
        return outputs

    scheduler.update_from_output = recording


def _play(token_ids: list[int]) -> None:
    """Let the emulated device write these tokens, and then end the turn."""
    from workers.emulation import executor
    from workers.emulation.script import Script, Words

    def script_of(words: Words, *_: Any) -> Script:
        return Script(words, known=0, reasoning=0, tail_at=0, tail=tuple(token_ids))

    vars(executor)["script_of"] = script_of


if __name__ == "__main__":
    main()
