"""Give a stream other settings: its state under them is made, and committed together with them."""

from collections.abc import Mapping
from typing import Any

from service.hot import summary
from service.replay import Engines, adapt_again, stream_config
from service.store import Configure, Entry, PutSnapshot, Store, StreamRecord

PAGE_ENTRIES = 1_000


def same_settings(record: StreamRecord, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Whether a stream has these settings already.

    Raises:
        InvalidError: A field that no model has.
    """
    return stream_config(config) == stream_config(record.config) and metadata == record.metadata


def configured(
    store: Store,
    engines: Engines,
    stream: str,
    *,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    retained_rows: int,
    now: float,
) -> Configure | None:
    """The operation that gives a stream another config and metadata; ``None`` if there is no such stream.

    The stream must not be in use meanwhile.

    Raises:
        InputError: The model does not take the config.
        DamagedError: The stream cannot be rebuilt.
    """
    loaded = store.load(stream)
    if loaded is None:
        return None
    record = loaded.record
    at = max(now, record.updated_at)
    if stream_config(config) == stream_config(record.config) or record.stream_version == 0:
        return Configure(record, config, metadata, at)
    lease = engines.lease(record.model, record.model_version, config)
    try:
        slot = adapt_again(lease.engine, loaded, retained(store, record, record.rows_seen - retained_rows))
        put = PutSnapshot(record, summary(lease.engine.status(slot)), lease.engine.snapshot(slot), at)
        lease.engine.release(slot)
    finally:
        engines.give_back(lease)
    return Configure(record, config, metadata, at, put)


def retained(store: Store, record: StreamRecord, from_row: int) -> list[Entry]:
    """Log entries of the rows from ``from_row`` on, as far as they are kept."""
    retained: list[Entry] = []
    after = 0
    while page := store.entries(record, after, PAGE_ENTRIES):
        after = page[-1].revision
        retained += [entry for entry in page if entry.first_row + entry.rows > from_row]
    return retained
