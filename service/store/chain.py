"""Checksums, and how a stream's log entries are chained by them."""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import orjson

from service.store.base import (
    Append,
    Create,
    DamagedError,
    Entry,
    InputWatch,
    Loaded,
    Pending,
    Snapshot,
    StoredEvent,
    StreamRecord,
)

DIGEST_BYTES = 16
DRIFT_FIELDS = 10
"""Leading fields of an event that a stream's last drift has; those about inputs came later."""


def chain_digest(previous: bytes, stream: str, entry: tuple[int, str, float, int, int], payload: bytes) -> bytes:
    """Digest of an entry that follows ``previous``; ``entry`` is revision, kind, at, first_row, rows."""
    revision, kind, at, first_row, rows = entry
    digest = blake2b(previous, digest_size=DIGEST_BYTES)
    digest.update(struct.pack("<qdqq", revision, at, first_row, rows))
    digest.update(f"{len(stream)}:{stream}{kind}:".encode())
    digest.update(payload)
    return digest.digest()


def next_entry(operation: Append) -> Entry:
    """The log entry that an ``Append`` makes."""
    record = operation.record
    revision = record.stream_version + 1
    head = (revision, operation.kind, operation.at, record.rows_seen, operation.rows)
    chain = chain_digest(record.chain, record.stream, head, operation.payload)
    return Entry(*head[:5], operation.payload, record.chain, chain)


def new_record(key: int, operation: Create) -> StreamRecord:
    """The record that a ``Create`` makes."""
    return StreamRecord(
        key=key,
        stream=operation.stream,
        model=operation.model,
        model_version=operation.model_version,
        config=dict(operation.config),
        metadata=dict(operation.metadata),
        stream_version=0,
        rows_seen=0,
        chain=b"",
        state="new",
        last_drift=None,
        created_at=operation.at,
        updated_at=operation.at,
    )


def next_record(operation: Append, entry: Entry, events: Sequence[StoredEvent]) -> StreamRecord:
    """The record after an ``Append``."""
    record = operation.record
    drifts = [event for event in events if event.kind == "drift"]
    return record._replace(
        model_version=record.model_version if operation.model_version is None else operation.model_version,
        stream_version=entry.revision,
        rows_seen=record.rows_seen + entry.rows,
        chain=entry.chain,
        state=operation.state,
        last_drift=drifts[-1] if drifts else record.last_drift,
        updated_at=entry.at,
    )


def verify_chain(stream: str, start: tuple[int, bytes], entries: Sequence[Entry]) -> tuple[int, bytes]:
    """Follow a chain of entries.

    Args:
        stream: Whose entries they are.
        start: Revision and chain digest that the first entry follows.
        entries: Consecutive entries.

    Returns:
        Revision and chain digest of the last one.

    Raises:
        DamagedError: One is missing or altered.
    """
    revision, chain = start
    for entry in entries:
        if entry.revision != revision + 1:
            raise DamagedError(stream, revision + 1, "its log entry is missing")
        if entry.previous != chain:
            raise DamagedError(stream, entry.revision, "its log entry does not follow the one before")
        chain = chain_digest(entry.previous, stream, entry[:5], entry.payload)
        if chain != entry.chain:
            raise DamagedError(stream, entry.revision, "its log entry was altered")
        revision = entry.revision
    return revision, chain


def verify_page(record: StreamRecord, first: int, entries: Sequence[Entry], *, last: bool) -> None:
    """Check a page of a stream's log.

    Args:
        record: The stream, which may have gone on since.
        first: Revision that the page begins with.
        entries: The page.
        last: Whether it goes to the end of the log.

    Raises:
        DamagedError: One is missing or altered.
    """
    start = (first - 1, entries[0].previous if entries else b"")
    revision, _ = verify_chain(record.stream, start, entries)
    if last and revision < record.stream_version:
        raise DamagedError(record.stream, revision + 1, f"its log ends before revision {record.stream_version}")
    if any(entry.revision == record.stream_version and entry.chain != record.chain for entry in entries):
        raise DamagedError(record.stream, record.stream_version, "its log does not end where the stream stands")


def verify_loaded(loaded: Loaded) -> Loaded:
    """Check that snapshot and entries lead to the record's revision and chain digest.

    Raises:
        DamagedError: They do not.
    """
    record, snapshot, entries, _ = loaded
    start = (0, b"") if snapshot is None else (snapshot.revision, snapshot.chain)
    revision, chain = verify_chain(record.stream, start, entries)
    if revision != record.stream_version:
        raise DamagedError(record.stream, revision + 1, f"its log ends before revision {record.stream_version}")
    if chain != record.chain:
        raise DamagedError(record.stream, revision, "its log does not end where the stream stands")
    return loaded


