"""Bounds on thinking on a real engine, whose model writes what a bias makes it write.

``python -m tests.workers.support.budgets`` prints as JSON, by case, the tokens of each request and
the phases that the scheduler counted after its last step but one.
"""

from __future__ import annotations

import json
from typing import Any, Final

from bench.reporting.vllm_environment import prepare_environment
from workers.messages import Pace, Sampling
from workers.policy.phase import Markers, Phase
from workers.settings import WorkerSettings

FIRST, SECOND, CALL, CALLED, WORD, OTHER = 300, 301, 302, 303, 304, 305
OUTPUT: Final = 12


def main() -> None:
    """Run all cases on one engine."""
    prepare_environment()
    import msgspec
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import SamplingParams

    from bench.policies.local_engine import LocalEngine
    from tests.workers.support.harness import MODEL
    from workers.engine.interface import EngineRequest
    from workers.engine.sampling import sampling_params
    from workers.scheduler.plugin import markers_of

    def settings(markers: Markers | None) -> WorkerSettings:
        args: dict[str, Any] = {"reasoning_parser": "qwen3"}
        if markers is not None:
            args["additional_config"] = {"phase": {"markers": msgspec.to_builtins(markers)}}
        return WorkerSettings(
            instance_id="a",
            listen="",
            model=str(MODEL),
            served_model_name="",
            kv_cache_gib=0.03125,
            max_model_len=256,
            engine_args=args,
        )

    plain = _single(settings(None))
    start, end = plain
    markers = Markers(
        reasoning_starts=((start,),),
        reasoning_ends=((FIRST, SECOND, end),),
        call_starts=((CALL,),),
        call_ends=((CALLED,),),
        implicit=True,
    )
    engine = LocalEngine(settings(markers))
    assert markers_of(engine.config) == markers

    def run(biases: dict[int, float], known: list[int], **fields: Any) -> dict[str, Any]:
        request = EngineRequest(
            request_id="r",
            prompt_token_ids=(7, start, *known),
            sampling=Sampling(ignore_eos=True),
            max_tokens=OUTPUT - len(known),
            phase=Phase.REASONING,
            pace=Pace(tau_s=0.1),
            known_tokens=len(known),
            **{name: value for name, value in fields.items() if name != "own"},
        )
        params: SamplingParams = sampling_params(request, {})
        params.temperature = 0.0
        params.logit_bias = biases
        params.thinking_token_budget = fields.get("own")
        engine.llm.add_request("r", tokens_input(list(request.prompt_token_ids)), params)
        token_ids: list[int] = []
        phases: list[str] = []
        while engine.scheduler.has_unfinished_requests():
            stats = engine.scheduler.phase_stats()
            names = ("reasoning", "answering", "calling")
            phases += [name for name in names if getattr(stats, name).running]
            for output in engine.llm.step():
                token_ids += output.outputs[0].token_ids
        return {"token_ids": token_ids, "phases": phases}

    talks, calls = {WORD: 100.0}, {CALL: 100.0}
    tool = {"type": "function", "function": {"name": "f"}}
    found = {
        "end": end,
        "free": run(talks, []),
        "bound": run(talks, [], thinking_budget=6),
        "moved": run(talks, [WORD, WORD, WORD, FIRST], thinking_budget=2),
        "in_call": run(calls, [], thinking_budget=4, tools=(tool,)),
        "in_call_by_vllm": run(calls, [], own=4),
    }
    print(json.dumps(found))


def _single(settings: WorkerSettings) -> tuple[int, int]:
    """The model's own tokens around its thoughts."""
    from workers.engine.vllm_config import vllm_config
    from workers.scheduler.plugin import markers_of

    markers = markers_of(vllm_config(settings))
    assert markers is not None
    ((start,),), ((end,),) = markers.reasoning_starts, markers.reasoning_ends
    return start, end


if __name__ == "__main__":
    main()
