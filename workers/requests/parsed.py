"""The output of a model whose text only a parser can split: vLLM's parser reads every token.

For markers of several tokens, markers that are only text, and formats with markup between the
segments. Phases come from token ids where the model's markers allow that; otherwise from the
text, and the scheduler learns them a step later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import Parser
from vllm.parser.harmony import HarmonyParser

from workers.policy.phase import Markers, Phase, PhaseTracker
from workers.requests.calls import Fragment, Portions, fragments_of, one_call
from workers.requests.detokenize import Decode, IncrementalDecoder, StopMatcher
from workers.requests.pieces import PHASE, Kind, PieceList, Pieces

_FUNCTIONS = "functions."  # how Harmony addresses the tools of a request


class _Split:
    """What the two readers share: segments, stop strings, phases."""

    def __init__(
        self,
        markers: Markers | None,
        phase: Phase,
        stops: Sequence[str],
        *,
        calls_by_text: bool = False,
        parallel: bool,
        least: int,
    ) -> None:
        self.tracker = PhaseTracker(markers, phase)
        self._by_text = markers is None or markers.text_only
        self._calls_by_text = calls_by_text
        self._thinks = markers is not None
        self._matcher = StopMatcher(stops)
        self._least_left = least
        self._parallel = parallel
        self._begun = 0  # calls
        self._kind: Kind | None = None  # of the open segment
        self._leading = True  # no visible text since the segment began

    @property
    def stop(self) -> str | None:
        """The stop string that ended the answer."""
        return self._matcher.found

    @property
    def phase(self) -> Phase:
        """Of the next token."""
        return self.tracker.phase

    def _read(self, token_id: int, *, last: bool) -> Iterator[tuple[Kind, Fragment]]:
        """The text that a token completes."""
        raise NotImplementedError

    def push(self, token_ids: Sequence[int], *, last: bool = False) -> Pieces:
        """Add output tokens.

        :param last: no tokens follow, so the last of these gets the text that is still held.
        """
        was = self.tracker.phase
        found = PieceList(self._kind)
        turns: list[tuple[int, Phase]] = []
        told: Phase | None = None
        stopped = False
        tokens = len(token_ids)
        for at, token_id in enumerate(token_ids):
            self._least_left -= 1
            final = last and at == len(token_ids) - 1
            turns += [(at + by, phase) for by, phase in self.tracker.feed([token_id])]
            for kind, fragment in self._read(token_id, last=final):
                stopped = stopped or self._add(found, at, kind, fragment)
                if self._tells(PHASE[kind]):
                    told = PHASE[kind]
                    self.tracker.turn(told)
                    turns.append((at, told))
            if final and not stopped:
                found.add(at, "answer", self._matcher.flush())
            if stopped:
                tokens = at + 1
                break
        return found.finished(tokens, was, turns, stopped=stopped, told=told)

    def _tells(self, phase: Phase) -> bool:
        """Whether text shows a phase that token ids do not show."""
        now = self.tracker.phase
        if now is phase:
            return False
        calling = Phase.CALLING in (now, phase)
        return self._by_text or (self._calls_by_text and calling)

    def _add(self, found: PieceList, at: int, kind: Kind, fragment: Fragment) -> bool:
        """Add text; :return: whether it ends the request."""
        if kind == "call" and not self._parallel:
            kept, stopped = one_call([fragment], self._begun)
            if stopped:
                return True
            fragment = kept[0]
        opens = fragment.name is not None or kind != self._kind
        if opens and not (kind == "call" and fragment.name is None and self._kind == "call"):
            if self._kind == "answer":
                found.add(at, "answer", self._matcher.flush())
            self._leading = kind != "call"
            self._kind = kind
        if fragment.name is not None:
            self._begun += 1
        text = fragment.text
        if self._leading and self._thinks:
            text = text.lstrip()
        self._leading = self._leading and not text
        if kind != "answer":
            found.add(at, kind, text, fragment.name, fragment.call_id)
            return False
        if self._least_left >= 0:
            found.add(at, "answer", text)
            return False
        visible, stopped = self._matcher.push(text)
        found.add(at, "answer", visible)
        return stopped


class ParsedText(_Split):
    """The text of one request, split by one of vLLM's parsers."""

    def __init__(
        self,
        parser: Parser,
        wire: ChatCompletionRequest,
        decode: Decode,
        markers: Markers | None,
        phase: Phase,
        stops: Sequence[str] = (),
        *,
        begun: Sequence[int] = (),
        ending: frozenset[int] = frozenset(),
        calls_by_text: bool = False,
        parallel: bool = True,
        least: int = 0,
    ) -> None:
        """:param decode: token ids to text with special tokens.

        :param begun: what the template has begun of the assistant's turn.
        :param ending: tokens that end an output; they are no text.
        :param calls_by_text: no token opens a call, so that only the text shows one.
        :param least: tokens in which no stop string is looked for.
        """
        super().__init__(
            markers, phase, stops, calls_by_text=calls_by_text, parallel=parallel, least=least
        )
        self._parser = parser
        self._wire = wire
        self._decoder = IncrementalDecoder(decode)
        self._begun_ids = list(begun)
        self._ending = ending
        self._portions = Portions()
        self._length = 0  # of the open call

    def _read(self, token_id: int, *, last: bool) -> Iterator[tuple[Kind, Fragment]]:
        text = "" if token_id in self._ending else self._decoder.push(token_id)
        if not self._portions.add(token_id, text, self._length) and not last:
            return
        delta, ids = self._portions.take(self._decoder.flush() if last else "")
        message: Any = self._parser.parse_delta(
            delta, ids, self._wire, self._begun_ids, finished=last
        )
        if message is None:
            return
        if message.reasoning or message.content:
            self._length = 0
        if message.reasoning:
            yield "reasoning", Fragment(message.reasoning)
        content = message.content
        message.content = None
        if content:
            yield "answer", Fragment(content)
        for fragment in fragments_of(message):
            if fragment.name is not None:
                self._length = 0
            self._length += len(fragment.text)
            yield "call", fragment


class HarmonyText(_Split):
    """The text of one request of gpt-oss, by its channels."""

    def __init__(
        self,
        parser: HarmonyParser,
        markers: Markers,
        phase: Phase,
        stops: Sequence[str] = (),
        *,
        calls: bool,
        parallel: bool = True,
        least: int = 0,
    ) -> None:
        """:param calls: whether calls are given out as calls.

        :param least: tokens in which no stop string is looked for.
        """
        super().__init__(markers, phase, stops, parallel=parallel, least=least)
        self._parser = parser
        self._calls = calls
        self._recipient: str | None = None  # of the call that is being written

    def _read(self, token_id: int, *, last: bool) -> Iterator[tuple[Kind, Fragment]]:
        segments = [*self._parser.process_chunk([token_id]).segments]
        if last:
            segments += [one for one in self._parser.flush() if one.completed_message is None]
        for channel, recipient, delta, completed in segments:
            if recipient is not None and recipient.startswith(_FUNCTIONS) and self._calls:
                yield from self._call(recipient, delta, ended=completed is not None)
                continue
            self._recipient = None
            if completed is not None or not delta:
                continue
            yield "reasoning" if channel == "analysis" else "answer", Fragment(delta)

    def _call(self, recipient: str, delta: str, *, ended: bool) -> Iterator[tuple[Kind, Fragment]]:
        if self._recipient is None and (delta or ended):
            self._recipient = recipient
            yield "call", Fragment("", recipient.removeprefix(_FUNCTIONS))
        if ended:
            self._recipient = None
        elif delta:
            yield "call", Fragment(delta)
