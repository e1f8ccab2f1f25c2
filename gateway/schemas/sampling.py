"""The sampling parameters and the thinking of a request, for the worker.

Each function also says which field of the body asked for it, by the worker's name of the field, so
that an error of the worker can name what the client sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.schemas.bodies import LOGPROBS, ChatBody, Reasoning, ResponsesBody
from gateway.schemas.errors import InvalidRequest, convert
from workers.messages import Sampling


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether and how much to think, and the options of the chat template."""

    thinking: bool | None = None
    effort: str | None = None
    budget: int | None = None
    template: dict[str, Any] = field(default_factory=dict)


def thinking_of(body: ResponsesBody | ChatBody, names: dict[str, str]) -> Thinking:
    """What the body says about thinking.

    ``chat_template_kwargs.enable_thinking`` wins over ``enable_thinking``, this over
    ``reasoning.enabled``, and all over an effort of ``none``. Any other effort goes to the worker
    in any case: templates have words of their own. Of two budgets the smaller one holds.

    :param names: gets the fields that asked, by the worker's names.
    """
    reasoning = body.reasoning or Reasoning()
    effort, effort_name = reasoning.effort, "reasoning.effort"
    if isinstance(body, ChatBody) and (body.reasoning_effort or not effort):
        effort, effort_name = body.reasoning_effort, "reasoning_effort"
    names["effort"] = names["thinking"] = effort_name

    template = dict(body.chat_template_kwargs or {})
    switch = "chat_template_kwargs.enable_thinking"
    thinking = template.pop("enable_thinking", None)
    if thinking is not None:
        thinking = convert(thinking, bool, switch)
    elif body.enable_thinking is not None:
        thinking, switch = body.enable_thinking, "enable_thinking"
    elif reasoning.enabled is not None:
        thinking, switch = reasoning.enabled, "reasoning.enabled"
    if thinking is not None:
        names["thinking"] = switch
    elif effort == "none":
        thinking = False
    if thinking and effort == "none":
        effort = None

    budgets = [
        (budget, name)
        for name, budget in (
            ("thinking_token_budget", body.thinking_token_budget),
            ("reasoning.max_tokens", reasoning.max_tokens),
        )
        if budget not in (None, -1)
    ]
    budget, names["sampling.thinking_budget"] = None, "thinking_token_budget"
    if budgets:
        budget, names["sampling.thinking_budget"] = min(budgets)
    return Thinking(thinking, effort, budget, template)


def sampling_of(
    body: ResponsesBody | ChatBody, budget: int | None, names: dict[str, str]
) -> Sampling:
    """The sampling parameters.

    :param budget: most tokens of thoughts.
    :param names: gets the fields that asked, by the worker's names.
    :raises InvalidRequest: naming the field.
    """
    max_tokens, names["sampling.max_tokens"] = _most_tokens(body)
    if body.min_tokens and max_tokens is not None and body.min_tokens > max_tokens:
        raise InvalidRequest(
            f"'min_tokens' is {body.min_tokens}, more than '{names['sampling.max_tokens']}', "
            f"{max_tokens}.",
            param="min_tokens",
        )
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return Sampling(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        seed=body.seed,
        # Forms whose field for stop strings was left empty send an empty string.
        stop=tuple(text for text in stop if text),
        ignore_eos=body.ignore_eos,
        thinking_budget=budget,
        min_tokens=body.min_tokens or 0,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        logit_bias=biases_of(body.logit_bias),
        logprobs=_logprobs(body, names),
    )


def _most_tokens(body: ResponsesBody | ChatBody) -> tuple[int | None, str]:
    """The bound on generated tokens, and the field that says it."""
    if isinstance(body, ResponsesBody):
        bound, name = body.max_output_tokens, "max_output_tokens"
    elif body.max_completion_tokens is None and body.max_tokens is not None:
        bound, name = body.max_tokens, "max_tokens"
    else:
        bound, name = body.max_completion_tokens, "max_completion_tokens"
    return (None if bound == -1 else bound), name


def biases_of(biases: dict[str, float] | None) -> dict[int, float] | None:
    """``logit_bias`` by token id. Raises `InvalidRequest`."""
    if not biases:
        return None
    found = {}
    for token, bias in biases.items():
        if not (token.isascii() and token.isdecimal() and len(token) <= 10):
            raise InvalidRequest(
                f"'logit_bias': {token[:64]!r} is no token id.", param="logit_bias"
            )
        found[int(token)] = bias
    return found


def _logprobs(body: ResponsesBody | ChatBody, names: dict[str, str]) -> int | None:
    """How many alternatives to report for each token; None: no log probabilities at all."""
    if isinstance(body, ResponsesBody):
        wanted, name = LOGPROBS in (body.include or ()), "include"
    else:
        wanted, name = bool(body.logprobs), "logprobs"
    names["sampling.logprobs"] = "top_logprobs" if body.top_logprobs else name
    return (body.top_logprobs or 0) if wanted else None
