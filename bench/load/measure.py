"""From the records of responses to results: of each request, and of a whole run.

Pure. Every time is in seconds of the load generator's monotonic clock, stamped when a message was
read off the socket. The server's own timings are only kept for comparison.

Per request (paper, "Terms" and "QoE, exactly"):

==========  ======================================================================================
`ttft_s`    request sent to first answering delta (so it contains prefill and reasoning)
`ttfat_s`   end of reasoning (its item is done) to first answering delta; None without reasoning
`tpot_s`    (last - first answering delta) / (answering tokens - 1); None below two tokens
`itl_s`     the gaps between successive answering deltas
`e2e_s`     request sent to terminal event
`qoe`       the paper's: origin at the first answering delta, F = 0, tau the requested pace;
            0 for a failed request, None for one that ended normally without an answer
`call_s`    request sent to the end of the last call of a tool; None without a call
==========  ======================================================================================

A delta that completes several tokens delivers them all at its own time. Text in a turn that calls
tools has no reader: such a turn has no TTFT, TTFAT, TPOT, ITL and QoE.

For a run, each of these is an object with `mean`, `p50`, `p95`, `p99`, `min`, `max` and the further
percentiles that were asked for, over the requests that are completed or incomplete. Entries are
null where nothing was measured. `itl_s` pools the gaps of all requests. `qoe` also counts every
failed request, as 0. Turns that call tools count in `call_s` alone; `bench.load.agents.results` has
their tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import msgspec

from bench.load.record import AnswerDelta, Outcome, ResponseRecord, Timing
from bench.reporting.statistics import PERCENTILES, SLO_QOE, summarize
from pacer import qoe

LATE_S: Final = 0.010  # a p99 beyond this means that the generator itself distorts the results

# vLLM's names of metrics in flags, and the keys of the result. A goodput bound is the worst value
# that still counts as good: an upper bound in milliseconds, but for qoe a lower bound.
METRICS: Final[Mapping[str, str]] = {
    "ttft": "ttft_s",
    "ttfat": "ttfat_s",
    "tpot": "tpot_s",
    "itl": "itl_s",
    "e2el": "e2e_s",
    "qoe": "qoe",
}
# The same for tasks of agents; the keys are those of `bench.load.agents.results`.
AGENT_METRICS: Final[Mapping[str, str]] = {
    "task": "e2e_s",
    "to-answer": "to_answer_s",
    "model": "model_s",
    "tools": "tools_s",
    "call": "call_s",
    "turns": "turns",
}
GOODPUT_METRICS: Final = ("ttft", "ttfat", "tpot", "e2el", "qoe")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResult:
    """Everything measured for one request. Times are in seconds, offsets from the run's start."""

    index: int
    conversation: int
    turn: int  # of its conversation, from 0
    client: str | None  # the sender, if a trace names it
    response_id: str | None
    instance: str | None
    family: str | None  # of the problem; None for a prompt of a file
    outcome: Outcome
    error: str | None
    incomplete_reason: str | None
    correct: bool | None  # whether the answer is right; None if it cannot be judged
    scheduled_s: float  # offset at which it was due
    lateness_s: float  # from then until the generator handled it
    queued_s: float | None  # from then until it was sent: --max-concurrency, opening of a socket
    sent_s: float | None  # offset; None if it never was
    ended_s: float | None  # offset
    first_token_s: float | None  # request sent to first delta, of reasoning or answer
    ttft_s: float | None
    ttfat_s: float | None
    tpot_s: float | None
    itl_s: tuple[float, ...]
    e2e_s: float | None
    qoe: float | None
    calls: int  # of tools
    call_s: float | None
    input_tokens: int | None
    cached_tokens: int | None  # of the input; None if the server does not say
    reasoning_tokens: int | None
    answer_tokens: int | None  # all others: of the answer and of calls
    output_tokens: int | None
    server_qoe: float | None
    timing: Timing | None  # the server's
    underruns: int | None
    preemptions: int | None
    migrations: int | None

    @property
    def measured(self) -> bool:
        """Whether its metrics count: it is completed or incomplete."""
        return self.outcome in ("completed", "incomplete")

    @property
    def read(self) -> bool:
        """Whether it is measured, and for a reader: it calls no tool."""
        return self.measured and not self.calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request before it was sent. Times are in seconds of the generator's clock."""

    index: int
    start_s: float  # of the run
    due_s: float
    turned_s: float  # when the generator handled it
    family: str | None = None
    conversation: int = 0
    turn: int = 0
    client: str | None = None


