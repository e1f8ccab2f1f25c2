"""From the link's sampling parameters to vLLM's.

Decides defaults (the model's generation config) and names the field of a wrong value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind, SamplingParams

from workers.engine.exact_sampling import EXACT_KEY, Exact
from workers.engine.interface import EngineRequest
from workers.engine.structure import reject_unstructured, structured_outputs
from workers.errors import RequestRejected
from workers.kv.migration import pull_params
from workers.messages import Sampling
from workers.scheduler.plugin import REQUEST_KEY

_NUMBERS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
)
_SEED_BITS = 63  # what every random generator of torch takes
_MOST_BIAS = 100.0  # vLLM would cut a larger one
_GREEDY = 1e-5  # vLLM takes the most likely token at lower temperatures


def sampling_params(
    request: EngineRequest, defaults: Mapping[str, Any], *, emulated: bool = False
) -> SamplingParams:
    """vLLM's parameters for a request.

    :param defaults: the model's own, by vLLM's names.
    :param emulated: a script writes the output, so nothing bounds it and it has no probabilities.
    :raises RequestRejected: naming the field ``sampling.<name>``, or ``structure``.
    """
    sampling = request.sampling
    values = {name: defaults[name] for name in _NUMBERS if name in defaults}
    for name in _NUMBERS:
        if (value := getattr(sampling, name)) is not None:
            values[name] = value
    _check(sampling)
    forced = request.forced_answer is not None
    structure = request.structure
    reject_unstructured(forced, structure)
    if emulated and sampling.logprobs is not None:
        raise _rejected("logprobs", "an emulated engine computes no log probabilities")
    values |= {
        "max_tokens": request.max_tokens,
        "min_tokens": max(0, sampling.min_tokens - request.known_tokens),
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": sampling.ignore_eos or forced,
        "logit_bias": sampling.logit_bias,
        "logprobs": sampling.logprobs,
        "detokenize": False,
        "output_kind": RequestOutputKind.DELTA,
    }
    try:
        params = SamplingParams(**values)
        facts = extra_args(request)
        if (exact := _exact(request, params)) is not None:
            facts[EXACT_KEY] = msgspec.to_builtins(exact)
            values |= _left_to_vllm(exact)
        extra = {REQUEST_KEY: facts}
        if request.ticket is not None and (pull := pull_params(request.ticket)) is not None:
            extra["kv_transfer_params"] = pull
        return SamplingParams(
            **values,
            extra_args=extra,
            structured_outputs=None
            if structure is None or emulated
            else structured_outputs(structure),
        )
    except VLLMValidationError as error:
        message = str(error.args[0])
        raise _rejected(error.parameter or message.split()[0], message) from error


def field_of(error: Exception) -> str | None:
    """The field that vLLM's error about a request is about; None if it does not say."""
    parameter = error.parameter if isinstance(error, VLLMValidationError) else None
    return None if parameter is None else _param(parameter)


def _check(sampling: Sampling) -> None:
    """Check what vLLM does not see, or names differently."""
    if sampling.seed is not None and not -(2**_SEED_BITS) <= sampling.seed < 2**_SEED_BITS:
        raise _rejected("seed", f"seed must fit in 64 bits, got {sampling.seed}.")
    if sampling.min_tokens < 0:
        raise _rejected("min_tokens", f"min_tokens must be at least 0, got {sampling.min_tokens}.")
    if sampling.max_tokens is not None and sampling.min_tokens > sampling.max_tokens:
        raise _rejected(
            "min_tokens",
            f"min_tokens must be at most max_tokens, {sampling.max_tokens}, "
            f"got {sampling.min_tokens}.",
        )
    if sampling.logprobs is not None and sampling.logprobs < 0:
        raise _rejected("logprobs", f"logprobs must be at least 0, got {sampling.logprobs}.")
    biases = (sampling.logit_bias or {}).values()
    if not all(-_MOST_BIAS <= bias <= _MOST_BIAS for bias in biases):
        raise _rejected("logit_bias", f"logit_bias must be from -{_MOST_BIAS} to {_MOST_BIAS}.")


def _exact(request: EngineRequest, params: SamplingParams) -> Exact | None:
    """What `workers.engine.exact_sampling` does in vLLM's place; None: nothing."""
    seeded = params.seed is not None and params.temperature >= _GREEDY
    exact = Exact(
        known=request.known_tokens,
        presence=params.presence_penalty,
        frequency=params.frequency_penalty,
        repetition=params.repetition_penalty,
        seed=params.seed if seeded else None,
        temperature=params.temperature if seeded else 1.0,
        top_p=params.top_p if seeded else 1.0,
        top_k=params.top_k if seeded else 0,
        min_p=params.min_p if seeded else 0.0,
    )
    return exact if seeded or (exact.penalized and request.known_tokens) else None


def _left_to_vllm(exact: Exact) -> dict[str, Any]:
    """vLLM's own parameters, so that it does not do the same again."""
    values: dict[str, Any] = {
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "seed": None,
    }
    if exact.seed is not None:
        # It gets one token that is not forbidden, and takes it.
        values |= {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    return values


def extra_args(request: EngineRequest) -> dict[str, Any]:
    """Facts about a request for the scheduler, the logits processors and the emulator."""
    facts: dict[str, Any] = {
        "request_id": request.request_id,
        "phase": request.phase.value,
        "pace": msgspec.structs.asdict(request.pace),
    }
    if request.known_tokens:
        facts["known_tokens"] = request.known_tokens
    if request.structure is not None:
        facts["began"] = (request.began or request.phase).value
    if not request.tools:
        facts["calls"] = False
    if request.user is not None:
        facts["user"] = request.user
    if request.forced_answer is not None:
        facts["forced_reasoning"] = request.forced_reasoning or 0
        facts["forced_answer"] = request.forced_answer
        if request.forced_call:
            facts["forced_call"] = list(request.forced_call)
    elif request.thinking_budget is not None:
        facts["thinking_budget"] = request.thinking_budget
    return facts


def _rejected(field: str, message: str) -> RequestRejected:
    return RequestRejected("invalid_value", message, _param(field))


def _param(field: str) -> str:
    return f"sampling.{field}" if field in Sampling.__struct_fields__ else "sampling"
