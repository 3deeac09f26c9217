"""One operation of a store inside a SQLite transaction, and how rows become values."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from service.store.base import (
    SNAPSHOTS_KEPT,
    TRIM_ROWS,
    Append,
    Configure,
    Create,
    DamagedError,
    Delete,
    Done,
    InputWatch,
    ModelRecord,
    Once,
    Operation,
    Pend,
    PutSnapshot,
    Refusal,
    Remember,
    Snapshot,
    StoredEvent,
    StreamRecord,
)
from service.store.beside import Sums
from service.store.chain import (
    bundle_digest,
    drift_fields,
    kept_snapshots,
    new_record,
    next_entry,
    next_record,
    pending_digest,
    record_digest,
    snapshot_digest,
    watch_digest,
)

_CLEAR = (
    "DELETE FROM entries WHERE stream=?1 AND revision IN (SELECT revision FROM entries WHERE stream=?1 LIMIT ?2)",
    "DELETE FROM ids WHERE stream=?1 AND id IN (SELECT id FROM ids WHERE stream=?1 LIMIT ?2)",
    "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE stream=?1 LIMIT ?2)",
    "DELETE FROM pending WHERE number IN (SELECT number FROM pending WHERE stream=?1 LIMIT ?2)",
    "DELETE FROM snapshots WHERE stream=?1 AND revision IN (SELECT revision FROM snapshots WHERE stream=?1 LIMIT ?2)",
    "DELETE FROM watches WHERE stream=?1 AND ?2>0",
    "DELETE FROM uploads WHERE stream=?1 AND upload IN (SELECT upload FROM uploads WHERE stream=?1 LIMIT ?2)",
    "DELETE FROM answers WHERE stream=?1 AND key IN (SELECT key FROM answers WHERE stream=?1 LIMIT ?2)",
)
MANY = 0
"""In place of a stream's key: an upload to many streams."""


def apply(db: sqlite3.Connection, operation: Operation) -> Done | Refusal:
    """Carry out one operation, or refuse it without a change."""
    if isinstance(operation, Create):
        return _create(db, operation)
    record = operation.record
    row = db.execute("SELECT digest, beside FROM streams WHERE key=?", (record.key,)).fetchone()
    if row is None:
        return Refusal.GONE
    sums = Sums(db, record.key, row[1])
    answer = _apply(db, operation, sums, current=row[0] == record_digest(record))
    sums.keep()
    return answer


def _apply(
    db: sqlite3.Connection,
    operation: Append | PutSnapshot | Configure | Pend | Remember | Delete,
    sums: Sums,
    *,
    current: bool,
) -> Done | Refusal:
    """Carry out an operation on a stream that is there; ``current``: the operation knows it as it is."""
    if isinstance(operation, Delete):
        return Done(operation.record)
    if isinstance(operation, PutSnapshot):
        return _put_snapshot(db, operation, sums)
    if isinstance(operation, Remember):
        _remember(sums, operation.once, done := Done(operation.record))
        return done
    if not current:
        return Refusal.STALE
    if isinstance(operation, Append):
        return _append(db, operation, sums)
    if isinstance(operation, Pend):
        return _pend(db, operation, sums)
    return _configure(db, operation, sums)


def _create(db: sqlite3.Connection, operation: Create) -> Done | Refusal:
    if db.execute("SELECT 1 FROM streams WHERE stream=?", (operation.stream,)).fetchone() is not None:
        return Refusal.STALE
    record = new_record(0, operation)
    cursor = db.execute(
        "INSERT INTO streams (stream, model, model_version, config, metadata, stream_version, rows_seen, chain, state,"
        " last_drift, created_at, updated_at, digest) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (*record[1:4], *columns_of(record)),
    )
    return Done(record._replace(key=cursor.lastrowid or 0))


def _append(db: sqlite3.Connection, operation: Append, sums: Sums) -> Done | Refusal:
    key, part, once = operation.record.key, operation.upload, operation.once
    if once is not None and _is_answered(db, key, once):
        return Refusal.KNOWN
    if part is not None:
        if (uploaded(db, part.upload, key) or 0) > part.start:
            return Refusal.KNOWN
        sums.delete("uploads", "upload=?", part.upload)
        sums.insert("uploads", [(part.upload, part.stop, operation.at)])
    entry = next_entry(operation)
    events = [_insert_event(db, sums, event) for event in operation.events]
    record = next_record(operation, entry, events)
    db.execute(
        "INSERT INTO entries (stream, revision, kind, at, first_row, rows, payload, previous, chain)"
        " VALUES (?,?,?,?,?,?,?,?,?)",
        (key, *entry),
    )
    sums.delete("ids", "row<?", operation.ids_from)
    sums.insert("ids", operation.ids)
    if operation.ids and db.execute("SELECT 1 FROM pending WHERE stream=? LIMIT 1", (key,)).fetchone() is not None:
        for name, _ in operation.ids:
            sums.delete("pending", "id=?", name)
    _update(db, record)
    done = Done(record, tuple(events))
    if operation.once is not None:
        _remember(sums, operation.once, done)
    return done


