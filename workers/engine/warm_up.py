"""The first requests of an engine, before it serves: they compile, allocate and measure.

Both adapters run them and empty the prefix cache after each round.
"""

from __future__ import annotations

from vllm.config import VllmConfig
from vllm.sampling_params import RequestOutputKind, SamplingParams

from workers.kv.offload import offloads
from workers.policy.resume_cost import ENOUGH_SAMPLES

# In bfloat16 on a CPU, an engine whose very first forward pass is a single token dies of SIGILL.
_PROMPT_TOKENS = 300
_OUTPUT_TOKENS = 4


def warm_up_params() -> SamplingParams:
    """For all requests of the warm-up."""
    return SamplingParams(
        max_tokens=_OUTPUT_TOKENS,
        ignore_eos=True,
        logprobs=1,  # vLLM compiles a part of them when they are first asked for
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def warm_up_rounds(config: VllmConfig) -> list[list[list[int]]]:
    """The prompts of each round.

    Where KV is offloaded they also measure what it costs to compute KV and to reload it (see
    `workers.policy.resume_cost`). The first round shows the duration of a usual step and then
    computes some prompts. The second loads them whole, the third a block of each.
    """
    length = max(1, min(_PROMPT_TOKENS, config.model_config.max_model_len - _OUTPUT_TOKENS))
    if not offloads(config):
        return [[[1] * length]]
    block = min(length, config.cache_config.block_size + 1)
    tokens = range(2, 2 + ENOUGH_SAMPLES)
    whole = [[token] * length for token in tokens]
    return [[[1] * length, *whole], whole, [[token] * block for token in tokens]]
