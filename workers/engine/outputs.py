"""vLLM's outputs in the words of the worker: what one request got, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping

from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput

from workers.engine.interface import EngineOutput, TokenScores
from workers.kv.migration import kv_tokens_of
from workers.messages import FinishReason
from workers.scheduler.bounded_grammar import TOO_COSTLY
from workers.scheduler.hand_over import HANDED_OVER, ticket_of

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "abort": "cancelled",
    "error": "error",
    "repetition": "stop",
}


LEAST_LOGPROB = -9999.0  # JSON has no infinity


def engine_output(
    request_id: str, output: RequestOutput, preemptions: int, alternatives: int | None = None
) -> EngineOutput:
    """What a request got since the last output.

    :param preemptions: so far; vLLM's output does not always hold their number.
    :param alternatives: how many of the most likely tokens were asked for; None: no logprobs.
    """
    completion = output.outputs[0]
    finish = finish_of(output)
    message = param = None
    if finish == "error":
        message = "the engine could not go on with this request"
        if completion.stop_reason == TOO_COSTLY:
            message, param = "the structure is too costly to follow", "structure"
    return EngineOutput(
        request_id=request_id,
        token_ids=completion.token_ids,
        finish=finish,
        cached_tokens=output.num_cached_tokens or 0,
        preemptions=preemptions,
        ticket=ticket_of(output.kv_transfer_params),
        kv_tokens=kv_tokens_of(output.kv_transfer_params),
        message=message,
        param=param,
        logprobs=_logprobs(completion, alternatives),
    )


def _logprobs(completion: CompletionOutput, alternatives: int | None) -> tuple[TokenScores, ...]:
    if alternatives is None or completion.logprobs is None:
        return ()
    found = zip(completion.token_ids, completion.logprobs, strict=True)
    return tuple(_scores(token_id, scores, alternatives) for token_id, scores in found)


def _scores(token_id: int, found: Mapping[int, Logprob] | None, alternatives: int) -> TokenScores:
    """vLLM gives the chosen token and the most likely ones, which may include it."""
    assert found is not None
    values = {token: max(scores.logprob, LEAST_LOGPROB) for token, scores in found.items()}
    best = sorted(values.items(), key=lambda item: -item[1])
    return TokenScores(values[token_id], tuple(best[:alternatives]))


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
