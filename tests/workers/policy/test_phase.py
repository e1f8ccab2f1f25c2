from __future__ import annotations

import itertools
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.policy.phase import Channels, Markers, Phase, PhaseTracker

START, END, CALL, CALLED = 3, 4, 5, 6
REASONING, ANSWERING, CALLING = Phase.REASONING, Phase.ANSWERING, Phase.CALLING
THOUGHTS = Markers.of_thoughts(START, END)
# Of one model that calls tools, and thinks again between calls and answers.
AGENT = Markers(
    reasoning_starts=((START,),),
    reasoning_ends=((END,),),
    call_starts=((CALL,),),
    call_ends=((CALLED,),),
    reopens=True,
    implicit=True,
)


def phases(turns: list[tuple[int, Phase]], start: Phase, tokens: int) -> list[Phase]:
    """The phase of each token."""
    edges = [(0, start), *turns, (tokens, start)]
    found: list[Phase] = []
    for (at, phase), (until, _) in itertools.pairwise(edges):
        found += [phase] * (until - at)
    return found


# ---- thoughts that end in one token


class BoundaryTracker:
    """The tracker of the paper's case: the first end of thinking is the boundary, for good."""

    def __init__(self, start: Phase, end: int) -> None:
        self.phase, self.end = start, end
        self.reasoning_tokens = self.answering_tokens = 0

    def feed(self, token_ids: list[int]) -> int | None:
        if self.phase is ANSWERING:
            self.answering_tokens += len(token_ids)
            return None
        if self.end not in token_ids:
            self.reasoning_tokens += len(token_ids)
            return None
        index = token_ids.index(self.end)
        self.phase = ANSWERING
        self.reasoning_tokens += index + 1
        self.answering_tokens += len(token_ids) - index - 1
        return index


def test_boundary_is_the_first_end_of_thinking_token_and_belongs_to_the_reasoning() -> None:
    tracker = PhaseTracker(THOUGHTS, REASONING)
    assert tracker.feed([START, 10, 11]) == ()
    assert tracker.reasoning_tokens == 3
    assert tracker.feed([12, END, 13]) == ((2, ANSWERING),)
    assert tracker.phase is ANSWERING
    assert (tracker.reasoning_tokens, tracker.answering_tokens) == (5, 1)


def test_a_boundary_that_is_the_last_token_turns_behind_it() -> None:
    assert PhaseTracker(THOUGHTS, REASONING).feed([1, END]) == ((2, ANSWERING),)


def test_markers_in_the_answer_are_ordinary_text() -> None:
    tracker = PhaseTracker(THOUGHTS, REASONING)
    assert tracker.feed([10, END, 11, END, 12]) == ((2, ANSWERING),)
    assert tracker.feed([END]) == ()
    assert tracker.feed([START, CALL]) == ()
    assert (tracker.reasoning_tokens, tracker.answering_tokens) == (2, 6)


def test_no_boundary_when_generation_starts_in_the_answer() -> None:
    tracker = PhaseTracker(THOUGHTS, ANSWERING)
    assert tracker.feed([10, END, 11]) == ()
    assert (tracker.reasoning_tokens, tracker.answering_tokens) == (0, 3)


@pytest.mark.parametrize("markers", [None, Markers()])
def test_without_a_marker_the_phase_never_changes(markers: Markers | None) -> None:
    tracker = PhaseTracker(markers, REASONING)
    assert tracker.feed([1, 2, 3]) == ()
    assert (tracker.phase, tracker.reasoning_tokens, tracker.alert) == (REASONING, 3, False)


@given(
    st.lists(st.lists(st.integers(0, 6), max_size=6), max_size=20),
    st.sampled_from([REASONING, ANSWERING]),
)
def test_one_end_of_one_token_is_the_two_phases_of_the_paper(
    feeds: list[list[int]], start: Phase
) -> None:
    tracker, paper = PhaseTracker(THOUGHTS, start), BoundaryTracker(start, END)
    for token_ids in feeds:
        boundary = paper.feed(token_ids)
        turns = () if boundary is None else ((boundary + 1, ANSWERING),)
        assert tracker.feed(token_ids) == turns
        assert not tracker.alert
        assert tracker.phase is paper.phase
        assert tracker.reasoning_tokens == paper.reasoning_tokens
        assert tracker.answering_tokens == paper.answering_tokens
        assert tracker.calling_tokens == 0


# ---- phases in any order


def test_a_call_holds_its_markers_and_an_answer_follows() -> None:
    tracker = PhaseTracker(AGENT, REASONING)
    turns = tracker.feed([1, END, 2, CALL, 9, CALLED, 2])
    assert turns == ((2, ANSWERING), (3, CALLING), (6, ANSWERING))
    counts = tracker.reasoning_tokens, tracker.answering_tokens, tracker.calling_tokens
    assert counts == (2, 2, 3)


