"""What the gateway keeps on disk: responses, conversations and API keys, in a SQLite file."""

from gateway.store.conversations import ConversationStore, StoredConversation
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
    "PRIORITIES",
    "SCHEMA_VERSION",
    "SCOPES",
    "ConversationStore",
    "Failure",
    "KeyLimits",
    "KeyNotAdded",
    "KeyStore",
    "KeyUsage",
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
    "revoke_key",
    "usage_in",
]
