"""Training documents: a branch sees exactly what serving sees, and the batches hold it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from tokenizers import Tokenizer

from models.architecture import Reasoner, Shape, rotary
from models.conversation import MAIN, Conversation, draw_talk, draw_tool_talk
from models.dialogue import WEIGHTS
from models.documents import (
    MAX_TOKENS,
    MIX,
    Document,
    batches,
    collate,
    draw_documents,
    lay_out,
    plain,
    visible,
)
from models.tokenizer import build

SHAPE = Shape(hidden=32, layers=2, mlp=48, heads=2, kv_heads=1, head_dim=16)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build()


def _talk() -> Conversation:
    talk = Conversation()
    talk.read("What is 1 + 1?")
    first = talk.branch()
    talk.write("<think>\nSo 1 + 1 = 2.\n</think>\n\nThe answer is 2.", first)
    talk.read("The answer is 2.")
    talk.read("Now add 3.")
    talk.write("So 2 + 3 = 5.", talk.branch())
    return talk


def test_a_branch_sees_the_main_line_before_it_and_itself() -> None:
    document = Document(
        ids=list(range(8)),
        positions=[0, 1, 2, 3, 2, 3, 4, 5],
        branches=[0, 0, 1, 1, 0, 0, 2, 2],
        learned=[False, False, True, True, False, False, True, True],
    )
    seen = visible(document)
    assert seen[3].tolist() == [True, True, True, True, False, False, False, False]
    assert seen[5].tolist() == [True, True, False, False, True, True, False, False]
    assert seen[7].tolist() == [True, True, False, False, True, True, True, True]
    batch = collate([document])
    assert batch.places.tolist() == [1, 2, 5, 6]
    assert batch.targets.tolist() == [2, 3, 6, 7]


def test_positions_are_those_of_serving(tokenizer: Tokenizer) -> None:
    talk = draw_talk(random.Random(1), 4)
    for seed in range(20):
        document = lay_out(talk, tokenizer, random.Random(seed))
        assert document is not None
        for branch in set(document.branches) - {MAIN}:
            first = document.branches.index(branch)
            before = [
                p for p, b in zip(document.positions[:first], document.branches, strict=False)
                if b == MAIN
            ]  # fmt: skip
            assert document.positions[first] == before[-1] + 1
        main = [p for p, b in zip(document.positions, document.branches, strict=True) if b == MAIN]
        assert sum(b - a != 1 for a, b in pairwise(main)) <= 1
        assert main == sorted(main)


def test_the_loss_of_a_tree_is_that_of_its_turns_alone(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model, (cos, sin) = Reasoner(SHAPE), rotary(SHAPE, 4096)
    talk = _talk()
    rng = random.Random(0)
    rng.random = lambda: 0.0  # type: ignore[method-assign]  # whole answers
    document = lay_out(talk, tokenizer, rng)
    assert document is not None

    def loss(d: Document) -> float:
        b = collate([d])
        turned = cos[b.positions].unsqueeze(1), sin[b.positions].unsqueeze(1)
        with torch.no_grad():
            return float(model(b.ids, *turned, b.mask, b.places, b.targets))

    total = 0.0
    for branch in (1, 2):
        chosen = [i for i, b in enumerate(document.branches) if b in (MAIN, branch)]
        last = max(i for i in chosen if document.branches[i] == branch)
        prompt = [i for i in chosen if document.branches[i] == MAIN and i < last]
        own = [i for i in chosen if document.branches[i] == branch]
        alone = plain([document.ids[i] for i in prompt], [document.ids[i] for i in own])
        alone.positions = [document.positions[i] for i in (*prompt, *own)]
        total += loss(alone)
    assert loss(document) == pytest.approx(total, rel=0.01)


def test_documents_fit_and_repeat(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.documents.CHUNK", 60)
    one = draw_documents(tokenizer, "1:0", WEIGHTS, MIX)
    assert one == draw_documents(tokenizer, "1:0", WEIGHTS, MIX)
    assert one != draw_documents(tokenizer, "1:1", WEIGHTS, MIX)
    assert max(len(d.ids) for d in one) <= MAX_TOKENS
    assert any(d.is_tree for d in one)
    assert all(max(d.positions) < 4096 and any(d.learned) for d in one)


def test_batches_go_on_where_they_stopped(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.documents.CHUNK", 12)
    source = batches(tokenizer, 3, (0, 0), 1500, WEIGHTS, MIX)
    seen = [next(source) for _ in range(12)]
    again = batches(tokenizer, 3, seen[6][1], 1500, WEIGHTS, MIX)
    for expected, _ in seen[7:]:
        found, _ = next(again)
        assert torch.equal(found.ids, expected.ids)
        assert torch.equal(found.targets, expected.targets)


def test_long_conversations_lose_branches_not_turns(tokenizer: Tokenizer) -> None:
    rng = random.Random(7)
    talk = draw_tool_talk(rng, 6)
    whole = lay_out(talk, tokenizer, random.Random(1), longest=100_000)
    assert whole is not None
    main = sum(b == MAIN for b in whole.branches)
    short = lay_out(talk, tokenizer, random.Random(1), longest=main + 250)
    assert short is not None
    assert len(short.ids) <= main + 250
    assert sum(b == MAIN for b in short.branches) == main
    assert lay_out(talk, tokenizer, random.Random(1), longest=100) is None
