"""The output of one response as it grows: the reasoning, then the answer, each one output item.

Writes the items' events to the response's log, in the order of the protocol: it announces an item
with its first text and closes it once. It must not know when text may be shown, which is the
business of `gateway.response.session`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.response.event_log import EventLog
from gateway.response.output_item import OutputItem
from gateway.schemas import events
from gateway.schemas.events import ItemStatus


class Transcript:
    """Two output items, both optional, on one log."""

    __slots__ = ("_log", "answer", "reasoning")

    def __init__(self, log: EventLog, response_id: str) -> None:
        number = response_id.removeprefix("resp_")
        self._log = log
        self.reasoning = OutputItem(events.REASONING_DELTA, f"rs_{number}", live_fields=False)
        self.answer = OutputItem(events.ANSWER_DELTA, f"msg_{number}", live_fields=True)

    def add_thoughts(self, texts: Sequence[str]) -> None:
        """Add and show the reasoning tokens of one step; see `workers.messages.TokenRun`."""
        item = self.reasoning
        if item.add_step(texts[0] if len(texts) == 1 else "".join(texts), len(texts)):
            if item.index is None:
                part = events.reasoning_part("")
                self._announce(item, 0, events.reasoning_item(item.item_id, None), part)
            self._log.add_delta(item)

    def show_answer(self, deltas: int, buffered_tokens: int, slack_s: float | None) -> None:
        """Show the next deltas of the answer, whose text was added to `answer` before.

        :param buffered_tokens: those that are still to be shown.
        :param slack_s: seconds until the reader runs out of tokens.
        """
        item = self.answer
        if item.index is None:
            index = 0 if self.reasoning.index is None else 1
            part = events.answer_part("")
            self._announce(item, index, events.message_item(item.item_id, None), part)
        for _ in range(deltas):
            self._log.add_delta(item, buffered_tokens, slack_s)

    def close_reasoning(self, status: ItemStatus, reasoning_s: float | None) -> None:
        """Close the reasoning item. Does nothing if it is closed, or was never announced."""
        item = self.reasoning
        if item.index is None or item.status != "in_progress":
            return
        item.status = status
        done = events.text_done_event(item.item_id, item.index, item.fragment())
        self._log.append("response.reasoning_text.done", done)
        self._close(
            item, item.index, events.reasoning_part(item.fragment()), reasoning_s=reasoning_s
        )

    def close_answer(self, status: ItemStatus) -> None:
        """Close the answer's item. Does nothing if it is closed, or was never announced."""
        item = self.answer
        if item.index is None or item.status != "in_progress":
            return
        item.status = status
        done = events.text_done_event(item.item_id, item.index, item.fragment(), logprobs=[])
        self._log.append("response.output_text.done", done)
        self._close(item, item.index, events.answer_part(item.fragment()))

    def output(self) -> list[dict[str, Any]]:
        """The ``output`` of the response object, for orjson: texts are in JSON already."""
        return [
            self._json(item) for item in (self.reasoning, self.answer) if item.index is not None
        ]

    def _json(self, item: OutputItem) -> dict[str, Any]:
        build = events.reasoning_item if item is self.reasoning else events.message_item
        return build(item.item_id, item.fragment(), item.status)

    def _announce(
        self, item: OutputItem, index: int, announced: dict[str, Any], part: dict[str, Any]
    ) -> None:
        item.announce(index)
        self._log.append("response.output_item.added", events.item_event(index, announced))
        added = events.part_event(item.item_id, index, part)
        self._log.append("response.content_part.added", added)

    def _close(self, item: OutputItem, index: int, part: dict[str, Any], **fields: Any) -> None:
        done = events.part_event(item.item_id, index, part)
        self._log.append("response.content_part.done", done)
        whole = events.item_event(index, self._json(item), **fields)
        self._log.append("response.output_item.done", whole)
