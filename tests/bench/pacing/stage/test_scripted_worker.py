"""What the scripted worker generates for a request."""

from __future__ import annotations

from bench.pacing.stage.frames import ANSWER, ANSWER_TEXT, THINK, THOUGHT_TEXT
from bench.pacing.stage.scripted_worker import Request
from workers.messages import TokenRun


def runs_of(request: Request, *, tokens: int, thoughts_per_step: int = 1) -> list[TokenRun]:
    runs = []
    while not request.ended:
        runs.append(request.run(thoughts_per_step, tokens))
    return runs


def test_an_answer_has_its_lengths_a_boundary_and_an_end() -> None:
    request = Request("r", ANSWER)
    request.thoughts, request.lead = 5, 3
    runs = runs_of(request, tokens=7, thoughts_per_step=2)
    texts = [text for run in runs for text in run.texts]
    assert texts == [THOUGHT_TEXT] * 5 + [""] + [ANSWER_TEXT] * 7
    turns = [[(turn.at, turn.phase) for turn in run.turns] for run in runs]
    assert turns == [[], [], [], [(1, "answering")], [], [], []]
    assert [len(run.texts) for run in runs] == [2, 2, 1, 5, 1, 1, 1]
    assert [run.finish is not None for run in runs] == [False] * 6 + [True]
    position = 0
    for run in runs:
        assert run.position == position
        assert len(run.token_ids) == len(run.texts)
        position += len(run.texts)


def test_a_lead_longer_than_the_answer_ends_it() -> None:
    request = Request("r", ANSWER)
    request.lead = 50
    (run,) = runs_of(request, tokens=4)
    assert run.texts == ("", *[ANSWER_TEXT] * 4)
    assert run.finish is not None


def test_thoughts_go_on_without_end() -> None:
    request = Request("r", THINK)
    for position in range(20):
        run = request.run(1, 0)
        assert (run.position, run.texts, run.finish) == (position, (THOUGHT_TEXT,), None)
