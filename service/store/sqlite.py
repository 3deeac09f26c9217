"""The embedded store: one SQLite file in WAL mode, each commit synced, one connection that writes."""

import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson

from service.errors import ConfigurationError
from service.store.base import (
    PURGE_ROWS,
    Answer,
    DamagedError,
    Delete,
    Done,
    Entry,
    InputWatch,
    Loaded,
    ModelRecord,
    Operation,
    Pending,
    Refusal,
    Snapshot,
    StoredEvent,
    StreamRecord,
    Tally,
    Webhook,
)
from service.store.beside import begins_at, verify_beside
from service.store.chain import (
    bundle_digest,
    record_digest,
    verify_loaded,
    verify_page,
    verify_pending,
    verify_rising,
    verify_watch,
)
from service.store.lock import DirectoryLock, sync_directory
from service.store.schema import FILE_NAME, READER_PRAGMAS, connect, open_writer, translate
from service.store.statements import (
    MANY,
    activate_model,
    apply,
    bury,
    clear,
    put_model,
    put_uploaded,
    to_record,
    to_snapshot,
    uploaded,
)

_SNAPSHOT = (
    "SELECT revision, chain, status, data, digest FROM snapshots WHERE stream=? AND revision<=?"
    " ORDER BY revision DESC LIMIT 1"
)
_RECORD = (
    "SELECT key, stream, model, model_version, config, metadata, stream_version, rows_seen, chain, state, last_drift,"
    " created_at, updated_at, digest FROM streams WHERE key=?"
)
READERS = 4
"""Read connections, so that a long page of one reader does not hold up the others."""


