"""The output of one response as it grows: segments in order, each one output item.

A segment is a stretch of reasoning, of the answer, or a call of a tool. The model writes them in
any order and number. Text is added to the last segment. The reader is shown the segments one after
another: a later one waits until all of those before it are shown, so the order of the events is
that of the tokens.

Writes the items' events to the response's log, in the order of the protocol: it announces an item
with its first text, or a call with its name, and closes it once. It must not know when text of the
answer may be shown, which is the business of `gateway.response.session`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from gateway.response.event_log import EventLog
from gateway.response.output_item import OutputItem, Segment
from gateway.schemas import events
from gateway.schemas.events import ItemStatus
from gateway.schemas.tools import ToolName, custom_arguments, custom_input
from workers.messages import ToolCall

_PREFIXES: dict[Segment, str] = {"reasoning": "rs", "answer": "msg", "call": "fc"}


class Input:
    """The arguments of a call of a custom tool, while the model writes them."""

    __slots__ = ("_texts", "_tokens")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._tokens = 0

    def add(self, text: str, tokens: int) -> None:
        """Take text of so many tokens."""
        self._texts.append(text)
        self._tokens += tokens

    def taken(self) -> tuple[str, int]:
        """The input, and its tokens; then begin again."""
        taken = custom_input("".join(self._texts)), self._tokens
        self._texts, self._tokens = [], 0
        return taken


class Transcript:
    """The output items of one response, on one log.

    :param tools: those that the client knows by another name than the model, or in another form.
    :param seal: encrypts the thoughts for the client to keep.
    :param summary: show the thoughts as summaries of reasoning items, not as their contents.
    """

    __slots__ = (
        "_announced",
        "_counts",
        "_input",
        "_log",
        "_number",
        "_seal",
        "_shown",
        "_summary",
        "_tools",
        "head",
        "items",
        "tail",
    )

    def __init__(
        self,
        log: EventLog,
        response_id: str,
        tools: Mapping[str, ToolName],
        *,
        seal: Callable[[str], str] | None = None,
        summary: bool = False,
    ) -> None:
        self._log = log
        self._tools = tools
        self._seal = seal
        self._summary = summary
        self._input = Input()
        self._number = response_id.removeprefix("resp_")
        self.items: list[OutputItem] = []
        self._counts: dict[Segment, int] = {}  # of the items, by segment
        self._announced = 0  # of the items
        self._shown = 0  # index of `head`
        self.head: OutputItem | None = None  # the item that is being shown
        self.tail: OutputItem | None = None  # the item to which text is added

    # ---- text comes --------------------------------------------------------------------------

    def open(self, segment: Segment, name: str = "", call_id: str | None = None) -> OutputItem:
        """Begin a segment, and end the one before.

        :param name: of the tool that a call is for.
        :param call_id: of the call, if the model gave it one.
        """
        self.end_segment()
        number = self._counts[segment] = self._counts.get(segment, 0) + 1
        suffix = "" if number == 1 else f"_{number}"
        item = OutputItem(segment, f"{_PREFIXES[segment]}_{self._number}{suffix}")
        if segment == "call":
            item.name = name
            item.tool = self._tools.get(name) or ToolName(name)
            item.call_id = call_id or f"call_{secrets.token_hex(12)}"
            if item.tool.custom:
                item.kind = events.CUSTOM_CALL_DELTA
        elif segment == "reasoning" and self._summary:
            item.kind = events.SUMMARY_DELTA
        self.items.append(item)
        self.tail = item
        if self.head is None:
            self._shown, self.head = len(self.items) - 1, item
        return item

    def segment(self, segment: Segment) -> OutputItem:
        """The last item, if it is such a segment and goes on; else a new one."""
        tail = self.tail
        if tail is not None and tail.segment == segment and not tail.ended:
            return tail
        return self.open(segment)

    def end_segment(self, seconds: float | None = None) -> None:
        """Add no more text to the last item.

        :param seconds: for which the model thought, if it is reasoning.
        """
        if (tail := self.tail) is not None and not tail.ended:
            self._add_input(tail)
            tail.end(seconds)

    def show_text(self, segment: Segment, text: str, tokens: int) -> None:
        """Do as `add_text`, and show what waits for nothing."""
        item = self.tail
        if (
            item is not None
            and item is self.head
            and item.index is not None
            and item.segment == segment
            and item.tool is None
            and not item.ended
        ):  # as nearly always: all of it was shown
            self._log.add_step(item, text, tokens)
            return
        self.add_text(segment, text, tokens)
        self.catch_up()

    def add_text(self, segment: Segment, text: str, tokens: int) -> None:
        """Add text of so many tokens to reasoning or a call, as one delta.

        What comes before the name of a call is not part of it.
        """
        item = self.tail
        if item is None or item.ended or item.segment != segment:
            if segment == "call":
                return
            item = self.open(segment)
        if item.tool is not None and item.tool.custom:
            self._input.add(text, tokens)
        else:
            item.add_step(text, tokens)

    def _add_input(self, item: OutputItem) -> None:
        """Add the input of a custom tool, which is inside of the arguments that the model wrote."""
        if item.tool is not None and item.tool.custom:
            item.add_step(*self._input.taken())

    # ---- the reader is shown it --------------------------------------------------------------

    def catch_up(self) -> None:
        """Show what waits for nothing: reasoning and calls whose turn it is, and ends of items."""
        log = self._log
        while (item := self.head) is not None:
            if item.segment != "answer":
                if item.index is None and (item.waiting or item.segment == "call"):
                    self._announce(item)
                for _ in range(item.waiting):
                    log.add_delta(item)
            if not item.ended or item.waiting:
                return
            self._close(item, "completed")
            self._next()

    def show_answer(self, deltas: int, buffered_tokens: int, slack_s: float | None) -> None:
        """Show the next deltas of the answer, and what waited for them.

        :param buffered_tokens: those that are still to be shown.
        :param slack_s: seconds until the reader runs out of tokens.
        """
        while deltas:
            self.catch_up()  # to the next segment of the answer
            item = self.head
            assert item is not None
            if item.index is None:
                self._announce(item)
            now = min(deltas, item.waiting)
            for _ in range(now):
                self._log.add_delta(item, buffered_tokens, slack_s)
            deltas -= now
        self.catch_up()

    def waiting_deltas(self) -> int:
        """Deltas of the answer that are still to be shown."""
        return sum(item.waiting for item in self.items[self._shown :] if item.segment == "answer")

    def tokens_of_next(self, deltas: int) -> int:
        """How many tokens the next deltas of the answer have."""
        tokens = 0
        for item in self.items[self._shown :]:
            if item.segment == "answer" and deltas:
                count = min(deltas, item.waiting)
                tokens += item.tokens_of_next(count)
                deltas -= count
        return tokens

    def cut_answer(self, tokens: int) -> None:
        """Keep so many tokens of the answer: the reader has read no further."""
        for item in self.items:
            if item.segment == "answer":
                tokens = item.cut_after(tokens)

    def close(self, status: ItemStatus) -> None:
        """Close the item that is being shown, at the end of the response.

        :param status: "incomplete" if the response did not come to its own end.
        """
        if (tail := self.tail) is not None and not tail.ended:
            self._add_input(tail)
        self.catch_up()
        if (item := self.head) is not None:
            # Thoughts that go on at the end are not complete, however the response ended.
            self._close(item, "incomplete" if item.segment == "reasoning" else status)
            self.head = None

    def _next(self) -> None:
        self._shown += 1
        self.head = self.items[self._shown] if self._shown < len(self.items) else None

    def _announce(self, item: OutputItem) -> None:
        index = self._announced
        self._announced += 1
        item.announce(index)
        announced = _json(item, empty=True)
        self._log.append("response.output_item.added", events.item_event(index, announced))
        if item.kind == events.SUMMARY_DELTA:
            summary = events.summary_event(item.item_id, index, part=_part(item, ""))
            self._log.append("response.reasoning_summary_part.added", summary)
        elif item.segment != "call":
            part = _part(item, "")
            added = events.part_event(item.item_id, index, part)
            self._log.append("response.content_part.added", added)

    def _close(self, item: OutputItem, status: ItemStatus) -> None:
        """Close an item. Does nothing if it was never announced."""
        if item.index is None:
            return
        item.status = status
        if item.segment == "reasoning" and self._seal is not None:
            item.sealed = self._seal(item.decoded())
        item_id, index, text = item.item_id, item.index, item.fragment()
        extra: dict[str, Any] = {}
        if item.segment == "call":
            done = events.call_done_event(item_id, index, _tool(item), text)
            self._log.append(item.kind.removesuffix("delta") + "done", done)
        elif item.segment == "reasoning":
            self._end_thoughts(item, item_id, index, text)
            extra["reasoning_s"] = item.seconds
        else:
            done = events.text_done_event(item_id, index, text, logprobs=item.logprobs())
            self._log.append("response.output_text.done", done)
        if item.segment == "answer":
            part = events.part_event(item_id, index, _part(item, text))
            self._log.append("response.content_part.done", part)
        whole = events.item_event(index, _json(item), **extra)
        self._log.append("response.output_item.done", whole)

    def _end_thoughts(self, item: OutputItem, item_id: str, index: int, text: events.Text) -> None:
        part = _part(item, text)
        if item.kind == events.SUMMARY_DELTA:
            done = events.summary_event(item_id, index, text=text)
            self._log.append("response.reasoning_summary_text.done", done)
            ended = events.summary_event(item_id, index, part=part)
            if item.status == "incomplete":
                ended["status"] = item.status
            self._log.append("response.reasoning_summary_part.done", ended)
        else:
            done = events.text_done_event(item_id, index, text)
            self._log.append("response.reasoning_text.done", done)
            ended = events.part_event(item_id, index, part)
            self._log.append("response.content_part.done", ended)

    # ---- the whole ---------------------------------------------------------------------------

    def output(self) -> list[dict[str, Any]]:
        """The ``output`` of the response object, for orjson: texts are in JSON already."""
        return [_json(item) for item in self.items if item.index is not None]

    def text(self, segment: Segment) -> str:
        """The text of all such segments, as far as the reader has it."""
        return "".join(item.decoded() for item in self.items if item.segment == segment)

    def shown(self, segment: Segment) -> bool:
        """Whether the reader has any such segment."""
        return any(item.segment == segment and item.index is not None for item in self.items)

    def calls(self, *, whole: bool = False) -> tuple[ToolCall, ...]:
        """The calls, as far as the client has them.

        :param whole: only those that were not cut off: others get no result.
        """
        return tuple(
            ToolCall(call_id=item.call_id, name=item.name, arguments=_arguments(item))
            for item in self.items
            if item.segment == "call"
            and item.index is not None
            and (item.status == "completed" or not whole)
        )

    @property
    def size_bytes(self) -> int:
        """Memory of the texts."""
        return sum(item.size_bytes for item in self.items)


def _tool(item: OutputItem) -> ToolName:
    return item.tool or ToolName(item.name)


def _arguments(item: OutputItem) -> str:
    """The arguments of a call as the model knows them."""
    return custom_arguments(item.decoded()) if _tool(item).custom else item.decoded()


def _json(item: OutputItem, *, empty: bool = False) -> dict[str, Any]:
    """The item as an object of the protocol; ``empty``: while it is only announced."""
    text = None if empty else item.fragment()
    if item.segment == "call":
        return events.call_item(item.item_id, item.call_id, _tool(item), text or "", item.status)
    if item.segment == "reasoning":
        summary = item.kind == events.SUMMARY_DELTA
        thoughts = events.reasoning_item(item.item_id, text, item.status, summary=summary)
        return thoughts | {"encrypted_content": item.sealed} if item.sealed else thoughts
    return events.message_item(item.item_id, text, item.status, item.logprobs())


def _part(item: OutputItem, text: events.Text) -> dict[str, Any]:
    if item.segment == "reasoning":
        return events.reasoning_part(text, summary=item.kind == events.SUMMARY_DELTA)
    return events.answer_part(text, item.logprobs() if text else [])