def test_a_call_in_the_thoughts_ends_them_only_where_the_format_says_so() -> None:
    assert PhaseTracker(AGENT, REASONING).feed([1, CALL, 9]) == ((1, CALLING),)
    strict = msgspec.structs.replace(AGENT, implicit=False)
    assert PhaseTracker(strict, REASONING).feed([1, CALL, 9]) == ()
    assert PhaseTracker(strict, ANSWERING).feed([1, CALL, 9]) == ((1, CALLING),)


def test_thoughts_reopen_only_where_the_format_says_so() -> None:
    assert PhaseTracker(AGENT, ANSWERING).feed([1, START, 9]) == ((1, REASONING),)
    strict = msgspec.structs.replace(AGENT, reopens=False)
    assert PhaseTracker(strict, ANSWERING).feed([1, START, 9]) == ()


def test_only_its_own_end_closes_a_call() -> None:
    tracker = PhaseTracker(AGENT, CALLING)
    assert tracker.feed([1, END, START, CALL, CALLED]) == ((5, ANSWERING),)


def test_between_two_calls_without_a_token_lies_an_empty_answer() -> None:
    tracker = PhaseTracker(AGENT, CALLING)
    assert tracker.feed([CALLED, CALL]) == ((1, ANSWERING), (1, CALLING))
    assert tracker.answering_tokens == 0


# ---- sequences


def test_a_closing_sequence_belongs_to_what_it_closes_an_opening_one_only_by_its_end() -> None:
    markers = Markers(reasoning_ends=((7, 8, 9),), call_starts=((1, 2),))
    tracker = PhaseTracker(markers, REASONING)
    assert tracker.feed([7, 7, 8, 9, 1, 2]) == ((4, ANSWERING), (5, CALLING))
    assert (tracker.reasoning_tokens, tracker.answering_tokens, tracker.calling_tokens) == (4, 1, 1)


@pytest.mark.parametrize("token_ids", [[7, 8, 5, 9], [8, 9], [7, 9, 8], [9, 7, 8]])
def test_a_broken_sequence_is_text(token_ids: list[int]) -> None:
    assert PhaseTracker(Markers(reasoning_ends=((7, 8, 9),)), REASONING).feed(token_ids) == ()


def test_a_tracker_is_alert_while_a_sequence_may_have_begun() -> None:
    tracker = PhaseTracker(Markers(reasoning_ends=((7, 8),)), REASONING)
    for token_id, alert in ((1, False), (7, True), (1, False), (7, True), (8, False)):
        tracker.feed([token_id])
        assert tracker.alert is alert


def test_several_spellings_of_one_marker() -> None:
    markers = Markers(reasoning_ends=((7, 8), (5, 8)))
    for ids in markers.reasoning_ends:
        assert PhaseTracker(markers, REASONING).feed([1, *ids, 1]) == ((3, ANSWERING),)


def test_of_two_markers_with_one_end_the_longer_counts() -> None:
    markers = Markers(reasoning_ends=((8,),), call_starts=((7, 8),), implicit=True)
    assert PhaseTracker(markers, REASONING).feed([7, 8]) == ((1, CALLING),)
    assert PhaseTracker(markers, REASONING).feed([1, 8]) == ((2, ANSWERING),)


def test_markers_do_not_overlap() -> None:
    markers = Markers(reasoning_ends=((1, 2),), call_starts=((2, 3),))
    tracker = PhaseTracker(markers, REASONING)
    assert tracker.feed([1, 2, 3]) == ((2, ANSWERING),)
    assert tracker.feed([2, 3]) == ((1, CALLING),)


def test_a_sequence_may_begin_in_output_of_another_engine() -> None:
    markers = Markers(reasoning_ends=((7, 8, 9),))
    assert PhaseTracker(markers, REASONING, [1, 7, 8]).feed([9]) == ((1, ANSWERING),)
    assert PhaseTracker(markers, REASONING, [1, 7]).feed([9]) == ()
    fresh = PhaseTracker(markers, ANSWERING, [7, 8, 9])  # its end is in the phase already
    assert (fresh.phase, fresh.reasoning_tokens, fresh.feed([1])) == (ANSWERING, 0, ())


# Small alphabets, so that markers share tokens, begin in one another, and occur by chance.
_sequences = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), max_size=2)
_markers = st.builds(
    Markers,
    reasoning_starts=_sequences.map(tuple),
    reasoning_ends=_sequences.map(tuple),
    call_starts=_sequences.map(tuple),
    call_ends=_sequences.map(tuple),
    reopens=st.booleans(),
    implicit=st.booleans(),
)