def measure(
    record: ResponseRecord, arrival: Arrival, *, tau_s: float, correct: bool | None = None
) -> RequestResult:
    """The result of one request.

    :param tau_s: the pace of the reader, in seconds per token.
    """
    final = record.final
    answer = [] if record.calls else record.answer
    first_s = answer[0].received_s if answer else None
    usage = final.usage if final else None
    reasoning_tokens = usage.output_tokens_details.reasoning_tokens if usage else 0
    return RequestResult(
        index=arrival.index,
        conversation=arrival.conversation,
        turn=arrival.turn,
        client=arrival.client,
        response_id=record.response_id,
        instance=final.instance if final else None,
        family=arrival.family,
        outcome=record.outcome,
        error=record.failure,
        incomplete_reason=record.incomplete_reason,
        correct=correct,
        scheduled_s=arrival.due_s - arrival.start_s,
        lateness_s=arrival.turned_s - arrival.due_s,
        queued_s=_between(arrival.turned_s, record.sent_s),
        sent_s=_between(arrival.start_s, record.sent_s),
        ended_s=_between(arrival.start_s, record.ended_s),
        first_token_s=_between(record.sent_s, record.first_token_s),
        ttft_s=_between(record.sent_s, first_s),
        ttfat_s=_between(record.reasoning_end_s, first_s),
        tpot_s=_tpot_s(answer),
        itl_s=tuple(b.received_s - a.received_s for a, b in pairwise(answer)),
        e2e_s=_between(record.sent_s, record.ended_s) if final else None,
        qoe=_client_qoe(record, answer, tau_s),
        calls=len(record.calls),
        call_s=_between(record.sent_s, record.calls[-1].ended_s if record.calls else None),
        input_tokens=usage.input_tokens if usage else None,
        cached_tokens=(
            usage.input_tokens_details.cached_tokens
            if usage and usage.input_tokens_details
            else None
        ),
        reasoning_tokens=reasoning_tokens if usage else None,
        answer_tokens=usage.output_tokens - reasoning_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        server_qoe=final.qoe.qoe if final and final.qoe and not record.calls else None,
        timing=final.timing if final else None,
        underruns=final.underruns if final else None,
        preemptions=final.preemptions if final else None,
        migrations=final.migrations if final else None,
    )


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else end_s - start_s


def _tpot_s(answer: Sequence[AnswerDelta]) -> float | None:
    gaps = sum(delta.tokens for delta in answer) - 1
    if gaps < 1:
        return None
    return (answer[-1].received_s - answer[0].received_s) / gaps


def _client_qoe(
    record: ResponseRecord, answer: Sequence[AnswerDelta], tau_s: float
) -> float | None:
    if record.outcome == "failed":
        return 0.0
    if record.outcome == "interrupted" or not answer:
        return None
    deliveries_s = (delta.received_s for delta in answer for _ in range(delta.tokens))
    return qoe(deliveries_s, tau_s=tau_s, origin_s=answer[0].received_s)


def is_good(result: RequestResult, goodput: Mapping[str, float]) -> bool:
    """Whether a request meets every bound; one that failed, or lacks the metric, does not.

    As in vLLM, an answer of a single token has a TPOT of 0 here.
    """
    if not result.measured:
        return False
    for name, bound in goodput.items():
        value = getattr(result, METRICS[name])
        if name == "tpot" and value is None and result.ttft_s is not None:
            value = 0.0
        if value is None:
            return False
        if not (value >= bound if name == "qoe" else value * 1000 <= bound):
            return False
    return True


