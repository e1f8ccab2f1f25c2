from __future__ import annotations

import pytest

from bench.load.measure import (
    is_good,
    measure,
    run_result,
)
from bench.load.record import ResponseRecord
from tests.bench.support.results import arrival, four_results, record_of, result_of


def test_the_figures_of_one_request() -> None:
    result = measure(record_of(), arrival(family="sums"), tau_s=0.1, correct=True)
    assert result.ttft_s == pytest.approx(0.6)
    assert result.ttfat_s == pytest.approx(0.1)
    assert result.tpot_s == pytest.approx(0.1)  # 0.3 s for the three tokens after the first
    assert result.itl_s == pytest.approx((0.1, 0.2))
    assert result.e2e_s == pytest.approx(1.0)
    # Delivered 0, .1, .3, .3; expected 0, .1, .2, .3; read 0, .1, .3, .4: the delays are .1 and .1.
    # Horizon .5: 1 - .2 / (4 * .5 - 16 * .1 / 2).
    assert result.qoe == pytest.approx(1 - 0.2 / 1.2)
    assert (result.scheduled_s, result.lateness_s, result.queued_s) == (1.5, 0.25, 0.25)
    assert (result.sent_s, result.ended_s) == (2.0, 3.0)
    assert (result.input_tokens, result.reasoning_tokens, result.answer_tokens) == (20, 5, 4)
    assert (result.output_tokens, result.preemptions, result.migrations) == (9, 2, None)
    assert (result.server_qoe, result.instance, result.response_id) == (0.8, "w1", "resp_1")
    assert (result.outcome, result.error, result.family, result.correct) == (
        "completed",
        None,
        "sums",
        True,
    )


def test_the_reader_of_another_pace_is_judged_by_it() -> None:
    # Read with tau .15: expected 0, .15, .3, .45, and nothing is late.
    assert measure(record_of(), arrival(), tau_s=0.15).qoe == pytest.approx(1.0)


def test_without_thinking_there_is_no_ttfat() -> None:
    result = result_of(record_of(reasoning_end_s=None))
    assert result.ttfat_s is None
    assert result.ttft_s == pytest.approx(0.6)


def test_one_token_has_no_tpot_and_no_gap() -> None:
    result = result_of(record_of(((10.6, 1),)))
    assert (result.tpot_s, result.itl_s, result.qoe) == (None, (), 1.0)
    # Two tokens in one delta: no time between them.
    assert result_of(record_of(((10.6, 2),))).tpot_s == 0.0


def test_no_answer_at_all_has_no_qoe() -> None:
    result = result_of(record_of((), status="incomplete"))
    assert (result.ttft_s, result.ttfat_s, result.tpot_s, result.qoe) == (None,) * 4
    assert result.e2e_s == pytest.approx(1.0)


def test_a_failed_request_scores_zero() -> None:
    result = result_of(record_of(status="failed"))
    assert (result.outcome, result.qoe, result.measured) == ("failed", 0.0, False)


def test_a_request_that_was_never_sent() -> None:
    record = ResponseRecord()
    record.abandon("no connection", 10.0)
    result = result_of(record)
    assert (result.outcome, result.error, result.qoe) == ("failed", "no connection", 0.0)
    assert (result.sent_s, result.queued_s, result.ttft_s, result.e2e_s) == (None,) * 4
    assert result.lateness_s == 0.25


def test_the_figures_of_a_run() -> None:
    run = run_result(four_results(), loop_lag_s=[0.001, 0.003])
    assert (run["completed"], run["failed"]) == (1, 1)
    assert (run["incomplete"], run["interrupted"]) == (1, 1)
    assert run["duration_s"] == pytest.approx(8.0)  # sent at 10, last end at 18
    assert (run["input_tokens"], run["output_tokens"]) == (60, 27)
    assert run["throughput_tok_s"] == pytest.approx(27 / 8)
    assert run["throughput_req_s"] == pytest.approx(2 / 8)
    assert run["ttft_s"]["mean"] == pytest.approx(0.8)  # .6 and 1.0; the failed one does not count
    assert run["ttfat_s"]["mean"] == pytest.approx(0.3)
    assert run["tpot_s"]["p50"] == pytest.approx(0.1)
    assert run["tpot_raw_s"]["max"] == 0.01
    assert run["itl_s"]["mean"] == pytest.approx(0.4 / 3)  # .1, .2 and .1, of both together
    assert run["e2e_s"]["max"] == pytest.approx(2.0)
    assert run["qoe"]["min"] == 0.0  # the failed one counts
    assert run["qoe"]["mean"] == pytest.approx((1 - 0.2 / 1.2 + 1.0 + 0.0) / 3)
    assert run["server_qoe"]["mean"] == pytest.approx(0.9)
    assert run["qoe_client_server_max_diff"] == pytest.approx(1 - 0.2 / 1.2 - 0.8)
    assert run["slo_violations"] == 2  # 0.83 and the failed one
    assert run["lateness_s"]["max"] == 0.25
    assert run["loop_lag_s"]["p50"] == pytest.approx(0.002)
    assert run["errors"] == {"response failed: no message": 1}
    assert run["incomplete_reasons"] == {"max_output_tokens": 1}
    assert [request["index"] for request in run["requests"]] == [0, 1, 2, 3]
    assert run["requests"][0]["itl_s"] == [0.1, 0.2]
    assert run["requests"][0]["timing"]["raw"]["tpot_s"] == 0.01


@pytest.mark.parametrize("server_qoe", [0.7, 0.9666])
def test_the_difference_of_the_scores_has_no_sign(server_qoe: float) -> None:
    run = run_result([result_of(record_of(server_qoe=server_qoe))])
    assert run["qoe_client_server_max_diff"] == pytest.approx(0.1333, abs=1e-3)


def test_accuracy_counts_only_those_who_could_be_judged() -> None:
    judged = [
        measure(record_of(), arrival(), tau_s=0.1, correct=correct)
        for correct in (True, True, False, None)
    ]
    assert run_result(judged)["accuracy"] == pytest.approx(2 / 3)
    assert run_result(judged[3:])["accuracy"] is None


def test_a_run_without_requests_is_all_null() -> None:
    run = run_result([])
    assert (run["completed"], run["duration_s"], run["throughput_tok_s"]) == (0, 0.0, None)
    assert run["ttft_s"]["p99"] is None
    assert run["qoe_client_server_max_diff"] is None


@pytest.mark.parametrize(
    ("goodput", "good"),
    [
        ({"ttft": 601.0}, True),
        ({"ttft": 599.0}, False),
        ({"ttft": 601.0, "tpot": 99.0}, False),
        ({"e2el": 1001.0, "tpot": 101.0, "ttfat": 101.0}, True),
        ({"qoe": 0.83}, True),
        ({"qoe": 0.84}, False),
    ],
)
def test_goodput_bounds(goodput: dict[str, float], good: bool) -> None:
    result = result_of(record_of())
    assert is_good(result, goodput) is good
    run = run_result([result], goodput=goodput)
    assert run["goodput_req_s"] == pytest.approx(1.0 if good else 0.0)  # in one second


def test_goodput_of_odd_requests() -> None:
    one_token = result_of(record_of(((10.6, 1),)))
    assert is_good(one_token, {"tpot": 1.0})
    no_answer = result_of(record_of((), status="incomplete"))
    assert not is_good(no_answer, {"tpot": 1.0})
    assert not is_good(result_of(record_of(status="failed")), {"e2el": 10_000.0})
    assert run_result([one_token])["goodput_req_s"] is None  # no bound was given
