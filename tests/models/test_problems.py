"""The problems are correct and reproducible, and harder ones take longer reasoning."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from models.problems import FAMILIES, Problem, generate, is_correct, is_held_out
from models.problems.base import spaced
from models.problems.chat import CAN
from models.problems.steps import add_steps, div_steps, long_mul_steps, mul_steps, sub_steps

_COUNT = 150


def _problems(family: str, count: int = _COUNT, seed: int = 1) -> list[Problem]:
    rng = random.Random(f"{family}:{seed}")
    return [generate(family, rng) for _ in range(count)]


def _numbers(text: str) -> list[int]:
    """The numbers of a text, thousands separators removed."""
    return [int(n) for n in re.findall(r"\d+", re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))]


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_answer_is_correct(family: str) -> None:
    for problem in _problems(family):
        assert is_correct(problem, problem.answer), problem
        assert is_correct(
            problem, f"<think>\nsome thinking\n</think>\n\n{problem.answer}<|im_end|>"
        )
        assert not is_correct(problem, "")
        assert not is_correct(problem, f"<think>\n{problem.answer}\n</think>\n\nNo idea.")


@pytest.mark.parametrize("family", FAMILIES)
def test_same_random_state_gives_the_same_problem(family: str) -> None:
    before = random.getstate()
    assert _problems(family) == _problems(family)
    assert _problems(family) != _problems(family, seed=2)
    assert random.getstate() == before, "the global random state must not be used"


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_are_disjoint_and_keyed_by_content(family: str) -> None:
    rng = random.Random(5)
    held_out = {generate(family, rng, split="held_out").key for _ in range(20)}
    trained = {generate(family, rng, split="train").key for _ in range(200)}
    assert not held_out & trained
    problem = generate(family, rng, split="held_out")
    assert is_held_out(replace(problem, question="in other words"))


def test_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="geometry"):
        generate("geometry", random.Random(0))


_OPERATIONS = {
    "addition": lambda a, b: str(a + b),
    "multiplication": lambda a, b: str(a * b),
    "division": lambda a, b: f"{a // b} remainder {a % b}" if a % b else str(a // b),
}


@pytest.mark.parametrize("family", sorted(_OPERATIONS))
def test_arithmetic_against_python(family: str) -> None:
    for problem in _problems(family):
        a, b = map(int, problem.key.split()[1:])
        assert problem.expected == _OPERATIONS[family](a, b)
        assert {a, b} <= set(_numbers(problem.question))


def test_subtraction_against_python() -> None:
    for problem in _problems("subtraction"):
        a, b = map(int, problem.key.split()[1:])
        assert problem.expected == str(a - b)


def test_sums_against_python() -> None:
    for problem in _problems("sums"):
        values = _numbers(problem.key.split(maxsplit=1)[1].replace(", ", " "))
        assert problem.expected == str(sum(values))


def test_comparison_against_python() -> None:
    for problem in _problems("comparison"):
        x, y = map(float, problem.key.split()[1:])
        if x == y:
            assert problem.expected == "equal"
        else:
            smaller = "smaller" in problem.question or "less" in problem.question
            assert float(problem.expected) == (min(x, y) if smaller else max(x, y))


def test_comparison_does_not_accept_the_other_order() -> None:
    problem = next(p for p in _problems("comparison") if p.expected != "equal")
    x, y = problem.key.split()[1:]
    high, low = (x, y) if float(x) > float(y) else (y, x)
    assert is_correct(problem, f"{high} is larger than {low}.")
    assert not is_correct(problem, f"{low} is larger than {high}.")


def test_sorting_against_python() -> None:
    for problem in _problems("sorting"):
        values = [int(v) for v in problem.expected.split(", ")]
        question = problem.question.lower()
        falling = any(
            w in question for w in ("descending", "largest to", "largest first", "high to")
        )
        assert values == sorted(values, reverse=falling)
        assert sorted(values) == [int(v) for v in problem.key.split(maxsplit=1)[1].split(", ")]


def test_parity_against_python() -> None:
    for problem in _problems("parity"):
        value = int(problem.key.split()[1])
        assert problem.expected == ("odd" if value % 2 else "even")


def test_letters_and_spelling_against_python() -> None:
    for problem in _problems("letters"):
        kind, word, *target = problem.key.split()
        assert problem.expected == str(word.count(target[0]) if kind == "letters" else len(word))
    for problem in _problems("spelling"):
        word = problem.key.split()[1]
        assert problem.expected.replace("-", "") == word[::-1]


def test_units_go_both_ways() -> None:
    factors = {("hours", "minutes"): 60, ("meters", "centimeters"): 100, ("weeks", "days"): 7}
    for problem in _problems("units", 500):
        _, n, big, small = problem.key.split()
        factor = factors.get((big, small))
        if factor is None:
            continue
        shown = _numbers(problem.question)[0]
        assert problem.expected == str(int(n) * factor if shown == int(n) else int(n))


def test_a_near_miss_is_wrong() -> None:
    for family in ("addition", "subtraction", "multiplication", "sums", "stories", "units"):
        for problem in _problems(family, 50):
            miss = str(int(problem.expected) + 1)
            pattern = rf"(?<!\d){re.escape(problem.expected)}(?!\d)"
            assert not is_correct(problem, re.sub(pattern, miss, problem.answer)), problem


@pytest.mark.parametrize(("a", "b"), [(0, 0), (5, 5), (99, 1), (123456, 987), (999999, 999999)])
def test_steps_agree_with_python(a: int, b: int) -> None:
    assert add_steps(a, b)[1] == a + b
    assert sub_steps(max(a, b), min(a, b))[1] == abs(a - b)
    assert mul_steps(a, 7)[1] == a * 7
    assert long_mul_steps(a, 43)[1] == a * 43
    assert div_steps(a, 8)[1] == divmod(a, 8)


def test_sub_steps_refuses_a_negative_result() -> None:
    with pytest.raises(ValueError, match="a >= b"):
        sub_steps(1, 2)


def test_thinking_grows_with_the_difficulty() -> None:
    lengths = [len("\n".join(add_steps(10**d - 1, 10**d - 2)[0])) for d in (1, 2, 3, 4, 5, 6)]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 3 * lengths[0]
    by_size: dict[int, list[int]] = {}
    for problem in _problems("sorting", 300):
        by_size.setdefault(problem.expected.count(",") + 1, []).append(
            len("\n".join(problem.thinking))
        )
    means = [sum(v) / len(v) for _, v in sorted(by_size.items())]
    assert means == sorted(means)


def test_only_the_last_line_of_thinking_concludes() -> None:
    for family in ("addition", "multiplication", "letters", "sorting"):
        for problem in _problems(family, 30):
            assert problem.expected in problem.thinking[-1]


def test_chat_answers_are_honest_and_say_what_the_model_can_do() -> None:
    for problem in _problems("chat"):
        assert CAN in problem.answer


def test_spaced_digits() -> None:
    assert spaced(75, 4) == "0 0 7 5"
