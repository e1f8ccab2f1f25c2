"""From the link's sampling parameters to vLLM's.

Decides defaults (the model's generation config) and names the field of a wrong value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind, SamplingParams

from workers.engine.interface import EngineRequest
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


def sampling_params(request: EngineRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """vLLM's parameters for a request.

    :param defaults: the model's own, by vLLM's names.
    :raises RequestRejected: naming the field ``sampling.<name>``.
    """
    sampling = request.sampling
    values = {name: defaults[name] for name in _NUMBERS if name in defaults}
    for name in _NUMBERS:
        if (value := getattr(sampling, name)) is not None:
            values[name] = value
    if sampling.seed is not None and not -(2**_SEED_BITS) <= sampling.seed < 2**_SEED_BITS:
        raise _rejected("seed", f"seed must fit in 64 bits, got {sampling.seed}.")
    forced = request.forced_answer is not None
    try:
        return SamplingParams(
            **values,
            max_tokens=request.max_tokens,
            ignore_eos=sampling.ignore_eos or forced,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=_extra_args(request),
        )
    except VLLMValidationError as error:
        message = str(error.args[0])
        raise _rejected(error.parameter or message.split()[0], message) from error


def extra_args(request: EngineRequest) -> dict[str, Any]:
    """Facts about a request for the scheduler, the logits processor and the emulator."""
    facts: dict[str, Any] = {
        "request_id": request.request_id,
        "phase": request.phase.value,
        "pace": msgspec.structs.asdict(request.pace),
    }
    if request.known_tokens:
        facts["known_tokens"] = request.known_tokens
    if request.user is not None:
        facts["user"] = request.user
    if request.forced_answer is not None:
        facts["forced_reasoning"] = request.forced_reasoning or 0
        facts["forced_answer"] = request.forced_answer
    elif request.thinking_budget is not None:
        facts["thinking_budget"] = request.thinking_budget
    return facts


def _extra_args(request: EngineRequest) -> dict[str, Any]:
    extra: dict[str, Any] = {REQUEST_KEY: extra_args(request)}
    pull = None if request.ticket is None else pull_params(request.ticket)
    return extra if pull is None else extra | {"kv_transfer_params": pull}


def _rejected(field: str, message: str) -> RequestRejected:
    param = f"sampling.{field}" if field in Sampling.__struct_fields__ else "sampling"
    return RequestRejected("invalid_value", message, param)
