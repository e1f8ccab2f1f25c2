"""vLLM's outputs in the words of the worker: what one request got, and how it ended."""

from __future__ import annotations

from vllm.outputs import RequestOutput

from workers.engine.interface import EngineOutput
from workers.kv.migration import kv_tokens_of
from workers.messages import FinishReason
from workers.scheduler.hand_over import HANDED_OVER, ticket_of

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "abort": "cancelled",
    "error": "error",
    "repetition": "stop",
}


def engine_output(request_id: str, output: RequestOutput, preemptions: int) -> EngineOutput:
    """What a request got since the last output.

    :param preemptions: so far; vLLM's output does not always hold their number.
    """
    return EngineOutput(
        request_id=request_id,
        token_ids=output.outputs[0].token_ids,
        finish=finish_of(output),
        cached_tokens=output.num_cached_tokens or 0,
        preemptions=preemptions,
        ticket=ticket_of(output.kv_transfer_params),
        kv_tokens=kv_tokens_of(output.kv_transfer_params),
    )


def finish_of(output: RequestOutput) -> FinishReason | None:
    """How the request ended; None while it goes on."""
    completion = output.outputs[0]
    if completion.stop_reason == HANDED_OVER:
        return "handed_over"
    return None if completion.finish_reason is None else _FINISH[completion.finish_reason]


def failure_of(error: Exception) -> str:
    """The message for a request that failed.

    It names only the type of the error, because the error's text could quote the prompt.
    """
    return f"the engine could not carry this out: {type(error).__name__}"
