"""Conversations: items that stay at the server, and the one response that may add to them.

A response has its conversation to itself from the moment its items are read until its own are
added. Meanwhile no other response begins there, and no item is added or deleted. Once it has ended,
whoever asks waits until its items are there, so that a client that saw its end finds them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import orjson
import structlog

from gateway.response.session import Session
from gateway.schemas.conversation import of_items
from gateway.schemas.errors import InvalidRequest, NotFound
from gateway.schemas.input_items import item_id, public, with_ids
from gateway.schemas.open_calls import quoted
from gateway.store import ConversationStore, StoredConversation, StoreError
from gateway.store.conversations import size_of
from workers.messages import ChatMessage

log = structlog.get_logger()

Item: TypeAlias = dict[str, Any]
_Key: TypeAlias = tuple[str, str]  # the owner, and the id

_Found = TypeVar("_Found")

_SETTLE_S = 20.0  # for the items of a response that has ended to be added


@dataclass(slots=True, eq=False)
class _Turn:
    """A response's hold on its conversation."""

    session: Session | None = None  # once it was started
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Conversations:
    """The conversations of one gateway.

    :param most_bytes: of the items of one conversation.
    """

    def __init__(self, store: ConversationStore, most_bytes: int) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._turns: dict[_Key, _Turn] = {}

    # ---- what clients do with them ------------------------------------------------------------

    async def create(
        self, owner: str, metadata: dict[str, str], items: list[Any]
    ) -> StoredConversation:
        """Make a conversation with these items.

        :raises InvalidRequest: an item is wrong; names the field.
        """
        made = self._checked(items, ())
        self._check_size(made, 0)
        conversation_id = f"conv_{secrets.token_hex(16)}"
        await self._store.create(conversation_id, owner, metadata)
        if made:
            await self._store.add(
                conversation_id, owner, lambda found, _: _placed(made, conversation_id, found)
            )
        return await self.get(conversation_id, owner)

    async def get(self, conversation_id: str, owner: str) -> StoredConversation:
        """Look up a conversation. Raises `NotFound`."""
        return _there(await self._store.get(conversation_id, owner), conversation_id)

    async def update(
        self, conversation_id: str, owner: str, metadata: dict[str, str]
    ) -> StoredConversation:
        """Replace the metadata. Raises `NotFound`."""
        found = await self._store.set_metadata(conversation_id, owner, metadata)
        return _there(found, conversation_id)

    async def delete(self, conversation_id: str, owner: str) -> None:
        """Delete a conversation, even while a response runs there. Raises `NotFound`."""
        await self._settled(conversation_id, owner)
        if not await self._store.delete(conversation_id, owner):
            raise _not_found(conversation_id)

    async def page(
        self, conversation_id: str, owner: str, *, after: str | None, limit: int, ascending: bool
    ) -> tuple[list[Item], bool]:
        """Some items, and whether others follow. Raises `NotFound`."""
        await self._settled(conversation_id, owner)
        await self.get(conversation_id, owner)
        found = await self._store.page(
            conversation_id, after=after, limit=limit, ascending=ascending
        )
        if found is None:
            raise no_such_item(after or "", "after")
        return found

    async def item(self, conversation_id: str, owner: str, item: str) -> Item:
        """Look up one item. Raises `NotFound`."""
        await self._settled(conversation_id, owner)
        found = await self._store.item(conversation_id, owner, item)
        if found is None:
            await self.get(conversation_id, owner)
            raise no_such_item(item, "item_id")
        return found

    async def add(self, conversation_id: str, owner: str, items: list[Any]) -> list[Item]:
        """Add items, and return them.

        :raises NotFound: there is no such conversation.
        :raises InvalidRequest: an item is wrong, or a response runs there; names the field.
        """

        def make(found: StoredConversation, before: Callable[[], list[Item]]) -> list[Item]:
            made = self._checked(items, _messages_of(before(), conversation_id))
            self._check_size(made, found.size_bytes)
            return _placed(made, conversation_id, found)

        await self._settled(conversation_id, owner)
        await self._check_free(conversation_id, owner)
        return _there(await self._store.add(conversation_id, owner, make), conversation_id)

    async def delete_item(self, conversation_id: str, owner: str, item: str) -> StoredConversation:
        """Delete an item. Raises `NotFound`, and `InvalidRequest` while a response runs there."""
        await self._settled(conversation_id, owner)
        await self._check_free(conversation_id, owner)
        if not await self._store.delete_item(conversation_id, owner, item):
            await self.get(conversation_id, owner)
            raise no_such_item(item, "item_id")
        return await self.get(conversation_id, owner)

    async def items(self, conversation_id: str, owner: str) -> list[Item]:
        """All items; none without such a conversation."""
        await self._settled(conversation_id, owner)
        found = await self._store.items(conversation_id, owner)
        return [] if found is None else found[1]

    # ---- what responses do with them ----------------------------------------------------------

    async def begin(self, conversation_id: str, owner: str) -> tuple[ChatMessage, ...]:
        """Hold a conversation for a response; `end` or `finish` must follow.

        :return: its messages.
        :raises NotFound: there is no such conversation.
        :raises InvalidRequest: another response runs there, or nothing can follow its items.
        """
        await self._settled(conversation_id, owner)
        await self._check_free(conversation_id, owner)
        self._turns[owner, conversation_id] = _Turn()
        try:
            conversation, items = await self._items(conversation_id, owner)
            self._check_size([], conversation.size_bytes, "conversation")
            return _messages_of(items, conversation_id)
        except BaseException:
            self.end(conversation_id, owner)
            raise

    def started(self, conversation_id: str, session: Session) -> None:
        """The response for which a conversation is held was started."""
        self._turns[session.owner, conversation_id].session = session

    def end(self, conversation_id: str, owner: str) -> None:
        """Hold the conversation no longer."""
        if (turn := self._turns.pop((owner, conversation_id), None)) is not None:
            turn.over.set()

    async def finish(self, conversation_id: str, session: Session) -> None:
        """Add the items of a response that has ended, unless it failed or was deleted."""
        turn = self._turns.get((session.owner, conversation_id))
        if turn is None or turn.session is not session:
            return  # it was given up before it began
        try:
            if session.forgotten or session.status == "failed":
                return
            output = orjson.loads(orjson.dumps(session.transcript.output()))
            # A call that was cut off can have no result.
            whole = [i for i in output if "call_id" not in i or i["status"] == "completed"]
            items = with_ids(session.generation.input_items, session.response_id) + whole
            await self._store.add(
                conversation_id, session.owner, lambda *_: items, kept_bytes=size_of(items)
            )
        except Exception:  # the client has its answer; the store has counted its failure
            log.exception("conversation_not_continued", request_id=session.response_id)
        finally:
            self.end(conversation_id, session.owner)

    # ---- inside -------------------------------------------------------------------------------

    async def _items(
        self, conversation_id: str, owner: str
    ) -> tuple[StoredConversation, list[Item]]:
        return _there(await self._store.items(conversation_id, owner), conversation_id)

    async def _settled(self, conversation_id: str, owner: str) -> None:
        """Return once the items of responses that have ended are there."""
        turn = self._turns.get((owner, conversation_id))
        if turn is None or turn.session is None or not turn.session.finished:
            return
        try:
            await asyncio.wait_for(turn.over.wait(), _SETTLE_S)
        except TimeoutError:
            raise StoreError from None

    async def _check_free(self, conversation_id: str, owner: str) -> None:
        """Raise if a response runs there. Without one, nothing happens while it is awaited."""
        if (owner, conversation_id) in self._turns:
            await self.get(conversation_id, owner)  # it may have been deleted
            raise InvalidRequest(
                "Another response is running in this conversation. Try again when it has ended.",
                param="conversation",
                code="conversation_locked",
            )

    def _checked(self, items: list[Any], history: tuple[ChatMessage, ...]) -> list[Item]:
        of_items(items, history, "items", whole=False)
        return [public(item) for item in items]

    def _check_size(self, items: list[Item], before: int, param: str = "items") -> None:
        if before + size_of(items) > self._most_bytes:
            raise InvalidRequest(
                f"A conversation has at most {self._most_bytes} bytes.", param=param
            )


def _placed(
    items: Sequence[Item], conversation_id: str, conversation: StoredConversation
) -> list[Item]:
    """Items with their ids, which follow from their places at the end of the conversation."""
    number = conversation_id.removeprefix("conv_")
    return [
        {"id": item_id(item, f"{number}_c{place}"), **item}
        for place, item in enumerate(items, conversation.next_place)
    ]


def _messages_of(items: list[Item], conversation_id: str) -> tuple[ChatMessage, ...]:
    try:
        return of_items(items, (), whole=False).messages
    except InvalidRequest as error:  # a call was deleted, and its result was not
        raise InvalidRequest(
            f"The conversation {quoted(conversation_id)} cannot go on: {error.message}",
            param="conversation",
        ) from error


def _there(found: _Found | None, conversation_id: str) -> _Found:
    if found is None:
        raise _not_found(conversation_id)
    return found


def _not_found(conversation_id: str) -> NotFound:
    return NotFound(
        f"Conversation {quoted(conversation_id)} not found.",
        code="conversation_not_found",
        param="conversation",
    )


def no_such_item(item: str, param: str) -> NotFound:
    """There is no item by this id."""
    return NotFound(f"Item {quoted(item)} not found.", code="item_not_found", param=param)
