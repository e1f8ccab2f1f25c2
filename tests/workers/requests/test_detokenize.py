from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.workers.support.harness import MODEL
from workers.policy.phase import Markers, Phase
from workers.requests.detokenize import Decode, IncrementalDecoder, StopMatcher
from workers.requests.segments import Detokenizer

TOKENIZER = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
VOCABULARY: dict[str, int] = TOKENIZER.get_vocab()
START, END = VOCABULARY["<think>"], VOCABULARY["</think>"]
MARKERS = Markers.of_thoughts(START, END)
ORDINARY = [
    token_id for token, token_id in VOCABULARY.items() if token not in ("<think>", "</think>")
]
token_ids_of_anything = st.lists(st.sampled_from(ORDINARY), max_size=120)
EOS = VOCABULARY["<|im_end|>"]


def decode(token_ids: Sequence[int]) -> str:
    text: str = TOKENIZER.decode(list(token_ids), skip_special_tokens=True)
    return text


def encode(text: str) -> list[int]:
    token_ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False).ids
    return token_ids


def pieces_of(token_ids: Sequence[int], using: Decode = decode) -> list[str]:
    decoder = IncrementalDecoder(using)
    return [*(decoder.push(token_id) for token_id in token_ids), decoder.flush()]


@given(token_ids_of_anything)
@settings(max_examples=500)
def test_pieces_join_to_the_whole_for_any_tokens(token_ids: list[int]) -> None:
    assert "".join(pieces_of(token_ids)) == decode(token_ids)


@given(st.text(st.characters(codec="utf-8"), max_size=60))
@settings(max_examples=300)
def test_pieces_join_to_any_text_and_nothing_is_left_but_replacement_signs(text: str) -> None:
    *pieces, rest = pieces_of(encode(text))
    assert "".join(pieces) + rest == decode(encode(text))
    assert set(rest) <= {"\ufffd"}
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)


def test_a_character_belongs_to_the_token_that_completes_it() -> None:
    token_ids = encode("a\U0001f6f8b")
    assert len(token_ids) > 3  # the character is not one token
    pieces = pieces_of(token_ids)
    at = next(index for index, piece in enumerate(pieces) if "\U0001f6f8" in piece)
    assert pieces[1:at] == [""] * (at - 1)
    assert at == len(token_ids) - 2
    assert "".join(pieces) == "a\U0001f6f8b"


def test_endless_invalid_bytes_cost_the_same_at_every_token() -> None:
    invalid = next(
        i for i in ORDINARY if decode([i]) == "\ufffd" and decode([i, i]) == "\ufffd" * 2
    )
    longest = 0

    def measured(token_ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(token_ids))
        return decode(token_ids)

    assert "".join(pieces_of([invalid] * 1000, measured)) == "\ufffd" * 1000
    assert longest < 100


def test_decoder_that_takes_text_back_does_not_break_the_stream() -> None:
    # As decoders with byte fallback do: one invalid byte spoils the whole run of bytes.
    def byte_fallback(token_ids: Sequence[int]) -> str:
        text = ""
        for is_ascii, run in itertools.groupby(token_ids, lambda token_id: token_id < 0x80):
            data = bytes(run)
            try:
                text += data.decode()
            except UnicodeDecodeError:
                assert not is_ascii
                text += "\ufffd" * len(data)
        return text

    joined = "".join(pieces_of([*"éüß".encode(), 0xFF, *b"abc", *"ö".encode()], byte_fallback))
    assert joined.startswith("éüß")
    assert joined.endswith("abcö")
    assert set(joined) == set("éüß\ufffdabcö")


@given(
    st.lists(st.text("ab<", max_size=4), max_size=12),
    st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3),
)
@settings(max_examples=500)
def test_stop_matcher_finds_what_a_search_of_the_whole_finds(
    pieces: list[str], stops: list[str]
) -> None:
    matcher = StopMatcher(stops)
    given_out, whole, found = "", "", False
    for piece in pieces:
        whole += piece
        text, found = matcher.push(piece)
        given_out += text
        if found:
            break
        # Held back is no more than could begin a stop string.
        held = len(whole) - len(given_out)
        assert held <= max((len(stop) - 1 for stop in stops), default=0)
    first = min((at for stop in stops if (at := whole.find(stop)) >= 0), default=None)
    assert found == (first is not None)
    assert given_out + ("" if found else matcher.flush()) == whole[:first]


def joined(detokenizer: Detokenizer, token_ids: list[int]) -> tuple[str, str, int | None]:
    """Reasoning, answer and boundary, one token at a time."""
    texts: list[str] = []
    boundary = None
    for index, token_id in enumerate(token_ids):
        pieces = detokenizer.push([token_id], last=index == len(token_ids) - 1)
        assert len(pieces.texts) == 1
        if pieces.turns and boundary is None:
            boundary = index
        texts += pieces.texts
    cut = 0 if boundary is None else boundary + 1
    return "".join(texts[:cut]), "".join(texts[cut:]), boundary


