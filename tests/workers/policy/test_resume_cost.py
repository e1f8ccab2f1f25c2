"""The cost model learns lines, follows changes, and decides by them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.policy.resume_cost import ENOUGH_SAMPLES, RESUMES, CostLine, ResumeCosts


def line(fixed_s: float, per_token_s: float, *sizes: int) -> CostLine:
    learned = CostLine()
    for tokens in sizes:
        learned.observe(tokens, fixed_s + per_token_s * tokens)
    return learned


def taught(reload_s: float, recompute_s: float, resume: str = "auto") -> ResumeCosts:
    """Costs per token; a decode step takes 10 ms."""
    costs = ResumeCosts(resume)
    costs.stepped(0, 0.01)
    for tokens in (32, 64, 256, 512):
        costs.transferred(tokens, reload_s * tokens)
        costs.stepped(tokens, 0.01 + recompute_s * tokens)
    return costs


def test_a_line_is_found_from_samples_of_different_sizes() -> None:
    learned = line(0.002, 1e-5, 32, 288, 64, 512, 128)
    assert learned.fixed_s == pytest.approx(0.002)
    assert learned.per_token_s == pytest.approx(1e-5)


def test_samples_of_one_size_make_a_line_through_zero() -> None:
    learned = line(0.002, 1e-5, 100, 100, 100)
    assert learned.fixed_s == pytest.approx(0.0)
    assert learned.per_token_s == pytest.approx(3e-5)


def test_a_line_follows_a_change() -> None:
    learned = line(0.0, 1e-5, *[64, 256] * 50)
    for tokens in [64, 256] * 8:
        learned.observe(tokens, tokens * 3e-5)
    assert learned.seconds(128) == pytest.approx(128 * 3e-5)


def test_samples_that_the_system_held_up_do_not_count() -> None:
    learned = line(0.0, 1e-5, *[64, 256] * 6)
    for tokens in (64, 256, 128):
        learned.observe(tokens, 5.0)
    assert learned.seconds(128) == pytest.approx(128e-5, rel=0.01)


@given(
    st.lists(
        st.tuples(st.integers(1, 100_000), st.floats(0, 100, allow_subnormal=False)), min_size=1
    )
)
def test_a_line_never_falls_and_never_starts_below_zero(samples: list[tuple[int, float]]) -> None:
    learned = CostLine()
    for tokens, seconds in samples:
        learned.observe(tokens, seconds)
    assert learned.per_token_s >= 0
    assert learned.fixed_s >= 0
    assert learned.seconds(1000) <= learned.seconds(2000)


def test_the_cheaper_way_is_taken() -> None:
    assert taught(1e-6, 1e-4).reloads(200)
    assert not taught(1e-4, 1e-6).reloads(200)


def test_few_tokens_may_be_computed_and_many_reloaded() -> None:
    costs = ResumeCosts()
    costs.stepped(0, 0.01)
    for tokens in (32, 512, 64, 256):
        costs.transferred(tokens, 0.005 + 1e-6 * tokens)
        costs.stepped(tokens, 0.01 + 5e-5 * tokens)
    assert not costs.reloads(32)
    assert costs.reloads(512)


def test_as_long_as_nothing_is_known_it_reloads() -> None:
    costs = ResumeCosts()
    costs.stepped(0, 0.01)
    for _ in range(ENOUGH_SAMPLES - 1):
        assert costs.reloads(1)
        costs.transferred(32, 100.0)
        costs.stepped(100, 0.02)
    assert costs.reloads(1)
    costs.transferred(32, 100.0)
    assert costs.reloads(1)
    costs.stepped(100, 0.02)
    assert not costs.reloads(1)


@pytest.mark.parametrize(("resume", "reloads"), [("reload", True), ("recompute", False)])
def test_a_forced_way_is_taken_whatever_it_costs(resume: str, reloads: bool) -> None:
    for costs in (taught(1e-6, 1e-4, resume), taught(1e-4, 1e-6, resume)):
        assert costs.reloads(100) == reloads
        own = costs.reload if reloads else costs.recompute
        assert costs.resume_s(100, 1.0) == own.seconds(100)


def test_a_way_that_was_given_up_is_tried_again() -> None:
    costs = taught(1e-4, 1e-6)
    assert any(costs.reloads(100) for _ in range(100))
    for _ in range(10):
        costs.transferred(100, 1e-7 * 100)  # what it turns out to take now
    assert costs.reloads(100)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown way to resume 'both'; known: auto, reload"):
        ResumeCosts("both")


def test_a_step_tells_what_its_prefill_took_beyond_a_usual_one() -> None:
    costs = ResumeCosts()
    costs.stepped(300, 9.0)  # the very first step: nothing to compare it with
    assert costs.recompute.samples == 0
    costs.stepped(0, 0.02)
    costs.stepped(200, 0.03)
    assert costs.recompute.seconds(200) == pytest.approx(0.01)
    costs.stepped(3, 0.5)  # too few to tell
    assert costs.recompute.samples == 1


def test_resuming_is_expected_to_cost_what_it_takes() -> None:
    for resume in RESUMES:
        assert ResumeCosts(resume).resume_s(100, 1e-4) == pytest.approx(0.01)
    costs = taught(1e-6, 1e-4)
    assert costs.resume_s(100, 1.0) == pytest.approx(1e-4)


def test_what_memory_no_longer_holds_is_expected_to_be_computed() -> None:
    costs = taught(1e-6, 1e-4)
    for _ in range(300):
        costs.resumed(lost_tokens=100, recomputed_tokens=100)
    assert costs.resume_s(100, 1.0) == pytest.approx(1e-2, rel=0.01)
    for _ in range(300):
        costs.resumed(lost_tokens=100, recomputed_tokens=5)
    assert costs.resume_s(100, 1.0) == pytest.approx(0.05 * 1e-2 + 0.95 * 1e-4, rel=0.05)


def test_noise_does_not_turn_the_decision_round() -> None:
    rng = random.Random(1)
    costs = ResumeCosts()
    wrong = 0
    for _ in range(500):
        tokens = rng.randrange(32, 600)
        costs.stepped(0, 0.01 * rng.uniform(0.7, 1.6))
        costs.stepped(tokens, 0.01 + 1e-4 * tokens * rng.uniform(0.7, 1.6))
        costs.transferred(tokens, 1e-4 + 2e-5 * tokens * rng.uniform(0.7, 3))
        wrong += not costs.reloads(300)
    assert wrong == 0
