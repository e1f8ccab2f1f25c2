"""In which form the text of a run goes over the link."""

from __future__ import annotations

from workers.policy.phase import Phase
from workers.requests.pieces import PieceList


def test_texts_that_belong_to_the_phases_of_their_tokens_go_by_token() -> None:
    found = PieceList("reasoning")
    found.add(0, "reasoning", "hm")
    found.add(2, "answer", "yes")
    pieces = found.finished(3, Phase.REASONING, [(2, Phase.ANSWERING)])
    assert (pieces.texts, pieces.pieces) == (("hm", "", "yes"), None)
    assert [(turn.at, turn.phase) for turn in pieces.turns] == [(2, "answering")]


def test_text_that_was_held_until_a_call_opened_still_belongs_to_the_answer() -> None:
    found = PieceList("answer")
    found.add(1, "answer", "ab")  # a beginning of a stop string; token 1 opens the call
    pieces = found.finished(2, Phase.ANSWERING, [(1, Phase.CALLING)])
    assert pieces.texts == ()
    assert [(piece.at, piece.kind, piece.text) for piece in pieces.pieces or ()] == [
        (1, "answer", "ab")
    ]


def test_a_call_that_begins_goes_in_pieces_and_its_arguments_by_token() -> None:
    found = PieceList("answer")
    found.add(1, "call", "", "f")
    assert found.finished(2, Phase.ANSWERING, [(0, Phase.CALLING)]).pieces is not None
    found = PieceList("call")
    found.add(0, "call", "{")
    assert found.finished(1, Phase.CALLING, []).texts == ("{",)