def test_markers_and_the_white_space_after_them_give_no_text() -> None:
    token_ids = [*encode("<think>\nI think.\n</think>\n\nThe answer."), EOS]
    detokenizer = Detokenizer(decode, MARKERS, Phase.REASONING)
    reasoning, answer, boundary = joined(detokenizer, token_ids)
    assert (reasoning, answer) == ("I think.\n", "The answer.")
    assert boundary == token_ids.index(END)
    assert detokenizer.tracker.phase is Phase.ANSWERING


def test_second_boundary_and_spelled_words_are_text() -> None:
    spelled = [i for part in ("<", "/", "think", ">") for i in encode(part)]
    assert END not in spelled
    token_ids = [*encode("One"), *spelled, END, *encode("Two</think>three")]
    detokenizer = Detokenizer(decode, MARKERS, Phase.REASONING)
    assert joined(detokenizer, token_ids)[:2] == ("One</think>", "Two</think>three")


def test_start_marker_inside_the_thoughts_is_text() -> None:
    token_ids = encode("<think>So <think> is a tag.")
    detokenizer = Detokenizer(decode, MARKERS, Phase.REASONING)
    texts = detokenizer.push(token_ids, last=True).texts
    assert "".join(texts) == "So <think> is a tag."


def test_model_without_markers_keeps_its_leading_space() -> None:
    detokenizer = Detokenizer(decode, None, Phase.ANSWERING)
    assert "".join(detokenizer.push(encode("\n  Hello"), last=True).texts) == "\n  Hello"


def test_incomplete_bytes_at_the_end_become_a_replacement_sign_on_the_last_token() -> None:
    whole = encode("ab\U0001f6f8")
    detokenizer = Detokenizer(decode, None, Phase.ANSWERING)
    texts = detokenizer.push(whole[:-1], last=True).texts
    assert len(texts) == len(whole) - 1
    assert texts[-1] == "\ufffd"
    assert "".join(texts) == decode(whole[:-1])


def test_incomplete_bytes_of_the_thoughts_stay_in_the_thoughts() -> None:
    token_ids = [*encode("a\U0001f6f8")[:-1], END, *encode("Answer")]
    detokenizer = Detokenizer(decode, MARKERS, Phase.REASONING)
    assert joined(detokenizer, token_ids)[:2] == ("a\ufffd", "Answer")


def test_stop_string_ends_the_answer_and_is_ignored_in_the_thoughts() -> None:
    thoughts = encode("<think>END of it.</think>")
    answer = encode("\nWe begin. The END comes later.")
    detokenizer = Detokenizer(decode, MARKERS, Phase.REASONING, ["END"])
    assert not detokenizer.push(thoughts).stopped
    texts: list[str] = []
    for index, token_id in enumerate(answer):
        pieces = detokenizer.push([token_id])
        texts += pieces.texts
        if pieces.stopped:
            assert decode(answer[: index + 1]).endswith("END")
            break
    else:
        pytest.fail("the stop string was not found")
    assert "".join(texts) == "We begin. The "


def test_batch_with_a_stop_string_gives_only_the_tokens_up_to_it() -> None:
    token_ids = encode("Some text. STOP and more text")
    detokenizer = Detokenizer(decode, None, Phase.ANSWERING, ["STOP"])
    pieces = detokenizer.push(token_ids)
    assert pieces.stopped
    assert "".join(pieces.texts) == "Some text. "
    assert 0 < len(pieces.texts) < len(token_ids)


def test_text_that_only_begins_like_a_stop_string_comes_late_but_comes() -> None:
    detokenizer = Detokenizer(decode, None, Phase.ANSWERING, ["begin again"])
    held = detokenizer.push(encode("We begin"))
    assert "".join(held.texts) == "We "
    assert "".join(detokenizer.push(encode("ning now")).texts) == "beginning now"
    assert "".join(detokenizer.push(encode(" beg"), last=True).texts) == " beg"


@given(token_ids_of_anything.filter(bool), st.integers(0, 120))
def test_known_output_leaves_the_state_of_having_written_it(token_ids: list[int], cut: int) -> None:
    tokens = [START, *token_ids, END, *token_ids]
    cut = min(cut, len(tokens) - 1)
    whole = Detokenizer(decode, MARKERS, Phase.REASONING, ["the"])
    continued = Detokenizer(decode, MARKERS, Phase.REASONING, ["the"])
    if whole.push(tokens[:cut]).stopped or continued.push(tokens[:cut]).stopped:
        return
    one_by_one = [whole.push([token_id]) for token_id in tokens[cut:]]
    expected: list[str] = []
    for pieces in one_by_one:
        expected += pieces.texts
        if pieces.stopped:
            break
    assert list(continued.push(tokens[cut:]).texts) == expected
