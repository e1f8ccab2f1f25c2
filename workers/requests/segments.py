"""The output of a model whose markers are single tokens: text is cut where they stand.

Nothing but text of the open segment comes most of the time, and then a token costs a decoding and
no more. Calls go through vLLM's parser. `workers.requests.parsed` is for all other formats.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.policy.phase import Markers, Phase, PhaseTracker, Turn
from workers.requests.calls import Fragment, Reader, one_call
from workers.requests.detokenize import Decode, IncrementalDecoder, StopMatcher
from workers.requests.pieces import KIND, PieceList, Pieces

_REASONING, _ANSWERING, _CALLING = Phase.REASONING, Phase.ANSWERING, Phase.CALLING


class Detokenizer:
    """The text of one request: combines its phases, the decoder, its stop strings and its calls.

    Thoughts and answers begin with visible text, because markers, and white space directly after
    them, give no text. The text of a model without markers is unchanged. A marker has no text,
    except for incomplete bytes at the end of what it closes.
    """

    def __init__(
        self,
        decode: Decode,
        markers: Markers | None,
        phase: Phase,
        stops: Sequence[str] = (),
        calls: Reader | None = None,
        *,
        forced: bool = False,
        parallel: bool = True,
        before: Sequence[int] = (),
        least: int = 0,
    ) -> None:
        """:param decode: token ids to text without special tokens.

        :param calls: reads calls; needed if the markers have any, or with ``forced``.
        :param forced: what follows the thoughts is nothing but calls.
        :param parallel: whether there may be more than one call; the second ends the request.
        :param before: tokens of the prompt, if its text goes on: the first piece depends on them.
        :param least: tokens in which no stop string is looked for.
        """
        self.tracker = PhaseTracker(markers, phase)
        self._decoder = IncrementalDecoder(decode)
        for token_id in before:
            self._decoder.push(token_id)
        self._matcher = StopMatcher(stops)
        self._least_left = least
        self._calls = calls
        self._forced = forced
        self._parallel = parallel
        self._begun = 0  # calls
        self._starts = _single(markers.reasoning_starts) if markers else frozenset()
        self._call_starts = _single(markers.call_starts) if markers else frozenset()
        self._ends = _single(markers.reasoning_ends) if markers else frozenset()
        self._call_ends = _single(markers.call_ends) if markers else frozenset()
        self._leading = markers is not None  # no visible text since the segment began
        self._told = False  # whether the first phase of a forced call was told

    @property
    def phase(self) -> Phase:
        """Of the next token."""
        return self._as_forced(self.tracker.phase)

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer."""
        return self._matcher.found

    def push(self, token_ids: Sequence[int], *, last: bool = False) -> Pieces:
        """Add output tokens.

        :param last: no tokens follow, so the last of these gets the text that is still held.
        """
        was = self.tracker.phase
        turns = self.tracker.feed(token_ids)
        if turns or was is _CALLING or self._forced:
            return self._mixed(token_ids, was, turns, last=last)
        texts: list[str] = []
        for token_id in token_ids:
            self._least_left -= 1
            text, stopped = self._text_of(token_id, was)
            texts.append(text)
            if stopped:
                return Pieces(len(texts), tuple(texts), stopped=True)
        if last and texts:
            rest, stopped = self._rest(was)
            texts[-1] += rest
            return Pieces(len(texts), tuple(texts), stopped=stopped)
        return Pieces(len(texts), tuple(texts))

    # ---- text of thoughts and answers

    def _text_of(self, token_id: int, phase: Phase) -> tuple[str, bool]:
        if self._leading and phase is _REASONING and token_id in self._starts:
            return "", False
        return self._matched(self._decoder.push(token_id), phase)

    def _matched(self, piece: str, phase: Phase) -> tuple[str, bool]:
        if self._leading:
            piece = piece.lstrip()
            self._leading = not piece
        if phase is _REASONING or self._least_left >= 0:
            return piece, False
        return self._matcher.push(piece)

    def _rest(self, phase: Phase) -> tuple[str, bool]:
        """All text that is held, when no more of this segment can come."""
        rest, stopped = self._matched(self._decoder.flush(), phase)
        if phase is _REASONING or stopped:
            return rest, stopped
        return rest + self._matcher.flush(), False

    # ---- runs with a change of phase, and calls

    def _mixed(
        self, token_ids: Sequence[int], was: Phase, raw: Sequence[Turn], *, last: bool
    ) -> Pieces:
        turns = [(at, self._as_forced(phase)) for at, phase in raw]
        phase = self._as_forced(was)
        told: Phase | None = None
        if self._forced and phase is _CALLING and not self._told:
            told = _CALLING
            if was is _ANSWERING:
                turns.insert(0, (0, _CALLING))
        found = PieceList(None if self._leading and phase is not _CALLING else KIND[phase])
        if self._forced and any(to is _CALLING for _, to in turns):
            told = _CALLING
        self._told = self._told or told is not None
        stopped = False
        tokens = len(token_ids)
        following = list(turns)
        for at, token_id in enumerate(token_ids):
            self._least_left -= 1
            opened = False
            while following and following[0][0] == at:
                opened = self._opens(token_id, following[0][1]) or opened
                if opened:
                    stopped = self._leave(found, at, phase) or stopped
                phase = following.pop(0)[1]
            closes = bool(following) and following[0][0] == at + 1 and self._closes(token_id, phase)
            stopped = stopped or self._token(found, at, token_id, phase, opened or closes)
            if closes and not stopped:
                stopped = self._leave(found, at, phase)
            if stopped:
                tokens = at + 1
                break
        if last and tokens and not stopped:
            stopped = self._last(found, tokens - 1, self.phase)
        return found.finished(tokens, was, turns, stopped=stopped, told=told)

    def _token(self, found: PieceList, at: int, token_id: int, phase: Phase, marker: bool) -> bool:
        """Add the text of a token; :return: whether it ends the request."""
        if phase is _CALLING:
            return self._add(found, at, self._reader.push(token_id))
        if marker:
            return False
        text, stopped = self._text_of(token_id, phase)
        found.add(at, KIND[phase], text)
        return stopped

    def _leave(self, found: PieceList, at: int, phase: Phase) -> bool:
        """End a segment at a token; :return: whether that ends the request."""
        stopped = self._last(found, at, phase)
        self._leading = True
        return stopped

    def _last(self, found: PieceList, at: int, phase: Phase) -> bool:
        if phase is _CALLING:
            return self._add(found, at, self._reader.close())
        rest, stopped = self._rest(phase)
        found.add(at, KIND[phase], rest)
        return stopped

    def _add(self, found: PieceList, at: int, fragments: list[Fragment]) -> bool:
        stopped = False
        if not self._parallel:
            fragments, stopped = one_call(fragments, self._begun)
        for fragment in fragments:
            if fragment.answer:
                found.add(at, "answer", fragment.text)
                continue
            self._begun += fragment.name is not None
            found.add(at, "call", fragment.text, fragment.name, fragment.call_id)
        return stopped

    @property
    def _reader(self) -> Reader:
        assert self._calls is not None
        return self._calls

    def _as_forced(self, phase: Phase) -> Phase:
        return _CALLING if self._forced and phase is _ANSWERING else phase

    def _opens(self, token_id: int, phase: Phase) -> bool:
        if phase is _CALLING:
            return token_id in self._call_starts
        return phase is _REASONING and token_id in self._starts

    def _closes(self, token_id: int, phase: Phase) -> bool:
        return token_id in (self._call_ends if phase is _CALLING else self._ends)


def _single(markers: Sequence[Sequence[int]]) -> frozenset[int]:
    return frozenset(ids[0] for ids in markers if len(ids) == 1)