def run_result(
    results: Sequence[RequestResult],
    *,
    loop_lag_s: Sequence[float] = (),
    percentiles: Sequence[float] = PERCENTILES,
    goodput: Mapping[str, float] | None = None,
    cpu_share: float | None = None,
) -> dict[str, Any]:
    """The results of a run, ready for JSON (see the module docstring), with all its requests.

    `duration_s` runs from the first request sent to the last end. `throughput_tok_s` counts all
    output tokens of the usages that arrived, also those of incomplete and failed responses.

    :param cpu_share: the share of one core that the generator itself used.
    """
    outcomes = Counter(result.outcome for result in results)
    measured = [result for result in results if result.measured]
    read = [result for result in measured if result.read]
    duration_s = _duration_s(results)
    output_tokens = sum(result.output_tokens or 0 for result in results)
    judged = [result.correct for result in results if result.correct is not None]
    scored = [result.qoe for result in results if result.measured or result.outcome == "failed"]

    def over(attribute: str) -> dict[str, float | None]:
        return summarize((getattr(result, attribute) for result in read), percentiles)

    return {
        **{name: outcomes[name] for name in ("completed", "failed", "incomplete", "interrupted")},
        "errors": _counted(result.error for result in results),
        "incomplete_reasons": _counted(
            result.incomplete_reason for result in results if result.outcome == "incomplete"
        ),
        "duration_s": duration_s,
        "input_tokens": sum(result.input_tokens or 0 for result in results),
        "output_tokens": output_tokens,
        "throughput_tok_s": output_tokens / duration_s if duration_s else None,
        "throughput_req_s": len(measured) / duration_s if duration_s else None,
        "goodput_req_s": (
            sum(is_good(result, goodput) for result in results) / duration_s
            if goodput and duration_s
            else None
        ),
        "ttft_s": over("ttft_s"),
        "ttfat_s": over("ttfat_s"),
        "tpot_s": over("tpot_s"),
        "tpot_raw_s": summarize((_raw_tpot_s(result) for result in read), percentiles),
        "itl_s": summarize((gap for result in read for gap in result.itl_s), percentiles),
        "e2e_s": over("e2e_s"),
        "qoe": summarize(scored, percentiles),
        "server_qoe": over("server_qoe"),
        "qoe_client_server_max_diff": max(
            (
                abs(result.qoe - result.server_qoe)
                for result in measured
                if result.qoe is not None and result.server_qoe is not None
            ),
            default=None,
        ),
        "slo_violations": sum(score is not None and score < SLO_QOE for score in scored),
        "accuracy": sum(judged) / len(judged) if judged else None,
        "lateness_s": summarize((result.lateness_s for result in results), percentiles),
        "loop_lag_s": summarize(loop_lag_s, percentiles),
        "generator": _generator(results, loop_lag_s, cpu_share),
        "by_turn": _by_turn(results, percentiles),
        "requests": [_request_json(result) for result in results],
    }


def _generator(
    results: Sequence[RequestResult], loop_lag_s: Sequence[float], cpu_share: float | None
) -> dict[str, Any]:
    """Whether the generator itself was on time; null if it sent nothing."""
    late_s = [
        summary["p99"]
        for summary in (summarize(result.lateness_s for result in results), summarize(loop_lag_s))
        if summary["p99"] is not None
    ]
    return {"kept_up": max(late_s) <= LATE_S if late_s else None, "cpu_share": cpu_share}


_OF_TURNS: Final = ("input_tokens", "ttft_s", "ttfat_s", "tpot_s", "e2e_s", "qoe", "call_s")


def _by_turn(
    results: Sequence[RequestResult], percentiles: Sequence[float]
) -> list[dict[str, Any]]:
    """The results of all first turns, all second turns and so on; empty without conversations."""
    turns = sorted({result.turn for result in results})
    if len(turns) < 2:
        return []
    return [
        {
            "turn": turn,
            "requests": sum(result.turn == turn for result in results),
            **{
                name: summarize(
                    (getattr(r, name) for r in results if r.turn == turn and r.measured),
                    percentiles,
                )
                for name in _OF_TURNS
            },
        }
        for turn in turns
    ]


def _counted(reasons: Iterable[str | None]) -> dict[str, int]:
    """Number of occurrences of each reason, the most frequent first."""
    return dict(Counter(reason for reason in reasons if reason is not None).most_common())


def _duration_s(results: Sequence[RequestResult]) -> float:
    sent_s = [result.sent_s for result in results if result.sent_s is not None]
    ended_s = [result.ended_s for result in results if result.ended_s is not None]
    return max(ended_s) - min(sent_s) if sent_s and ended_s else 0.0


def _raw_tpot_s(result: RequestResult) -> float | None:
    return result.timing.raw.tpot_s if result.timing and result.timing.raw else None


def _request_json(result: RequestResult) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(result)
    values["itl_s"] = [round(gap, 6) for gap in result.itl_s]  # no clock is more exact
    return values
