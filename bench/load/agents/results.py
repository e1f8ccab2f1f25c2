"""From agents and the results of their requests to the results of tasks. Pure.

Per task, in seconds:

=============  ===================================================================================
`e2e_s`        first request sent to the end of the last response
`to_answer_s`  first request sent to the first token of the final answer
`model_s`      the responses together, each from sending to its end
`tools_s`      the tools together
=============  ===================================================================================

What is missing between `e2e_s` and the last two is what requests waited here.

For a run, `e2e_s` and the times are over the tasks that were answered, early or not, and `call_s`
over all turns that called a tool. Each is an object as in `bench.load.measure`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, get_args

from bench.load.agents.agent import Agent, TaskOutcome
from bench.load.measure import RequestResult
from bench.reporting.statistics import PERCENTILES, summarize

_ANSWERED: tuple[TaskOutcome, ...] = ("answered", "answered_early")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """Everything measured for one task. Times are in seconds."""

    task: int  # `RequestResult.conversation` of its requests
    family: str | None  # the kind of the problem; None if it has none
    outcome: TaskOutcome
    error: str | None
    correct: bool | None  # whether the answer is right; None if it cannot be judged
    turns: int
    expected_turns: int
    calls: int
    sent_s: float | None  # offset in the run
    e2e_s: float | None
    to_answer_s: float | None
    model_s: float
    tools_s: float
    input_tokens: int  # of all turns
    cached_tokens: int | None  # of these; None if the server does not say
    output_tokens: int

    @property
    def answered(self) -> bool:
        """Whether its times count."""
        return self.outcome in _ANSWERED


def task_results(agents: Sequence[Agent], results: Sequence[RequestResult]) -> list[TaskResult]:
    """The results of the tasks that have begun, in the order of their numbers."""
    ordered = sorted(results, key=lambda result: (result.conversation, result.turn))
    turns = {n: list(of) for n, of in groupby(ordered, key=lambda result: result.conversation)}
    return [_task(agent, turns[agent.number]) for agent in agents if agent.number in turns]


def _task(agent: Agent, turns: Sequence[RequestResult]) -> TaskResult:
    sent_s, last = turns[0].sent_s, turns[-1]
    answer_s = None
    if last.sent_s is not None and last.ttft_s is not None:
        answer_s = last.sent_s + last.ttft_s
    cached = [turn.cached_tokens for turn in turns if turn.cached_tokens is not None]
    return TaskResult(
        task=agent.number,
        family=agent.family,
        outcome=agent.outcome,
        error=last.error,
        correct=last.correct,
        turns=len(turns),
        expected_turns=agent.expected_turns,
        calls=sum(turn.calls for turn in turns),
        sent_s=sent_s,
        e2e_s=_between(sent_s, last.ended_s),
        to_answer_s=_between(sent_s, answer_s),
        model_s=sum(_between(turn.sent_s, turn.ended_s) or 0.0 for turn in turns),
        tools_s=agent.tools_s,
        input_tokens=sum(turn.input_tokens or 0 for turn in turns),
        cached_tokens=sum(cached) if cached else None,
        output_tokens=sum(turn.output_tokens or 0 for turn in turns),
    )


def agents_result(
    agents: Sequence[Agent],
    results: Sequence[RequestResult],
    percentiles: Sequence[float] = PERCENTILES,
) -> dict[str, Any]:
    """The results of all tasks of a run, ready for JSON (see the module docstring)."""
    tasks = task_results(agents, results)
    answered = [task for task in tasks if task.answered]
    outcomes = Counter(task.outcome for task in tasks)

    def over(attribute: str) -> Mapping[str, float | None]:
        return summarize((getattr(task, attribute) for task in answered), percentiles)

    cached = [task.cached_tokens for task in tasks if task.cached_tokens is not None]
    read = sum(task.input_tokens for task in tasks if task.cached_tokens is not None)
    return {
        **{outcome: outcomes[outcome] for outcome in get_args(TaskOutcome)},
        "calls": sum(task.calls for task in tasks),
        "cached_share": sum(cached) / read if read else None,
        **{name: over(name) for name in ("e2e_s", "to_answer_s", "model_s", "tools_s", "turns")},
        "call_s": summarize((result.call_s for result in results if result.measured), percentiles),
        "tasks": [asdict(task) for task in tasks],
    }


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else end_s - start_s
