"""Scoring of completions, without a model."""

from __future__ import annotations

import random

from models.dialogue import completion_of
from models.evaluate import Completion, draw, run, score, table, well_formed
from models.problems import FAMILIES, is_held_out

END = 4


def _completion(text: str, finished: bool = True) -> Completion:
    return Completion(text.replace("<|im_end|>", ""), (3, 9, 9, END, 9, 9, 9, 2), finished)


def test_drawn_problems_are_held_out_and_different() -> None:
    problems = draw("subtraction", 40, seed=1)
    assert len({p.question for p in problems}) == 40
    assert all(map(is_held_out, problems))


def test_well_formed() -> None:
    assert well_formed(_completion("<think>\na\n</think>\n\nb"))
    assert not well_formed(_completion("<think>\na\n</think>\n\nb", finished=False))
    assert not well_formed(_completion("<think>\na\n</think>\n\n"))
    assert not well_formed(_completion("<think>\na\n</think>\n</think>\n\nb"))
    assert not well_formed(_completion("a</think>b"))
    assert well_formed(_completion("b"), thinking=False)


def test_score_counts_ill_formed_as_wrong() -> None:
    problems = draw("addition", 4, seed=2)
    completions = [_completion(completion_of(p)) for p in problems]
    assert score("addition", problems, completions, END).accuracy == 1.0
    completions[0] = _completion(completion_of(problems[0]), finished=False)
    completions[1] = _completion("<think>\nhm\n</think>\n\nNo idea.")
    result = score("addition", problems, completions, END)
    assert (result.accuracy, result.well_formed) == (0.5, 0.75)
    assert result.reasoning_tokens == (2, 2, 2)
    assert result.answer_tokens == (3, 3, 3)


def test_run_covers_every_family() -> None:
    rng = random.Random(0)
    scores = run(
        lambda prompts: [_completion("<think>\nx\n</think>\n\ny") for _ in prompts],
        END,
        3,
        rng.randrange(9),
    )
    names = [s.name for s in scores]
    assert names == [*FAMILIES, "addition, 3 digits", "subtraction, 3 digits", "all families"]
    assert len(table(scores).splitlines()) == len(scores) + 2
