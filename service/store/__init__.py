"""Durable state. ``STORES`` holds every backend; all of them keep the promises of ``service.store.base.Store``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from service.store.base import (
    Append,
    Configure,
    Create,
    DamagedError,
    Delete,
    Done,
    Entry,
    InputWatch,
    Loaded,
    ModelRecord,
    Operation,
    Pend,
    Pending,
    PutSnapshot,
    Refusal,
    Snapshot,
    Store,
    StoredEvent,
    StreamRecord,
    UploadPart,
)
from service.store.lock import sync_directory
from service.store.memory import MemoryStore
from service.store.moving import moved_streams
from service.store.reading import StoreReader
from service.store.schema import FILE_NAME as STORE_FILE
from service.store.sqlite import SqliteStore

STORES: Mapping[str, Callable[[Path], Store]] = MappingProxyType({"memory": MemoryStore, "sqlite": SqliteStore})
"""Opens the store of a data directory."""

__all__ = [
    "STORES",
    "STORE_FILE",
    "Append",
    "Configure",
    "Create",
    "DamagedError",
    "Delete",
    "Done",
    "Entry",
    "InputWatch",
    "Loaded",
    "MemoryStore",
    "ModelRecord",
    "Operation",
    "Pend",
    "Pending",
    "PutSnapshot",
    "Refusal",
    "Snapshot",
    "SqliteStore",
    "Store",
    "StoreReader",
    "StoredEvent",
    "StreamRecord",
    "UploadPart",
    "moved_streams",
    "sync_directory",
]
