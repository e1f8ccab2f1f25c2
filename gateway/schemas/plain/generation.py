"""Requests with a prompt that is no conversation, in the gateway's own form."""

from __future__ import annotations

from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import Generation, Targets, targets_of
from gateway.schemas.plain.bodies import (
    DEFAULT_TOKENS,
    MOST_COMPLETIONS,
    CompletionsBody,
    TextBody,
)
from gateway.schemas.sampling import biases_of
from workers.messages import ForcedLengths, PlainPrompt, Sampling


def from_completions(body: CompletionsBody, defaults: Targets) -> list[Generation]:
    """Convert a body: one request for each of its prompts, each with all its choices.

    :raises InvalidRequest: naming the field.
    """
    prompts = _prompts(body)
    if len(prompts) * body.n > MOST_COMPLETIONS:
        raise InvalidRequest(
            f"{len(prompts)} prompts with {body.n} choices each are more than "
            f"{MOST_COMPLETIONS} completions.",
            param="prompt" if len(prompts) > 1 else "n",
        )
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    forced, bound = None, DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    if body.forced_lengths is not None:
        forced = ForcedLengths(reasoning_tokens=0, answer_tokens=body.forced_lengths.answer_tokens)
        bound = -1 if body.max_tokens is None else bound
    sampling = Sampling(
        max_tokens=None if bound == -1 else bound,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        seed=body.seed,
        stop=tuple(text for text in stop if text),
        ignore_eos=body.ignore_eos,
        min_tokens=body.min_tokens,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        logit_bias=biases_of(body.logit_bias),
        logprobs=body.logprobs,
    )
    return [
        Generation(
            messages=(),
            prompt=prompt,
            sampling=sampling,
            targets=targets_of(body.pacing, defaults),
            thinking=None,
            forced_lengths=forced,
            store=False,
            resumable=False,
            messages_param=where,
            choices=body.n,
            user=body.safety_identifier or body.user,
            affinity_key=body.prompt_cache_key or None,
        )
        for where, prompt in prompts
    ]


def from_text(body: TextBody, defaults: Targets) -> Generation:
    """The request whose prompt is to be counted."""
    return Generation(
        messages=(),
        prompt=PlainPrompt(text=body.prompt, special_tokens=body.add_special_tokens),
        sampling=Sampling(),
        targets=defaults,
        thinking=None,
        forced_lengths=None,
        store=False,
        messages_param="prompt",
    )


def _prompts(body: CompletionsBody) -> list[tuple[str, PlainPrompt]]:
    """The prompts, each with its path in the body."""
    given, special = body.prompt, body.add_special_tokens
    if isinstance(given, str):
        return [("prompt", PlainPrompt(text=given, special_tokens=special))]
    if not given:
        raise InvalidRequest("'prompt' is empty.", param="prompt")
    texts = [one for one in given if isinstance(one, str)]
    lists = [one for one in given if isinstance(one, list)]
    ids = [one for one in given if isinstance(one, int)]
    found = [PlainPrompt(text=text, special_tokens=special) for text in texts]
    found += [PlainPrompt(token_ids=tuple(of_one)) for of_one in lists]
    if ids:
        found.append(PlainPrompt(token_ids=tuple(ids)))
    if len({type(one) for one in given}) > 1:
        raise InvalidRequest(
            "'prompt': send one text, a list of texts, one list of token ids, or a list of such "
            "lists.",
            param="prompt",
        )
    if len(found) == 1:
        return [("prompt", found[0])]
    return [(f"prompt[{index}]", one) for index, one in enumerate(found)]