def _is_answered(db: sqlite3.Connection, key: int, once: Once) -> bool:
    statement = "SELECT 1 FROM answers WHERE stream=? AND key=? AND at>=?"
    return db.execute(statement, (key, once.key, once.before)).fetchone() is not None


def _remember(sums: Sums, once: Once, done: Done) -> None:
    sums.delete("answers", "(at<? OR key=?)", once.before, once.key)
    sums.insert("answers", [(once.key, once.at, once.digest, once.answer(done))])


def uploaded(db: sqlite3.Connection, upload: str, key: int) -> int | None:
    """Rows of an upload that a stream has got to."""
    row = db.execute("SELECT rows FROM uploads WHERE stream=? AND upload=?", (key, upload)).fetchone()
    return None if row is None else int(row[0])


def put_uploaded(db: sqlite3.Connection, upload: str, rows: int, at: float, before: float) -> None:
    """Keep how far an upload to many streams has got, and forget those that ended long ago."""
    db.execute("INSERT OR REPLACE INTO uploads (stream, upload, rows, at) VALUES (?,?,?,?)", (MANY, upload, rows, at))
    db.execute("DELETE FROM uploads WHERE stream=? AND at<?", (MANY, before))


def _insert_event(db: sqlite3.Connection, sums: Sums, event: StoredEvent) -> StoredEvent:
    sums.insert("events", [event[1:]])
    return event._replace(id=db.execute("SELECT last_insert_rowid()").fetchone()[0])


def _put_snapshot(db: sqlite3.Connection, operation: PutSnapshot, sums: Sums) -> Done | Refusal:
    record = operation.record
    key, revision = record.key, record.stream_version
    newer = db.execute("SELECT 1 FROM snapshots WHERE stream=? AND revision>?", (key, revision)).fetchone()
    if newer is not None:
        return Refusal.STALE
    snapshot = Snapshot(revision, record.chain, operation.status, operation.data)
    db.execute(
        "INSERT OR REPLACE INTO snapshots (stream, revision, at, chain, status, digest, data) VALUES (?,?,?,?,?,?,?)",
        (
            *(key, revision, operation.at, record.chain, _json(operation.status)),
            *(snapshot_digest(record, snapshot), operation.data),
        ),
    )
    oldest = _thin_snapshots(db, key, operation.trim_before)
    db.execute(
        "DELETE FROM entries WHERE stream=?1 AND revision IN (SELECT revision FROM entries WHERE stream=?1"
        " AND revision<=?2 AND first_row+rows<=?3 AND at<?4 ORDER BY revision LIMIT ?5)",
        (key, oldest, operation.trim_rows, operation.trim_before, TRIM_ROWS),
    )
    (first,) = db.execute("SELECT min(revision) FROM entries WHERE stream=?", (key,)).fetchone()
    sums.trimmed(first or 0)
    old = "id IN (SELECT id FROM events WHERE stream=? AND at<? ORDER BY id LIMIT ?)"
    sums.delete("events", old, key, operation.trim_before, TRIM_ROWS)
    sums.delete("uploads", "at<?", operation.trim_before)
    return Done(record)


def _thin_snapshots(db: sqlite3.Connection, key: int, before: float) -> int:
    """Drop snapshots that no roll-back needs; the oldest that is older than the retention, or 0: no entry may go."""
    found = db.execute("SELECT revision, at FROM snapshots WHERE stream=? ORDER BY revision", (key,)).fetchall()
    oldest, kept = kept_snapshots(found, before, SNAPSHOTS_KEPT)
    dropped = [(key, revision) for revision, _ in found if revision not in kept]
    db.executemany("DELETE FROM snapshots WHERE stream=? AND revision=?", dropped)
    return oldest


def _configure(db: sqlite3.Connection, operation: Configure, sums: Sums) -> Done:
    record = operation.record._replace(
        config=dict(operation.config), metadata=dict(operation.metadata), updated_at=operation.at
    )
    _update(db, record)
    if operation.snapshot is not None:
        _put_snapshot(db, operation.snapshot, sums)
    return Done(record)


