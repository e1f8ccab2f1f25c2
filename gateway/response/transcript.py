"""The output of one response as it grows: the reasoning, then the answer, each one output item.

Writes the items' events to the response's log, in the order of the protocol: it announces an item
with its first text and closes it once. It must not know when text may be shown, which is the
business of `gateway.response.session`.
"""

from __future__ import annotations

from typing import Any

from gateway.response.event_log import EventLog
from gateway.schemas import events
from gateway.schemas.events import ItemStatus


class Transcript:
    """Two output items, both optional, on one log."""

    def __init__(self, log: EventLog, response_id: str) -> None:
        number = response_id.removeprefix("resp_")
        self._log = log
        self._thoughts = _Item(f"rs_{number}")
        self._answer = _Item(f"msg_{number}")

    @property
    def thoughts(self) -> str:
        """The reasoning so far."""
        return self._thoughts.text

    @property
    def answer(self) -> str:
        """The answer as far as the reader has it."""
        return self._answer.text

    def add_thought(self, text: str) -> None:
        """Add one reasoning token; ``text`` is the text that it completes, possibly empty."""
        item = self._thoughts
        item.pending_tokens += 1
        if not text:
            return
        if item.index is None:
            item.index = 0
            self._announce(
                item, events.reasoning_item(item.item_id, None), events.reasoning_part("")
            )
        self._add(item, events.REASONING_DELTA, text, item.pending_tokens)
        item.pending_tokens = 0

    def add_answer(self, text: str, tokens: int, **fields: Any) -> None:
        """Add text of the answer, made of ``tokens`` tokens; ``fields`` go into its event."""
        item = self._answer
        if item.index is None:
            item.index = 0 if self._thoughts.index is None else 1
            self._announce(item, events.message_item(item.item_id, None), events.answer_part(""))
        self._add(item, events.ANSWER_DELTA, text, tokens, logprobs=[], **fields)

    def close_thoughts(self, status: ItemStatus, reasoning_s: float | None) -> None:
        """Close the reasoning item. Does nothing if it is closed, or was never announced."""
        item = self._thoughts
        if item.index is None or item.status != "in_progress":
            return
        item.end(status)
        done = events.text_done_event(item.item_id, item.index, item.text)
        self._log.append("response.reasoning_text.done", done)
        self._close(item, events.reasoning_part(item.text), reasoning_s=reasoning_s)

    def close_answer(self, status: ItemStatus) -> None:
        """Close the answer's item. Does nothing if it is closed, or was never announced."""
        item = self._answer
        if item.index is None or item.status != "in_progress":
            return
        item.end(status)
        done = events.text_done_event(item.item_id, item.index, item.text, logprobs=[])
        self._log.append("response.output_text.done", done)
        self._close(item, events.answer_part(item.text))

    def output(self) -> list[dict[str, Any]]:
        """The ``output`` of the response object."""
        items = []
        if self._thoughts.index is not None:
            items.append(self._json(self._thoughts))
        if self._answer.index is not None:
            items.append(self._json(self._answer))
        return items

    def _json(self, item: _Item) -> dict[str, Any]:
        build = events.reasoning_item if item is self._thoughts else events.message_item
        return build(item.item_id, item.text, item.status)

    def _announce(self, item: _Item, announced: dict[str, Any], part: dict[str, Any]) -> None:
        assert item.index is not None
        self._log.append("response.output_item.added", events.item_event(item.index, announced))
        added = events.part_event(item.item_id, item.index, part)
        self._log.append("response.content_part.added", added)

    def _add(self, item: _Item, type_: str, text: str, tokens: int, **fields: Any) -> None:
        assert item.index is not None
        item.texts.append(text)
        delta = events.delta_event(item.item_id, item.index, text, tokens, **fields)
        self._log.append(type_, delta)

    def _close(self, item: _Item, part: dict[str, Any], **fields: Any) -> None:
        assert item.index is not None
        done = events.part_event(item.item_id, item.index, part)
        self._log.append("response.content_part.done", done)
        whole = events.item_event(item.index, self._json(item), **fields)
        self._log.append("response.output_item.done", whole)


class _Item:
    """One output item."""

    __slots__ = ("index", "item_id", "pending_tokens", "status", "texts")

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        self.index: int | None = None  # place in the output; None until it is announced
        self.status: ItemStatus = "in_progress"
        self.texts: list[str] = []
        self.pending_tokens = 0  # tokens whose text is still to come

    def end(self, status: ItemStatus) -> None:
        """Take no more text, and join the text that there is."""
        self.status = status
        self.texts = [self.text]

    @property
    def text(self) -> str:
        return "".join(self.texts)