def snapshot_digest(record: StreamRecord, snapshot: Snapshot) -> bytes:
    """Checksum over everything in a snapshot."""
    digest = blake2b(snapshot.chain, digest_size=DIGEST_BYTES)
    digest.update(struct.pack("<q", snapshot.revision))
    digest.update(record.stream.encode() + b":" + orjson.dumps(snapshot.status, option=orjson.OPT_SORT_KEYS))
    digest.update(snapshot.data)
    return digest.digest()


def thinned(revisions: Sequence[int], kept: int) -> list[int]:
    """Which snapshots to keep, by their ascending revisions: the first, the last, and others that lie apart.

    Dropped is, one after the other, the one whose neighbours are closest for their distance from the last, so that the
    recent past is kept finer than the distant.

    Example:
        >>> thinned([256, 512, 768, 1024, 1280, 1536], 4)
        [256, 768, 1280, 1536]
    """
    left = list(revisions)
    while len(left) > kept:
        gaps = [(left[at + 1] - left[at - 1]) / (left[-1] - left[at]) for at in range(1, len(left) - 1)]
        if not gaps:
            break
        del left[1 + gaps.index(min(gaps))]
    return left


def kept_snapshots(found: Sequence[tuple[int, float]], before: float, kept: int) -> tuple[int, list[int]]:
    """Which snapshots roll-backs need.

    Args:
        found: Revision and time of each, by ascending revision.
        before: Where roll-backs end (epoch seconds): of those before, the last one is needed.
        kept: How many of them are kept at most.

    Returns:
        The oldest that is needed, or 0 where none lies before: no entry may go; and all that are kept.
    """
    past = [revision for revision, at in found if at < before]
    oldest = past[-1] if past else 0
    return oldest, thinned([revision for revision, _ in found if revision >= oldest], kept)


def pending_digest(stream: str, row: Pending) -> bytes:
    """Checksum over a row that waits for its label."""
    digest = blake2b(struct.pack("<d", row.at), digest_size=DIGEST_BYTES)
    digest.update(f"{len(stream)}:{stream}{row.id}:".encode())
    digest.update(row.payload)
    return digest.digest()


def verify_pending(stream: str, row: Pending, digest: bytes) -> Pending:
    """Check a row that waits for its label.

    Raises:
        DamagedError: It was altered.
    """
    if pending_digest(stream, row) != digest:
        raise DamagedError(stream, None, "a prediction that waits for its label was altered")
    return row


def watch_digest(stream: str, watch: InputWatch) -> bytes:
    """Checksum over what is known of a stream's inputs."""
    digest = blake2b(struct.pack("<q", watch.revision), digest_size=DIGEST_BYTES)
    digest.update(f"{len(stream)}:{stream}:".encode())
    digest.update(watch.data)
    return digest.digest()


def verify_watch(stream: str, watch: InputWatch, digest: bytes) -> InputWatch:
    """Check what is known of a stream's inputs.

    Raises:
        DamagedError: It was altered.
    """
    if watch_digest(stream, watch) != digest:
        raise DamagedError(stream, watch.revision, "what is known of its inputs was altered")
    return watch


def bundle_digest(bundle: object) -> str:
    """Identity of a bundle: the digest of its bytes, in hexadecimal; where a damaged store has none, of nothing."""
    return blake2b(bundle if isinstance(bundle, bytes) else b"", digest_size=DIGEST_BYTES).hexdigest()


def drift_fields(record: StreamRecord) -> list[Any]:
    """A record's last drift as it is stored; empty without one."""
    return list(record.last_drift or ())[:DRIFT_FIELDS]


def record_digest(record: StreamRecord) -> bytes:
    """Checksum over a record, its key apart, which the store gives."""
    fields = (*record[1:4], dict(record.config), dict(record.metadata), record.stream_version, record.rows_seen)
    rest = (record.chain.hex(), record.state, drift_fields(record), record.created_at, record.updated_at)
    text = orjson.dumps([*fields, *rest], option=orjson.OPT_SORT_KEYS)
    return blake2b(text, digest_size=DIGEST_BYTES).digest()


def verify_rising(after: Any, found: Sequence[Any]) -> None:
    """Check that keys which were asked for in order, from one on, came so: a page that leads back has no end.

    Raises:
        DamagedError: They did not.
    """
    if any(later is None or later <= earlier for earlier, later in pairwise((after, *found))):
        raise DamagedError(None, None, "an index does not lead from one record to the next")