def _pend(db: sqlite3.Connection, operation: Pend, sums: Sums) -> Done | Refusal:
    record = operation.record
    for row in operation.rows:
        known = db.execute(
            "SELECT 1 FROM pending WHERE stream=?1 AND id=?2 AND at>=?3"
            " UNION ALL SELECT 1 FROM ids WHERE stream=?1 AND id=?2",
            (record.key, row.id, operation.before),
        ).fetchone()
        if known is not None:
            return Refusal.KNOWN
    sums.delete("pending", "at<?", operation.before)
    sums.insert("pending", [(*row, pending_digest(record.stream, row)) for row in operation.rows])
    surplus = "number IN (SELECT number FROM pending WHERE stream=? ORDER BY at DESC, number DESC LIMIT -1 OFFSET ?)"
    sums.delete("pending", surplus, record.key, operation.rows_max)
    watch = InputWatch(record.stream_version, operation.inputs)
    db.execute(
        "INSERT OR REPLACE INTO watches (stream, revision, data, digest) VALUES (?,?,?,?)",
        (record.key, *watch, watch_digest(record.stream, watch)),
    )
    events = [_insert_event(db, sums, event) for event in operation.events]
    if operation.state != record.state:
        record = record._replace(state=operation.state)
        _update(db, record)
    return Done(record, tuple(events))


def put_model(
    db: sqlite3.Connection, name: str, bundle: bytes, *, activate: bool | None, version: int | None
) -> ModelRecord:
    """Register a bundle, or find the version that its bytes have already."""
    digest = bundle_digest(bundle)
    known = db.execute("SELECT version, digest, active FROM models WHERE name=?", (name,)).fetchall()
    found = next((number for number, kept, _ in known if kept == digest), None)
    if found is None:
        found = 1 + max((number for number, _, _ in known), default=0) if version is None else version
        db.execute(
            "INSERT INTO models (name, version, digest, active, bundle) VALUES (?,?,?,0,?)",
            (name, found, digest, bundle),
        )
    if activate or (activate is None and not any(active for _, _, active in known)):
        activate_model(db, name, found)
    row = db.execute("SELECT active FROM models WHERE name=? AND version=?", (name, found)).fetchone()
    return ModelRecord(name, found, digest, bool(row[0]))


def activate_model(db: sqlite3.Connection, name: str, version: int) -> bool:
    """Make a version the active one, if it is there."""
    if db.execute("SELECT 1 FROM models WHERE name=? AND version=?", (name, version)).fetchone() is None:
        return False
    db.execute("UPDATE models SET active=(version=?) WHERE name=?", (version, name))
    return True


def bury(db: sqlite3.Connection, key: int) -> None:
    """Remove a stream's record; its rows elsewhere belong to nobody from here on, since keys are never used again."""
    db.execute("DELETE FROM streams WHERE key=?", (key,))
    db.execute("INSERT INTO graves (stream) VALUES (?)", (key,))


def clear(db: sqlite3.Connection, key: int, budget_rows: int) -> int:
    """Remove up to ``budget_rows`` rows of a buried stream, and its grave when none is left; rows removed."""
    removed = 0
    for statement in _CLEAR:
        removed += db.execute(statement, (key, budget_rows - removed)).rowcount
    if removed < budget_rows:
        db.execute("DELETE FROM graves WHERE stream=?", (key,))
    return removed


def to_record(row: Sequence[Any]) -> StreamRecord:
    """A record from its columns, key to digest.

    Raises:
        DamagedError: It is not what was written.
    """
    try:
        drift = orjson.loads(row[10])
        config, metadata = orjson.loads(row[4]), orjson.loads(row[5])
    except orjson.JSONDecodeError as error:
        raise DamagedError(row[1], row[6], "its record was altered") from error
    last_drift = StoredEvent(*drift) if drift else None
    record = StreamRecord._make((*row[:4], config, metadata, *row[6:10], last_drift, *row[11:13]))
    if record_digest(record) != row[13]:
        raise DamagedError(record.stream, record.stream_version, "its record was altered")
    return record


def to_snapshot(record: StreamRecord, row: Sequence[Any]) -> Snapshot:
    """A snapshot from its columns revision, chain, status, data, digest.

    Raises:
        DamagedError: It is not what was written.
    """
    revision, chain, status, data, digest = row
    try:
        snapshot = Snapshot(revision, chain, orjson.loads(status), data)
    except orjson.JSONDecodeError as error:
        raise DamagedError(record.stream, revision, "its snapshot was altered") from error
    if snapshot_digest(record, snapshot) != digest:
        raise DamagedError(record.stream, revision, "its snapshot was altered")
    return snapshot


def columns_of(record: StreamRecord) -> tuple[Any, ...]:
    """A record's columns, config to digest."""
    middle = (record.stream_version, record.rows_seen, record.chain, record.state, _json(drift_fields(record)))
    times = (record.created_at, record.updated_at)
    return (_json(record.config), _json(record.metadata), *middle, *times, record_digest(record))


def _update(db: sqlite3.Connection, record: StreamRecord) -> None:
    db.execute(
        "UPDATE streams SET model_version=?, config=?, metadata=?, stream_version=?, rows_seen=?, chain=?, state=?,"
        " last_drift=?, created_at=?, updated_at=?, digest=? WHERE key=?",
        (record.model_version, *columns_of(record), record.key),
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
