"""What a request needs of earlier ones, before it starts: conversations, items, thoughts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import orjson

from gateway.config import Config
from gateway.history.conversations import Conversations
from gateway.history.references import resolved
from gateway.history.sealing import KEY_BYTES, Sealer, is_sealed, key_of, opened
from gateway.response.session import Session
from gateway.schemas.bodies import ENCRYPTED, ResponsesBody
from gateway.schemas.errors import InvalidRequest, NotFound
from gateway.schemas.generation import Generation, Targets, from_responses
from gateway.schemas.input_items import with_ids
from gateway.store import ResponseStore
from workers.messages import ChatMessage


class Requests:
    """Makes requests of the bodies of the Responses API.

    :param session_of: finds a session of an owner that is running or still kept.
    """

    def __init__(
        self,
        config: Config,
        store: ResponseStore,
        conversations: Conversations,
        session_of: Callable[[str, str], Session | None],
    ) -> None:
        self._config = config
        self._store = store
        self._conversations = conversations
        self._session_of = session_of
        self._sealer: Sealer | None = None  # once it was needed

    async def prepare(self, body: ResponsesBody, defaults: Targets, owner: str) -> Generation:
        """Find what a body continues and refers to, and make a request of both.

        A conversation that it names is held for it from here on: start it next, without waiting for
        anything in between.

        :raises ApiError: the body is wrong, or what it names is not there.
        """
        seal = None
        if ENCRYPTED in (body.include or ()):
            sealer = await self._sealing()
            seal = partial(_sealed, sealer, owner)
        if isinstance(body.input, list):
            body = msgspec.structs.replace(
                body, input=await self.readable(body.input, owner, "input")
            )
        history: tuple[ChatMessage, ...] = ()
        if body.previous_response_id is not None:
            history = await self._messages_of(body.previous_response_id, owner)
        conversation_id = body.conversation_id
        if conversation_id is not None:
            history = await self._conversations.begin(conversation_id, owner)
        try:
            return replace(from_responses(body, history, defaults), seal=seal)
        except BaseException:
            if conversation_id is not None:
                self._conversations.end(conversation_id, owner)
            raise

    async def readable(self, items: list[Any], owner: str, name: str) -> list[Any]:
        """Items of a client, with what they refer to, and encrypted thoughts in the clear.

        :param name: of the field that has the items.
        :raises InvalidRequest: naming the field.
        :raises NotFound: a reference leads nowhere.
        """
        if any(map(is_sealed, items)):
            items = opened(items, owner, await self._sealing(), time.time(), name)
        most_bytes = self._config.server.hard_message_bytes
        return await resolved(items, owner, self._items_of, most_bytes, name)

    # ---- inside -------------------------------------------------------------------------------

    async def _sealing(self) -> Sealer:
        """What encrypts the thoughts. Raises `StoreError`."""
        if self._sealer is None:
            store = self._config.store
            keys = [key_of(secret) for secret in store.reasoning_keys]
            if not keys:
                keys = [await self._store.secret("reasoning", secrets.token_bytes(KEY_BYTES))]
            self._sealer = Sealer(keys, store.reasoning_days * 86400)
        return self._sealer

    async def _items_of(self, response_id: str, owner: str) -> list[dict[str, Any]]:
        """The items of a conversation, or of a response that has ended; empty without it."""
        if response_id.startswith("conv_"):
            return await self._conversations.items(response_id, owner)
        if (session := self._session_of(response_id, owner)) is None:
            return await self._store.items(response_id, owner)
        if not session.finished:
            return []
        output: list[dict[str, Any]] = orjson.loads(orjson.dumps(session.transcript.output()))
        return with_ids(session.generation.input_items, response_id) + output

    async def _messages_of(self, response_id: str, owner: str) -> tuple[ChatMessage, ...]:
        """The messages up to and with a response."""
        if (session := self._session_of(response_id, owner)) is not None:
            if not session.finished:
                raise InvalidRequest(
                    f"Response '{response_id}' is not finished.", param="previous_response_id"
                )
            return session.conversation
        stored = await self._store.get(response_id, owner)
        if stored is None:
            raise NotFound(
                f"Previous response '{response_id}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return stored.conversation


def _sealed(sealer: Sealer, owner: str, text: str) -> str:
    return sealer.seal(text, owner, time.time())
