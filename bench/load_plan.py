"""What the load generator is going to send, and when: drawn before the run, from a seed.

Pure but for the reading of a prompt file. It must not know how requests travel.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import msgspec

from bench.options import Options
from bench.prompts import Prompt, file_prompts, problem_prompts
from bench.record import ForcedLengths


@dataclass(frozen=True, slots=True)
class Planned:
    """One request to come."""

    index: int
    at_s: float  # offset from the start of the run
    prompt: Prompt
    forced: ForcedLengths | None


def arrival_times(count: int, rate: float, burstiness: float, rng: random.Random) -> list[float]:
    """Offsets of ``count`` arrivals, in seconds, as ``vllm bench serve`` draws them.

    Gaps are gamma-distributed with mean ``1 / rate`` and shape ``burstiness`` (1: Poisson
    arrivals), then scaled so that the last arrival falls on ``count / rate``: runs with different
    seeds then offer the same load, and Poisson arrivals within a given time stay Poisson.

    :param rate: per second; inf puts all at 0.
    :param burstiness: above 0; inf gives regular arrivals.
    """
    if math.isinf(rate):
        return [0.0] * count
    if math.isinf(burstiness):
        return [(index + 1) / rate for index in range(count)]
    times: list[float] = []
    at_s = 0.0
    for _ in range(count):
        at_s += rng.gammavariate(burstiness, 1 / (rate * burstiness))
        times.append(at_s)
    scale = count / rate / at_s
    return [time_s * scale for time_s in times]


def plan_requests(options: Options) -> list[Planned]:
    """All requests of a run. The same flags give the same plan.

    Arrivals, prompts and lengths are drawn independently: another rate asks the same questions.

    :raises PromptError: if the prompts cannot be had.
    """
    arrivals, prompts, lengths = (
        random.Random(f"{options.seed}/{part}") for part in ("arrivals", "prompts", "lengths")
    )
    count = options.num_prompts
    times = arrival_times(count, options.request_rate, options.burstiness, arrivals)
    if options.prompt_file is not None:
        asked = file_prompts(count, options.prompt_file)
    else:
        asked = problem_prompts(count, options.families, prompts)
    forced: list[ForcedLengths | None] = [None] * count
    if options.reasoning_len is not None and options.answer_len is not None:
        forced = [
            ForcedLengths(
                reasoning_tokens=options.reasoning_len.draw(lengths),
                answer_tokens=options.answer_len.draw(lengths),
            )
            for _ in range(count)
        ]
    return [
        Planned(index, *rest) for index, rest in enumerate(zip(times, asked, forced, strict=True))
    ]


def request_body(options: Options, model: str, planned: Planned) -> dict[str, Any]:
    """The Responses body of one request."""
    body: dict[str, Any] = {
        "model": model,
        "input": [msgspec.to_builtins(message) for message in planned.prompt.messages],
        "pacing": {"tpot_s": options.tpot_s} if options.pacing else False,
    }
    if options.max_tokens is not None:
        body["max_output_tokens"] = options.max_tokens
    if planned.forced is not None:
        body["forced_lengths"] = msgspec.to_builtins(planned.forced)
    return body
