"""Durable state. ``STORES`` holds every backend; all of them keep the promises of ``service.store.base.Store``."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from service.store.base import (
    STATE_KINDS,
    Answer,
    Append,
    Configure,
    Create,
    DamagedError,
    Delete,
    Done,
    Entry,
    EntryKind,
    InputWatch,
    Loaded,
    ModelRecord,
    Once,
    Operation,
    Pend,
    Pending,
    PutSnapshot,
    Reader,
    Refusal,
    Remember,
    Snapshot,
    Store,
    StoredEvent,
    StreamRecord,
    Tally,
    UploadPart,
    Webhook,
)
from service.store.chain import verify_chain
from service.store.checking import Checked, Damage, check_store
from service.store.driver import Database
from service.store.lock import sync_directory
from service.store.memory import MemoryStore
from service.store.migrating import Moved, moved_stores
from service.store.moving import moved_streams
from service.store.postgres import PostgresStore, stored_tenants
from service.store.postgres_reading import DatabaseReader, check_database
from service.store.reading import StoreReader, copy_store
from service.store.schema import FILE_NAME as STORE_FILE
from service.store.sqlite import SqliteStore

STORES: Mapping[str, Callable[[Any], Store]] = MappingProxyType(
    {"memory": MemoryStore, "sqlite": SqliteStore, "postgres": PostgresStore}
)
"""Opens a store where it is: that of a data directory (a path), or one in a database (a ``Database``)."""

__all__ = [
    "STATE_KINDS",
    "STORES",
    "STORE_FILE",
    "Answer",
    "Append",
    "Checked",
    "Configure",
    "Create",
    "Damage",
    "DamagedError",
    "Database",
    "DatabaseReader",
    "Delete",
    "Done",
    "Entry",
    "EntryKind",
    "InputWatch",
    "Loaded",
    "MemoryStore",
    "ModelRecord",
    "Moved",
    "Once",
    "Operation",
    "Pend",
    "Pending",
    "PostgresStore",
    "PutSnapshot",
    "Reader",
    "Refusal",
    "Remember",
    "Snapshot",
    "SqliteStore",
    "Store",
    "StoreReader",
    "StoredEvent",
    "StreamRecord",
    "Tally",
    "UploadPart",
    "Webhook",
    "check_database",
    "check_store",
    "copy_store",
    "moved_stores",
    "moved_streams",
    "stored_tenants",
    "sync_directory",
    "verify_chain",
]
