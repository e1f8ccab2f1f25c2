"""What the gateway keeps: responses, conversations and API keys, in SQLite or PostgreSQL."""

from gateway.store.conversations import ConversationStore, StoredConversation
from gateway.store.database import (
    Connection,
    DatabaseError,
    Place,
    StoreUnusable,
    name_of,
)
from gateway.store.keys import (
    PRIORITIES,
    SCOPES,
    KeyLimits,
    KeyNotAdded,
    KeyStore,
    KeyUsage,
    Priority,
    Scope,
    StoredKey,
    Usages,
    add_key,
    key_file,
    keys_in,
    revoke_key,
    usage_in,
)
from gateway.store.places import check_store
from gateway.store.responses import (
    MAX_QUEUED_BYTES,
    Failure,
    ResponseStore,
    StoredResponse,
    StoreError,
)
from gateway.store.schema import SCHEMA_VERSION

__all__ = [
    "MAX_QUEUED_BYTES",
    "PRIORITIES",
    "SCHEMA_VERSION",
    "SCOPES",
    "Connection",
    "ConversationStore",
    "DatabaseError",
    "Failure",
    "KeyLimits",
    "KeyNotAdded",
    "KeyStore",
    "KeyUsage",
    "Place",
    "Priority",
    "ResponseStore",
    "Scope",
    "StoreError",
    "StoreUnusable",
    "StoredConversation",
    "StoredKey",
    "StoredResponse",
    "Usages",
    "add_key",
    "check_store",
    "key_file",
    "keys_in",
    "name_of",
    "revoke_key",
    "usage_in",
]