def turns_of(markers: Markers, start: Phase, token_ids: list[int]) -> list[tuple[int, Phase]]:
    """The definition: the longest marker of the phase whose tokens end here, all after the turn."""
    closing = {REASONING: markers.reasoning_ends, CALLING: markers.call_ends, ANSWERING: ()}
    turns: list[tuple[int, Phase]] = []
    phase, since = start, 0
    for stop in range(1, len(token_ids) + 1):
        opening = [(ids, CALLING) for ids in markers.call_starts]
        if phase is REASONING and not markers.implicit:
            opening = []
        if phase is ANSWERING and markers.reopens:
            opening += [(ids, REASONING) for ids in markers.reasoning_starts]
        if phase is CALLING:
            opening = []
        found = [(ids, ANSWERING, stop) for ids in closing[phase]]
        found += [(ids, to, stop - 1) for ids, to in opening]
        seen = tuple(token_ids[since:stop])
        found = [one for one in found if seen[-len(one[0]) :] == one[0]]
        if found:
            _, phase, at = max(found, key=lambda one: len(one[0]))
            turns.append((at, phase))
            since = stop
    return turns


@given(
    _markers,
    st.sampled_from([*Phase]),
    st.lists(st.integers(0, 5), max_size=40),
    st.lists(st.integers(0, 40), max_size=8),
)
def test_turns_do_not_depend_on_the_cuts(
    markers: Markers, start: Phase, token_ids: list[int], cuts: list[int]
) -> None:
    expected = turns_of(markers, start, token_ids)
    edges = sorted({0, len(token_ids), *(cut for cut in cuts if cut <= len(token_ids))})
    tracker = PhaseTracker(markers, start)
    found: list[tuple[int, Phase]] = []
    for first, last in itertools.pairwise(edges):
        part = token_ids[first:last]
        if not tracker.alert and markers.watched.isdisjoint(part):
            tracker.count(len(part))  # as the scheduler does
        else:
            found += [(first + at, phase) for at, phase in tracker.feed(part)]
    assert found == expected
    assert tracker.phase is (expected[-1][1] if expected else start)
    of_tokens = phases(expected, start, len(token_ids))
    assert tracker.reasoning_tokens == of_tokens.count(REASONING)
    assert tracker.answering_tokens == of_tokens.count(ANSWERING)
    assert tracker.calling_tokens == of_tokens.count(CALLING)


# ---- channels

OPEN, CHANNEL, TEXT, CLOSE = 90, 91, 92, 93
ANALYSIS, FINAL, COMMENTARY, ROLE, TO, NAME = 40, 41, 42, 43, 44, 45
HARMONY = Markers(
    channels=Channels(
        start=OPEN,
        channel=CHANNEL,
        message=TEXT,
        reasoning=((ANALYSIS,),),
        answering=((FINAL,), (COMMENTARY, COMMENTARY)),
        recipients=((TO, NAME),),
    )
)
THINK = [CHANNEL, ANALYSIS, TEXT]
ANSWER = [OPEN, ROLE, CHANNEL, FINAL, TEXT]
SPEAK = [OPEN, ROLE, CHANNEL, COMMENTARY, COMMENTARY, TEXT]
CALL_IN_CHANNEL = [OPEN, ROLE, CHANNEL, COMMENTARY, TO, NAME, 7, 8, TEXT]
CALL_BEFORE_CHANNEL = [OPEN, ROLE, TO, NAME, 7, CHANNEL, COMMENTARY, COMMENTARY, TEXT]


@pytest.mark.parametrize(
    ("header", "phase"),
    [
        (ANSWER, ANSWERING),
        (SPEAK, ANSWERING),
        (CALL_IN_CHANNEL, CALLING),
        (CALL_BEFORE_CHANNEL, CALLING),
    ],
)
def test_a_phase_begins_with_the_text_of_its_message(header: list[int], phase: Phase) -> None:
    tracker = PhaseTracker(HARMONY, REASONING)
    before = [*THINK, 1, 2, CLOSE, *header]
    assert tracker.feed([*before, 3, 4]) == ((len(before), phase),)
    assert tracker.reasoning_tokens == len(before)


@pytest.mark.parametrize("message", [THINK, [OPEN, ROLE, *THINK], [OPEN, ROLE, CHANNEL, 77, TEXT]])
def test_more_thoughts_and_unknown_channels_change_nothing(message: list[int]) -> None:
    assert PhaseTracker(HARMONY, REASONING).feed([*THINK, 1, CLOSE, *message, 1]) == ()


def test_thoughts_follow_an_answer() -> None:
    tracker = PhaseTracker(HARMONY, REASONING)
    assert [phase for _, phase in tracker.feed([*THINK, 1, CLOSE, *SPEAK, 1, CLOSE])] == [ANSWERING]
    again = [OPEN, ROLE, *THINK]
    assert tracker.feed([*again, 1]) == ((len(again), REASONING),)


