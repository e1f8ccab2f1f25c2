"""The output of one response as it grows: the reasoning, then the answer, each one output item.

Writes the items' events to the response's log, in the order of the protocol: it announces an item
with its first text and closes it once. It must not know when text may be shown, which is the
business of `gateway.response.session`.

Texts are kept as the inside of a JSON string, because that is the only form in which they leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gateway.response.event_log import DeltaForm, EventLog, json_inside
from gateway.schemas import events
from gateway.schemas.events import ItemStatus


class Transcript:
    """Two output items, both optional, on one log."""

    __slots__ = (
        "_answer",
        "_log",
        "_thoughts",
        "_unwritten",
    )

    def __init__(self, log: EventLog, response_id: str) -> None:
        number = response_id.removeprefix("resp_")
        self._log = log
        self._thoughts = _Item(f"rs_{number}")
        self._answer = _Item(f"msg_{number}")
        self._unwritten = 0  # reasoning tokens whose text is still to come

    @property
    def thoughts(self) -> str:
        """The reasoning so far."""
        return self._thoughts.decoded()

    @property
    def answer(self) -> str:
        """The answer as far as the reader has it."""
        return self._answer.decoded()

    @property
    def has_answer(self) -> bool:
        """Whether the reader has any text of the answer."""
        return bool(self._answer.text)

    @property
    def reasoning_json(self) -> bytearray:
        """The reasoning so far, as the inside of a JSON string. It grows; do not change it."""
        return self._thoughts.text

    @property
    def answer_json(self) -> bytearray:
        """The answer as far as the reader has it; see `reasoning_json`."""
        return self._answer.text

    def add_thoughts(self, texts: Sequence[str]) -> None:
        """Add the reasoning tokens of one step as one delta; see `workers.messages.TokenRun`."""
        self._unwritten += len(texts)
        text = texts[0] if len(texts) == 1 else "".join(texts)
        if not text:
            return
        item = self._thoughts
        if item.form is None:
            self._announce(
                item,
                0,
                DeltaForm(events.REASONING_DELTA, item.item_id, 0, item.text, paced=False),
                events.reasoning_item(item.item_id, None),
                events.reasoning_part(""),
            )
        json = json_inside(text)
        item.text += json
        assert item.form is not None
        self._log.add_delta(item.form, json, self._unwritten)
        self._unwritten = 0

    def add_answer(
        self, text: bytes, tokens: int, buffered_tokens: int, slack_s: float | None
    ) -> None:
        """Add a delta of the answer.

        :param text: the inside of a JSON string.
        :param tokens: of which it is made.
        :param buffered_tokens: those still in the reader's buffer.
        :param slack_s: seconds until the buffer runs dry.
        """
        item = self._answer
        if item.form is None:
            index = 0 if self._thoughts.form is None else 1
            self._announce(
                item,
                index,
                DeltaForm(events.ANSWER_DELTA, item.item_id, index, item.text, paced=True),
                events.message_item(item.item_id, None),
                events.answer_part(""),
            )
        item.text += text
        assert item.form is not None
        self._log.add_delta(item.form, text, tokens, buffered_tokens, slack_s)

    def close_thoughts(self, status: ItemStatus, reasoning_s: float | None) -> None:
        """Close the reasoning item. Does nothing if it is closed, or was never announced."""
        item = self._thoughts
        if item.form is None or item.status != "in_progress":
            return
        item.status = status
        done = events.text_done_event(item.item_id, item.index, item.fragment())
        self._log.append("response.reasoning_text.done", done)
        self._close(item, events.reasoning_part(item.fragment()), reasoning_s=reasoning_s)

    def close_answer(self, status: ItemStatus) -> None:
        """Close the answer's item. Does nothing if it is closed, or was never announced."""
        item = self._answer
        if item.form is None or item.status != "in_progress":
            return
        item.status = status
        done = events.text_done_event(item.item_id, item.index, item.fragment(), logprobs=[])
        self._log.append("response.output_text.done", done)
        self._close(item, events.answer_part(item.fragment()))

    def output(self) -> list[dict[str, Any]]:
        """The ``output`` of the response object, for orjson: texts are in JSON already."""
        return [
            self._json(item) for item in (self._thoughts, self._answer) if item.form is not None
        ]

    def _json(self, item: _Item) -> dict[str, Any]:
        build = events.reasoning_item if item is self._thoughts else events.message_item
        return build(item.item_id, item.fragment(), item.status)

    def _announce(
        self,
        item: _Item,
        index: int,
        form: DeltaForm,
        announced: dict[str, Any],
        part: dict[str, Any],
    ) -> None:
        item.index, item.form = index, form
        self._log.append("response.output_item.added", events.item_event(index, announced))
        added = events.part_event(item.item_id, index, part)
        self._log.append("response.content_part.added", added)

    def _close(self, item: _Item, part: dict[str, Any], **fields: Any) -> None:
        done = events.part_event(item.item_id, item.index, part)
        self._log.append("response.content_part.done", done)
        whole = events.item_event(item.index, self._json(item), **fields)
        self._log.append("response.output_item.done", whole)


class _Item:
    """One output item."""

    __slots__ = ("form", "index", "item_id", "status", "text")

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        self.index = 0  # place in the output, once it is announced
        self.form: DeltaForm | None = None  # of its deltas; None until it is announced
        self.status: ItemStatus = "in_progress"
        self.text = bytearray()  # the inside of a JSON string

    def decoded(self) -> str:
        text: str = orjson.loads(b'"%b"' % bytes(self.text))
        return text

    def fragment(self) -> orjson.Fragment:
        """The text as a JSON string, for orjson."""
        return orjson.Fragment(b'"%b"' % bytes(self.text))
