"""What the gateway keeps on disk: responses and conversations, in a SQLite file."""

from gateway.store.conversations import ConversationStore, StoredConversation
from gateway.store.responses import (
    MAX_QUEUED_BYTES,
    Failure,
    ResponseStore,
    StoredResponse,
    StoreError,
)
from gateway.store.schema import SCHEMA_VERSION, StoreUnusable, check_store

__all__ = [
    "MAX_QUEUED_BYTES",
    "SCHEMA_VERSION",
    "ConversationStore",
    "Failure",
    "ResponseStore",
    "StoreError",
    "StoreUnusable",
    "StoredConversation",
    "StoredResponse",
    "check_store",
]