def test_the_prompt_may_end_inside_the_first_header() -> None:
    header = [TO, NAME, 7, CHANNEL, COMMENTARY, TEXT]
    assert PhaseTracker(HARMONY, REASONING).feed([*header, 1]) == ((len(header), CALLING),)


def test_a_message_token_without_a_header_is_text() -> None:
    tracker = PhaseTracker(HARMONY, REASONING)
    tracker.feed([*THINK, 1])
    assert tracker.feed([TO, NAME, TEXT, 1]) == ()


def test_a_header_that_never_ends_is_none() -> None:
    tracker = PhaseTracker(HARMONY, REASONING)
    assert tracker.feed([CHANNEL, FINAL, *[1] * 100, TEXT]) == ()
    assert not tracker.alert


@given(st.lists(st.sampled_from([ANSWER, SPEAK, CALL_IN_CHANNEL, [OPEN, ROLE, *THINK]])), st.data())
def test_headers_may_be_cut_anywhere(messages: list[list[int]], data: st.DataObject) -> None:
    token_ids = [*THINK, 1, CLOSE, *(i for m in messages for i in (*m, 1, 2, CLOSE))]
    whole, parts = PhaseTracker(HARMONY, REASONING), PhaseTracker(HARMONY, REASONING)
    expected = list(whole.feed(token_ids))
    found, first = [], 0
    while first < len(token_ids):
        last = first + data.draw(st.integers(1, 5))
        found += [(first + at, phase) for at, phase in parts.feed(token_ids[first:last])]
        first = last
    assert found == expected
    cut = data.draw(st.integers(0, len(token_ids)))
    before = PhaseTracker(HARMONY, REASONING)
    early = list(before.feed(token_ids[:cut]))
    later = PhaseTracker(HARMONY, before.phase, token_ids[:cut])
    moved = early + [(cut + at, phase) for at, phase in later.feed(token_ids[cut:])]
    assert moved == expected


# ---- text


def test_phases_that_only_text_shows_are_told() -> None:
    tracker = PhaseTracker(Markers(text_only=True), REASONING)
    assert tracker.feed([1, 2]) == ()
    tracker.turn(CALLING)
    tracker.feed([1])
    tracker.turn(ANSWERING)
    assert tracker.phase is ANSWERING
    assert (tracker.reasoning_tokens, tracker.answering_tokens, tracker.calling_tokens) == (2, 0, 1)


# ---- the description of a model


@pytest.mark.parametrize("markers", [THOUGHTS, AGENT, HARMONY, Markers(text_only=True)])
def test_markers_travel_as_json_and_between_processes(markers: Markers) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(markers))
    assert msgspec.convert(plain, Markers) == markers
    assert pickle.loads(pickle.dumps(markers)) == markers


@pytest.mark.parametrize(
    "plain",
    [
        {"reasoning_ends": [[]]},
        {"reasoning_ends": [["</think>"]]},
        {"reasoning_ends": [[1]], "text_only": True},
        {"call_ends": [[1]], "channels": msgspec.to_builtins(HARMONY.channels)},
        {"ends": [[1]]},
    ],
)
def test_a_wrong_description_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(plain, Markers)


@pytest.mark.parametrize(
    ("vocabulary", "markers"),
    [
        ({"<think>": 3, "</think>": 4}, Markers.of_thoughts(3, 4)),
        ({"</think>": 4}, Markers.of_thoughts(None, 4)),
        ({"<think>": 3}, None),
        ({"a": 1}, None),
    ],
)
def test_markers_of_a_vocabulary(vocabulary: dict[str, int], markers: Markers | None) -> None:
    assert Markers.of_vocabulary(vocabulary) == markers


@pytest.mark.parametrize(
    ("token_ids", "phase"),
    [
        ([1, START], REASONING),
        ([START, 9, END, 9], ANSWERING),
        ([END, START, 9], REASONING),
        ([1, 2], None),
        ([7, 8, 1], ANSWERING),
        ([8, 1], None),
    ],
)
def test_last_marker_decides(token_ids: list[int], phase: Phase | None) -> None:
    markers = Markers(reasoning_starts=((START,),), reasoning_ends=((END,), (7, 8)))
    assert markers.phase_after(token_ids) is phase


def test_markers_without_calls() -> None:
    both = Markers(((3,),), ((4,),), ((5,),), ((6,),), implicit=True)
    assert both.without_calls == Markers(((3,),), ((4,),))
    assert Markers(call_starts=((5,),)).without_calls is None
    thoughts = Markers.of_thoughts(3, 4)
    assert thoughts.without_calls is thoughts
