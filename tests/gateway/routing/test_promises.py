"""The invariants of one response (docs/explanation/invariants.md), for any tokens, steps and moves.

The tokens go through the worker's own detokenizer with the embedded model's vocabulary, so that
characters span tokens; the clock stops exactly at each planned release.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gateway.config import PROJECT_ROOT
from gateway.response.event_log import EventLog, LogTruncated
from gateway.response.output_item import OutputItem
from gateway.response.session import Session
from gateway.schemas import events
from gateway.schemas.errors import Unavailable
from tests.gateway.support.sessions import events_of, make_session
from workers.engine.interface import EngineOutput
from workers.messages import FinishReason
from workers.policy.phase import Markers, Phase
from workers.requests.segments import Detokenizer
from workers.requests.stream import RequestStream

TOKENIZER = Tokenizer.from_file(str(PROJECT_ROOT / "models" / "tiny-reasoner" / "tokenizer.json"))
VOCABULARY: dict[str, int] = TOKENIZER.get_vocab()
START, END = VOCABULARY["<think>"], VOCABULARY["</think>"]
MARKERS = Markers.of_thoughts(START, END)
ORDINARY = [number for number in VOCABULARY.values() if number not in (START, END)]
EOS = VOCABULARY["<|im_end|>"]
TERMINAL = (events.COMPLETED, events.INCOMPLETE, events.FAILED)
TAU_S = 0.1
NEAR_S = 1e-5

# A note and a letter that take several tokens each, among tokens of anything.
CHARACTERS = [TOKENIZER.encode(text, add_special_tokens=False).ids for text in ("\U0001d11e", "é")]
pieces = st.one_of(st.sampled_from([[number] for number in ORDINARY]), st.sampled_from(CHARACTERS))
tokens = st.lists(pieces, max_size=16).map(lambda found: list(itertools.chain(*found)))
End = Literal["stop", "length", "cancel", "lost"]
Played: TypeAlias = "tuple[Play, list[int], list[int], End]"  # with tokens of thoughts and answer


def decode(token_ids: Sequence[int]) -> str:
    text: str = TOKENIZER.decode(list(token_ids), skip_special_tokens=True)
    return text


def detokenizer() -> Detokenizer:
    return Detokenizer(decode, MARKERS, Phase.REASONING)


@dataclass
class Play:
    """A session, the worker that has its request, and a clock."""

    session: Session
    now: float = 1.0
    shown: list[tuple[str, float]] = field(default_factory=list)  # deltas, when they were logged
    due: list[tuple[str, float]] = field(default_factory=list)  # the same, by the law of release
    given_up_s: float | None = None  # cancelled, or failed
    _moves: int = 0
    _held: int = 0  # tokens whose text is still to come

    def __post_init__(self) -> None:
        self._join()

    def _join(self) -> None:
        known = self.session.token_ids
        self.stream = RequestStream("resp_1", detokenizer(), known, None)
        self.session.accepted(f"worker-{self._moves}", 7, reasoning=True)

    def move(self) -> None:
        """Continue the request elsewhere, from the token log."""
        self.session.left()
        self._moves += 1
        self._join()

    def wait(self, seconds: float) -> None:
        """Let time pass, and release each token exactly when it is due."""
        until = self.now + seconds
        while (due := self.session.next_release_s()) is not None and due <= until:
            self.now = max(self.now, due)
            self._note(lambda: self.session.release(self.now))
        self.now = until

    def step(self, token_ids: Sequence[int], finish: FinishReason | None = None) -> None:
        """Let the engine generate tokens in one step."""
        output = EngineOutput(request_id="resp_1", token_ids=tuple(token_ids), finish=finish)
        run = self.stream.advance(output).run
        if run is not None:
            answer = run.texts
            if self.session.thinking:
                answer = run.texts[run.turns[0].at :] if run.turns else ()
            for text in answer:
                self._plan(text)
            self._note(lambda: self.session.tokens(run, self.now))

    def fail(self) -> None:
        """Lose the instance, with no other to take its place."""
        error = Unavailable("gone", code="instance_lost")
        self._note(lambda: self.session.fail(error, self.now))

    def _plan(self, text: str) -> None:
        """``release_i = max(arrival_i, release_{i-1} + tau)``, token by token."""
        if not text:
            self._held += bool(self.due)
            return
        at = self.due[-1][1] if self.due else None
        for _ in range(self._held + 1):
            waits = at is not None and self.session.delivery.paced
            at = max(self.now, at + TAU_S) if waits and at is not None else self.now
        assert at is not None
        self.due.append((text, at))
        self._held = 0

    def _note(self, action: Any) -> None:
        before = self.session.log.next_sequence
        action()
        for entry in self.session.log.after(before - 1):
            if entry.type == events.ANSWER_DELTA:
                self.shown.append((msgspec.json.decode(entry.data)["delta"], self.now))


@st.composite
def plays(draw: st.DrawFn) -> Played:
    """A response from its acceptance to its end."""
    thoughts, answer = draw(tokens), draw(tokens)
    end: End = draw(st.sampled_from(["stop", "length", "cancel", "lost"]))
    paced = draw(st.booleans())
    play = Play(make_session(pacing=None if paced else False))
    told = 0
    ahead = [*thoughts, END, *answer]
    while told < len(ahead):
        count = draw(st.integers(1, 6))
        play.step(ahead[told : told + count])
        told += count
        if draw(st.integers(0, 5)) == 0:
            play.move()
        play.wait(draw(st.sampled_from([0.0, 0.01, 0.07, 0.1, 0.35])))
    if end in ("cancel", "lost"):
        play.given_up_s = play.now
    match end:
        case "stop":
            play.step([EOS], "stop")
        case "length":
            play.step([], "length")
        case "cancel":
            assert play.session.cancel(play.now)
            play.step([], "cancelled")
        case "lost":
            play.fail()
    play.wait(60.0)
    return play, thoughts, answer, end


def joined(session: Session, kind: str) -> str:
    """The deltas of one kind, as a client puts them together."""
    return "".join(event["delta"] for event in events_of(session) if event["type"] == kind)


def final_texts(session: Session) -> dict[str, str]:
    output = events_of(session)[-1]["response"]["output"]
    return {item["type"]: item["content"][0]["text"] for item in output}


@given(played=plays())
@settings(max_examples=80, deadline=None)
def test_a_response_ends_once_is_numbered_without_a_hole_and_joins_to_its_text(
    played: Played,
) -> None:
    play, thoughts, answer, end = played
    session = play.session
    told = events_of(session)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    terminal = [event["type"] for event in told if event["type"] in TERMINAL]
    assert len(terminal) == 1
    assert terminal == [told[-1]["type"]]
    texts = final_texts(session)
    assert joined(session, events.REASONING_DELTA) == texts.get("reasoning", "")
    assert joined(session, events.ANSWER_DELTA) == texts.get("message", "")
    assert list(session.token_ids[: len(thoughts)]) == thoughts
    assert texts.get("reasoning", "") == decode(thoughts).lstrip()
    whole = decode(answer).lstrip()
    if end == "stop":
        assert list(session.token_ids) == [*thoughts, END, *answer, EOS]
        assert texts.get("message", "") == whole
    else:  # bytes of an incomplete character give no text
        assert whole.startswith(texts.get("message", ""))


@given(played=plays())
@settings(max_examples=80, deadline=None)
def test_no_token_is_early_and_none_is_late_while_the_buffer_holds_it(played: Played) -> None:
    play, _, _, end = played
    texts = [text for text, _ in play.due]
    assert [text for text, _ in play.shown] == texts[: len(play.shown)]
    until_s = play.given_up_s
    for (_, at), (_, due) in zip(play.shown, play.due, strict=False):
        if until_s is None or due <= until_s - NEAR_S:
            assert at == pytest.approx(due, abs=NEAR_S)
        else:  # a response that fails gives out what it has; one that is cancelled does not
            assert at == pytest.approx(until_s, abs=NEAR_S)
            assert end == "lost" or due <= until_s + NEAR_S
    kept_back = play.due[len(play.shown) :]
    assert not kept_back or end == "cancel"
    assert all(until_s is not None and due >= until_s - NEAR_S for _, due in kept_back)


@given(
    capacity=st.integers(1, 20_000),
    batches=st.lists(st.integers(0, 300), max_size=12),
    cursor=st.integers(-1, 200),
    whole=st.integers(1, 400),
)
def test_a_reader_gets_consecutive_events_or_is_told_that_some_are_gone(
    capacity: int, batches: list[int], cursor: int, whole: int
) -> None:
    log = EventLog(capacity)
    item = OutputItem("answer", "msg_1")
    item.announce(0)
    at, truncated = cursor, False
    for count in batches:
        for number in range(count):
            if number % whole == 0:
                log.append("response.output_item.added", {})
            item.add("x")
            log.add_delta(item)
        if truncated or at >= log.next_sequence:
            continue
        kept = log._parts[0].sequence if log._parts else log.next_sequence
        if at + 1 < kept:
            with pytest.raises(LogTruncated):
                log.after(at)
            truncated = True
            continue
        assert log.size_bytes <= capacity or len(log._parts) == 1
        entries = list(log.after(at))
        numbers = [msgspec.json.decode(entry.data)["sequence_number"] for entry in entries]
        assert numbers == [entry.sequence for entry in entries]
        assert numbers == list(range(at + 1, log.next_sequence))
        at = log.next_sequence - 1


def test_the_plays_reach_every_end_and_move() -> None:
    """The random cases include moves, buffered tokens and parts of characters."""
    found: set[str] = set()

    @given(played=plays())
    @settings(max_examples=80, deadline=None, database=None, derandomize=True)
    def look(played: Played) -> None:
        play, _, answer, end = played
        found.add(end)
        found.update(
            name
            for name, so in {
                "moved": play.session.instance_id != "worker-0",
                "waited": any(b[1] - a[1] > NEAR_S for a, b in itertools.pairwise(play.due)),
                "pieces": len(play.due) < len(answer) - 1,
            }.items()
            if so
        )

    look()
    assert found == {"stop", "length", "cancel", "lost", "moved", "waited", "pieces"}
