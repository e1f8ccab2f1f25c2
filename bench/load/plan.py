"""The requests of a run and their times, drawn from a seed before the run begins.

Pure, except that it reads a prompt file. It must not know how requests travel.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

from bench.load.options import NUM_PROMPTS, REQUEST_RATE, Options
from bench.load.prompt_filler import Fit, filler
from bench.load.prompts import ChatMessage, Prompt, file_prompts, problem_prompts
from bench.load.ranges import Length
from bench.load.record import ForcedLengths
from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool returned for a call."""

    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Planned:
    """One planned request: a single question, one turn of a conversation, or one of an agent."""

    index: int
    at_s: float  # offset from the start of the run at which its conversation begins
    prompt: Prompt
    forced: ForcedLengths | None
    prompt_tokens: int | None = None  # length to fill the prompt to; None: leave it as it is
    conversation: int = 0  # turns of one follow each other; a single question has one turn
    turn: int = 0
    think_s: float = 0.0  # from the last token of the turn before
    client: str | None = None  # the sender, if a trace names it
    results: tuple[ToolResult, ...] = ()  # of the calls of the turn before


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


def plan_requests(
    options: Options,
    arrivals: Sequence[Arrival] | None = None,
    further: Iterator[Lengths] | None = None,
) -> list[Planned]:
    """All requests of a run, grouped by conversation. The same flags give the same plan.

    Arrivals, prompts and lengths are drawn independently: another rate asks the same questions.

    :param arrivals: of a workload or a trace; None: the flags define them.
    :param further: lengths of the later turns of conversations, if ``arrivals`` are given.
    :raises PromptError: if the prompts cannot be made.
    """
    rngs = {
        part: random.Random(f"{options.seed}/{part}")
        for part in ("arrivals", "prompts", "lengths", "turns")
    }
    times, clients = _begins(options, arrivals, rngs["arrivals"])
    turns = [options.turns.draw(rngs["turns"]) if options.turns else 1 for _ in times]
    if arrivals is None:
        lengths = _forced(options, rngs["lengths"])
    else:
        lengths = _given(arrivals, turns, further)
    prompts: Iterator[Prompt] = repeat(_EMPTY)
    if arrivals is None:
        prompts = iter(_prompts(options, sum(turns), rngs["prompts"]))
    plan: list[Planned] = []
    for conversation, (at_s, client) in enumerate(zip(times, clients, strict=True)):
        for turn in range(turns[conversation]):
            prompt_tokens, forced = next(lengths)
            planned = Planned(
                index=len(plan),
                at_s=at_s,
                prompt=next(prompts),
                forced=forced,
                prompt_tokens=prompt_tokens,
                conversation=conversation,
                turn=turn,
                think_s=options.think_time.draw_s(rngs["turns"]) if turn else 0.0,
                client=client,
            )
            plan.append(planned)
    return plan


def warmup_plan(options: Options, arrivals: Sequence[Arrival] | None = None) -> list[Planned]:
    """Requests to send before the run. They ask other questions, so that no cache is warm for it.

    :raises PromptError: if the prompts cannot be made.
    """
    count = options.num_warmups
    if arrivals:
        sizes = [_sized(arrivals[i % len(arrivals)].lengths) for i in range(count)]
        return [
            Planned(i, 0.0, _EMPTY, forced, tokens, conversation=i)
            for i, (tokens, forced) in enumerate(sizes)
        ]
    asked = _prompts(options, count, random.Random(f"{options.seed}/warm-up"))
    forced = _forced(options, random.Random(f"{options.seed}/warm-up"))
    return [
        Planned(i, 0.0, prompt, next(forced)[1], conversation=i) for i, prompt in enumerate(asked)
    ]


def filled(plan: Sequence[Planned], fit: Fit, rng: random.Random) -> list[Planned]:
    """The same requests, with prompts filled to their planned length."""
    return [
        planned
        if planned.prompt_tokens is None
        else replace(planned, prompt=text_prompt(filler(fit.words(planned.prompt_tokens), rng)))
        for planned in plan
    ]


def text_prompt(text: str) -> Prompt:
    """A prompt with one user message, whose answer cannot be judged."""
    return Prompt((ChatMessage("user", text),))


_EMPTY = text_prompt("")  # until it is filled
_Sized = tuple[int | None, ForcedLengths | None]


def _begins(
    options: Options, arrivals: Sequence[Arrival] | None, rng: random.Random
) -> tuple[list[float], list[str | None]]:
    """Start and client of every conversation."""
    if arrivals is not None:
        return [a.at_s for a in arrivals], [a.client for a in arrivals]
    count = options.num_prompts or NUM_PROMPTS
    rate = options.request_rate or REQUEST_RATE
    return arrival_times(count, rate, options.burstiness, rng), [None] * count


def _prompts(options: Options, count: int, rng: random.Random) -> list[Prompt]:
    if options.prompt_file is not None:
        return file_prompts(count, options.prompt_file)
    return problem_prompts(count, options.families, rng)


def _forced(options: Options, rng: random.Random) -> Iterator[_Sized]:
    """Lengths as the flags define them, without end."""
    reasoning, answer = options.reasoning_len, options.answer_len
    if reasoning is None or answer is None:
        return repeat((None, None))
    return _drawn(reasoning, answer, rng)


def _drawn(reasoning: Length, answer: Length, rng: random.Random) -> Iterator[_Sized]:
    while True:
        yield (
            None,
            ForcedLengths(reasoning_tokens=reasoning.draw(rng), answer_tokens=answer.draw(rng)),
        )


def _given(
    arrivals: Sequence[Arrival], turns: Sequence[int], further: Iterator[Lengths] | None
) -> Iterator[_Sized]:
    """Lengths as a workload or a trace defines them."""
    for arrival, count in zip(arrivals, turns, strict=True):
        yield _sized(arrival.lengths)
        for _ in range(1, count):
            yield _sized(arrival.lengths if further is None else next(further))


def _sized(lengths: Lengths) -> _Sized:
    return lengths.prompt, ForcedLengths(
        reasoning_tokens=lengths.reasoning, answer_tokens=max(1, lengths.answer)
    )