class SqliteStore:
    """All streams of a data directory in one file.

    Raises:
        ConfigurationError: Another process has the directory, or the file is damaged, foreign or too new.
    """

    def __init__(self, data_dir: Path) -> None:
        self._lock = DirectoryLock(data_dir)
        path = data_dir / FILE_NAME
        try:
            self._writer = open_writer(path)
            sync_directory(data_dir)
            sync_directory(data_dir.resolve().parent)
        except OSError as error:
            self._lock.close()
            raise ConfigurationError(
                f"cannot make the data directory {data_dir} durable ({error.strerror}): choose another with --data-dir"
            ) from error
        except BaseException:
            self._lock.close()
            raise
        self._writing = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        for _ in range(READERS):
            self._readers.put(connect(path, READER_PRAGMAS))

    @property
    def shared(self) -> bool:
        """The directory is locked."""
        return False

    def current(self, records: Sequence[StreamRecord]) -> list[bool]:
        """Compare records with what is there."""
        with self._reading() as db:
            found = [db.execute("SELECT digest FROM streams WHERE key=?", (each.key,)).fetchone() for each in records]
        return [row is not None and row[0] == record_digest(each) for row, each in zip(found, records, strict=True)]

    def lead(self) -> bool:
        """There is nobody else."""
        return True

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The writing connection inside a transaction that is synced at the end, or rolled back."""
        with self._writing:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error | UnicodeDecodeError):
                    raise translate(error) from error
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A read connection inside a transaction: everything read comes from one moment."""
        db = self._readers.get()
        try:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("COMMIT")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise translate(error) from error
        finally:
            self._readers.put(db)

    def write(self, operations: Sequence[Operation]) -> list[Done | Refusal]:
        """Commit all operations in one transaction."""
        with self._transaction() as db:
            answers = []
            for operation in operations:
                answer = apply(db, operation)
                if isinstance(operation, Delete) and isinstance(answer, Done):
                    bury(db, operation.record.key)
                answers.append(answer)
            return answers

    def purge(self) -> bool:
        """Clear away a bounded number of rows of deleted streams."""
        with self._transaction() as db:
            budget_rows = PURGE_ROWS
            for (key,) in db.execute("SELECT stream FROM graves LIMIT ?", (PURGE_ROWS,)).fetchall():
                budget_rows -= clear(db, key, budget_rows)
                if budget_rows <= 0:
                    break
            return db.execute("SELECT 1 FROM graves LIMIT 1").fetchone() is not None

    def load(self, stream: str) -> Loaded | None:
        """A stream with its snapshot and the entries after it, verified."""
        with self._reading() as db:
            row = db.execute(
                "SELECT key, stream, model, model_version, config, metadata, stream_version, rows_seen, chain, state,"
                " last_drift, created_at, updated_at, digest, beside FROM streams WHERE stream=?",
                (stream,),
            ).fetchone()
            if row is None:
                return None
            record = to_record(row)
            verify_beside(db, stream, record.key, row[14])
            found = db.execute(_SNAPSHOT, (record.key, record.stream_version)).fetchone()
            snapshot = None if found is None else to_snapshot(record, found)
            entries = _entries(db, record, 0 if snapshot is None else snapshot.revision, -1)
            kept = db.execute("SELECT revision, data, digest FROM watches WHERE stream=?", (record.key,)).fetchone()
        watch = None if kept is None else verify_watch(stream, InputWatch(*kept[:2]), kept[2])
        return verify_loaded(Loaded(record, snapshot, entries, watch))

    def get(self, stream: str) -> tuple[StreamRecord, Snapshot | None] | None:
        """A record and what its snapshot says about it."""
        found = self._page((stream, stream, stream, None, 1))
        return found[0] if found else None

    def page(
        self, prefix: str, model: str | None, limit: int, after: str
    ) -> list[tuple[StreamRecord, Snapshot | None]]:
        """One page of streams."""
        first = max(prefix, after + "\0" if after else "")
        found = self._page((first, prefix + "\U0010ffff", None, model, limit))
        verify_rising(after, [record.stream for record, _ in found])
        return found

    def _page(self, values: tuple[str, str, str | None, str | None, int]) -> list[tuple[StreamRecord, Snapshot | None]]:
        """Streams by least and greatest id, exact id, model and number."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT t.key, t.stream, t.model, t.model_version, t.config, t.metadata, t.stream_version, t.rows_seen,"
                " t.chain, t.state, t.last_drift, t.created_at, t.updated_at, t.digest, s.revision, s.chain, s.status"
                " FROM streams t LEFT JOIN snapshots s ON s.stream=t.key"
                " AND s.revision=(SELECT max(revision) FROM snapshots WHERE stream=t.key)"
                " WHERE t.stream>=?1 AND t.stream<=?2 AND (?3 IS NULL OR t.stream=?3)"
                " AND (?4 IS NULL OR t.model=?4) ORDER BY t.stream LIMIT ?5",
                values,
            ).fetchall()
        found: list[tuple[StreamRecord, Snapshot | None]] = []
        for row in rows:
            revision, chain, status = row[14:]
            headline = None if revision is None else Snapshot(revision, chain, orjson.loads(status), b"")
            found.append((to_record(row[:14]), headline))
        return found

    def tally(self) -> list[Tally]:
        """All streams, counted."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT model, model_version, state, count(*) FROM streams"
                " GROUP BY model, model_version, state ORDER BY model, model_version, state"
            ).fetchall()
        return [Tally._make(row) for row in rows]

    def entries(self, record: StreamRecord, after: int, limit: int) -> list[Entry]:
        """One page of the log."""
        with self._reading() as db:
            found = _entries(db, record, after, limit)
            kept = db.execute("SELECT beside FROM streams WHERE key=?", (record.key,)).fetchone()
        if kept is not None:
            verify_page(record, max(after + 1, begins_at(kept[0])), found, last=len(found) < limit)
        return found

    def snapshot(self, record: StreamRecord, revision: int) -> Snapshot | None:
        """The newest snapshot up to a revision."""
        with self._reading() as db:
            found = db.execute(_SNAPSHOT, (record.key, revision)).fetchone()
        return None if found is None else to_snapshot(record, found)

    def answered(self, record: StreamRecord, key: str, since: float) -> Answer | None:
        """What was answered under an idempotency key."""
        with self._reading() as db:
            _verify(db, record, "answers")
            found = db.execute(
                "SELECT digest, body FROM answers WHERE stream=? AND key=? AND at>=?", (record.key, key, since)
            ).fetchone()
        return None if found is None else Answer(*found)

    def learned(self, wanted: Sequence[tuple[int, Sequence[str]]]) -> list[set[str]]:
        """Ids that were learned."""
        with self._reading() as db:
            return [{name for name in names if _knows(db, key, name)} for key, names in wanted]

    def pending(self, record: StreamRecord, ids: Sequence[str], since: float) -> dict[str, Pending]:
        """Rows that wait for their labels."""
        found = {}
        with self._reading() as db:
            for name in ids:
                row = db.execute(
                    "SELECT id, at, payload, digest FROM pending WHERE stream=? AND id=? AND at>=?",
                    (record.key, name, since),
                ).fetchone()
                if row is not None:
                    found[name] = verify_pending(record.stream, Pending._make(row[:3]), row[3])
        return found

    def uploaded(self, upload: str, record: StreamRecord | None) -> int | None:
        """How far an upload has got."""
        with self._reading() as db:
            if record is not None:
                _verify(db, record, "uploads")
            return uploaded(db, upload, MANY if record is None else record.key)

    def put_uploaded(self, upload: str, rows: int, at: float, before: float) -> None:
        """Keep how far an upload to many streams has got."""
        with self._transaction() as db:
            put_uploaded(db, upload, rows, at, before)

    def events(self, record: StreamRecord, after: int, limit: int) -> list[StoredEvent]:
        """One page of events."""
        with self._reading() as db:
            _verify(db, record, "events")
            rows = db.execute(
                "SELECT id, revision, at, kind, detector, statistic, threshold, change_row, action, rows_used,"
                " feature, shift FROM events WHERE stream=? AND id>? ORDER BY id LIMIT ?",
                (record.key, after, limit),
            ).fetchall()
        return [StoredEvent._make(row) for row in rows]

    def all_events(self, after: int, limit: int) -> list[tuple[str, StoredEvent]]:
        """Events of all streams."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT t.stream, e.id, e.revision, e.at, e.kind, e.detector, e.statistic, e.threshold, e.change_row,"
                " e.action, e.rows_used, e.feature, e.shift FROM events e JOIN streams t ON t.key=e.stream"
                " WHERE e.id>? ORDER BY e.id LIMIT ?",
                (after, limit),
            ).fetchall()
        return [(stream, StoredEvent._make(event)) for stream, *event in rows]

    def last_event(self) -> int:
        """The latest event."""
        with self._reading() as db:
            row = db.execute("SELECT seq FROM sqlite_sequence WHERE name='events'").fetchone()
        return 0 if row is None else int(row[0])

    def webhooks(self) -> list[Webhook]:
        """Who wants to hear of events."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, url, kinds, secret, created_at, cursor, gone FROM webhooks ORDER BY id"
            ).fetchall()
        return [
            Webhook(name, url, tuple(orjson.loads(kinds)), secret, created_at, cursor, bool(gone))
            for name, url, kinds, secret, created_at, cursor, gone in rows
        ]

    def put_webhook(self, webhook: Webhook, *, known: bool = False) -> None:
        """Keep one."""
        name, url, kinds, *rest = webhook
        with self._transaction() as db:
            if known and db.execute("SELECT 1 FROM webhooks WHERE id=?", (name,)).fetchone() is None:
                return
            db.execute(
                "INSERT OR REPLACE INTO webhooks (id, url, kinds, secret, created_at, cursor, gone)"
                " VALUES (?,?,?,?,?,?,?)",
                (name, url, orjson.dumps(kinds).decode(), *rest),
            )

    def delete_webhook(self, name: str) -> bool:
        """Forget one."""
        with self._transaction() as db:
            return db.execute("DELETE FROM webhooks WHERE id=?", (name,)).rowcount > 0

    def models(self) -> list[ModelRecord]:
        """All versions of all models."""
        with self._reading() as db:
            rows = db.execute("SELECT name, version, digest, active FROM models ORDER BY name, version").fetchall()
        return [ModelRecord(name, version, digest, bool(active)) for name, version, digest, active in rows]

    def put_model(
        self, name: str, bundle: bytes, *, activate: bool | None = None, version: int | None = None
    ) -> ModelRecord:
        """Register a bundle."""
        with self._transaction() as db:
            return put_model(db, name, bundle, activate=activate, version=version)

    def activate_model(self, name: str, version: int) -> bool:
        """Make a version the active one."""
        with self._transaction() as db:
            return activate_model(db, name, version)

    def delete_model(self, name: str) -> bool:
        """Remove a model that no stream is bound to."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM streams WHERE model=? LIMIT 1", (name,)).fetchone() is not None:
                return False
            db.execute("DELETE FROM models WHERE name=?", (name,))
            return True

    def behind(self, model: str, version: int, after: str, limit: int) -> list[StreamRecord]:
        """Streams at another version."""
        with self._reading() as db:
            keys = db.execute(
                "SELECT key, stream FROM streams WHERE model=?1 AND model_version<?2 AND stream>?3"
                " UNION ALL SELECT key, stream FROM streams WHERE model=?1 AND model_version>?2 AND stream>?3"
                " ORDER BY stream LIMIT ?4",
                (model, version, after, limit),
            ).fetchall()
            verify_rising(after, [stream for _, stream in keys])
            rows = [db.execute(_RECORD, (key,)).fetchone() for key, _ in keys]
        return [to_record(row) for row in rows]

    def bundle(self, name: str, version: int) -> bytes:
        """A registered bundle."""
        with self._reading() as db:
            row = db.execute("SELECT bundle, digest FROM models WHERE name=? AND version=?", (name, version)).fetchone()
        if row is None or bundle_digest(row[0]) != row[1]:
            raise DamagedError(None, None, f"the bundle of model {name}, version {version}, is missing or altered")
        return bytes(row[0])

    def close(self) -> None:
        """Close the readers first, so that the writer makes the last checkpoint."""
        for _ in range(READERS):
            self._readers.get().close()
        with self._writing:
            self._writer.close()
        self._lock.close()


def _verify(db: sqlite3.Connection, record: StreamRecord, table: str) -> None:
    """Check one of the tables beside a stream's log; the record may be a moment old."""
    row = db.execute("SELECT beside FROM streams WHERE key=?", (record.key,)).fetchone()
    if row is not None:
        verify_beside(db, record.stream, record.key, row[0], (table,))


def _entries(db: sqlite3.Connection, record: StreamRecord, after: int, limit: int) -> list[Entry]:
    rows = db.execute(
        "SELECT revision, kind, at, first_row, rows, payload, previous, chain FROM entries"
        " WHERE stream=? AND revision>? ORDER BY revision LIMIT ?",
        (record.key, after, limit),
    )
    return [Entry._make(row) for row in rows]


def _knows(db: sqlite3.Connection, key: int, name: str) -> bool:
    return db.execute("SELECT 1 FROM ids WHERE stream=? AND id=?", (key, name)).fetchone() is not None
