"""The store for several machines: PostgreSQL holds the truth, and any number of servers write it.

Each operation's compare-and-set happens under the lock of its stream's row, inside the transaction that appends; one
transaction takes a whole tick. Which server has a stream in memory is nothing that the store knows or trusts.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import orjson

from service.store.base import (
    PURGE_ROWS,
    Answer,
    DamagedError,
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
from service.store.beside import COLUMNS, RowSums, begins_at
from service.store.chain import (
    bundle_digest,
    record_digest,
    verify_loaded,
    verify_page,
    verify_pending,
    verify_watch,
)
from service.store.driver import Database
from service.store.postgres_bulk import arrays, unnest
from service.store.postgres_link import Lines, Timing, connect_plainly
from service.store.postgres_schema import tenants_of
from service.store.postgres_shelf import activate_model, clear, delete_model, put_model, put_uploaded, put_webhook
from service.store.postgres_writing import RECORD, write
from service.store.statements import MANY, to_record, to_snapshot

_ENTRIES = (
    "SELECT revision, kind, at, first_row, rows, payload, previous, chain FROM entries"
    " WHERE stream=%s AND revision>%s ORDER BY revision LIMIT %s"
)
_SNAPSHOT = (
    "SELECT revision, chain, status, data, digest FROM snapshots WHERE stream=%s AND revision<=%s"
    " ORDER BY revision DESC LIMIT 1"
)
_EVENT = "id, revision, at, kind, detector, statistic, threshold, change_row, action, rows_used, feature, shift"


class PostgresStore:
    """All streams of a tenant in one schema of a database.

    Args:
        database: Where.
        timing: How time is told and passed when the database is lost.

    Raises:
        ConfigurationError: The database cannot be reached, or the store cannot be made, or is foreign or too new.
    """

    def __init__(self, database: Database, timing: Timing | None = None) -> None:
        self._lines = Lines(database, timing or Timing())

    @property
    def shared(self) -> bool:
        """Any number of servers write it."""
        return True

    def current(self, records: Sequence[StreamRecord]) -> list[bool]:
        """Compare records with what is there."""
        rows = self._all("SELECT key, digest FROM streams WHERE key=ANY(%s)", ([each.key for each in records],))
        found = dict(rows)
        return [found.get(each.key) == record_digest(each) for each in records]

    def lead(self) -> bool:
        """Whether this process has the lock that one can have; the server takes it from one that is gone."""
        return self._lines.lead()

    def write(self, operations: Sequence[Operation]) -> list[Done | Refusal]:
        """Commit all operations in one transaction."""
        return self._lines.change(lambda db: write(db, operations))

    def purge(self) -> bool:
        """Clear away a bounded number of rows of deleted streams."""
        return self._lines.change(lambda db: clear(db, PURGE_ROWS))

    def load(self, stream: str) -> Loaded | None:
        """A stream with its snapshot and the entries after it, verified."""
        return self._lines.read(lambda db: _load(db, stream))

    def get(self, stream: str) -> tuple[StreamRecord, Snapshot | None] | None:
        """A record and what its snapshot says about it."""
        found = self._page("t.stream=%s", (stream,), 1)
        return found[0] if found else None

    def page(
        self, prefix: str, model: str | None, limit: int, after: str
    ) -> list[tuple[StreamRecord, Snapshot | None]]:
        """One page of streams."""
        wanted, values = "t.stream>%s AND t.stream>=%s AND t.stream<%s", [after, prefix, prefix + "\U0010ffff"]
        if model is not None:
            wanted, values = f"{wanted} AND t.model=%s", [*values, model]
        return self._page(wanted, values, limit)

    def _page(self, wanted: str, values: Sequence[Any], limit: int) -> list[tuple[StreamRecord, Snapshot | None]]:
        columns = ", ".join(f"t.{name}" for name in RECORD.split(", "))
        rows = self._all(
            f"SELECT {columns}, s.revision, s.chain, s.status FROM streams t LEFT JOIN LATERAL"
            " (SELECT revision, chain, status FROM snapshots WHERE stream=t.key ORDER BY revision DESC LIMIT 1) s"
            f" ON true WHERE {wanted} ORDER BY t.stream LIMIT %s",
            (*values, limit),
        )
        found: list[tuple[StreamRecord, Snapshot | None]] = []
        for row in rows:
            revision, chain, status = row[14:]
            headline = None if revision is None else Snapshot(revision, chain, orjson.loads(status), b"")
            found.append((to_record(row[:14]), headline))
        return found

    def tally(self) -> list[Tally]:
        """All streams, counted."""
        rows = self._all(
            "SELECT model, model_version, state, count(*) FROM streams"
            ' GROUP BY model, model_version, state ORDER BY model, model_version, state COLLATE "C"',
            (),
        )
        return [Tally._make(row) for row in rows]

    def entries(self, record: StreamRecord, after: int, limit: int) -> list[Entry]:
        """One page of the log."""

        def read(db: Any) -> tuple[list[Entry], Any]:
            rows = db.execute(_ENTRIES, (record.key, after, limit))
            kept = db.execute("SELECT beside FROM streams WHERE key=%s", (record.key,))
            return [Entry._make(row) for row in rows.fetchall()], kept.fetchone()

        found, kept = self._lines.read(read)
        if kept is not None:
            verify_page(record, max(after + 1, begins_at(kept[0])), found, last=len(found) < limit)
        return found

    def snapshot(self, record: StreamRecord, revision: int) -> Snapshot | None:
        """The newest snapshot up to a revision."""
        rows = self._all(_SNAPSHOT, (record.key, revision))
        return to_snapshot(record, rows[0]) if rows else None

    def answered(self, record: StreamRecord, key: str, since: float) -> Answer | None:
        """What was answered under an idempotency key."""
        rows = self._beside(
            record, "answers", "SELECT digest, body FROM answers WHERE stream=%s AND key=%s AND at>=%s", (key, since)
        )
        return Answer(*rows[0]) if rows else None

    def learned(self, wanted: Sequence[tuple[int, Sequence[str]]]) -> list[set[str]]:
        """Ids that were learned."""
        pairs = [(key, name) for key, names in wanted for name in names]
        if not pairs:
            return [set() for _ in wanted]
        columns = "stream, id"
        found = set(
            self._all(
                f"SELECT t.stream, t.id FROM ids t JOIN {unnest(columns)} ON t.stream=w.stream AND t.id=w.id",
                arrays(columns, pairs),
            )
        )
        return [{name for name in names if (key, name) in found} for key, names in wanted]

    def pending(self, record: StreamRecord, ids: Sequence[str], since: float) -> dict[str, Pending]:
        """Rows that wait for their labels."""
        rows = self._all(
            "SELECT id, at, payload, digest FROM pending WHERE stream=%s AND id=ANY(%s) AND at>=%s",
            (record.key, list(ids), since),
        )
        return {row[0]: verify_pending(record.stream, Pending._make(row[:3]), row[3]) for row in rows}

    def uploaded(self, upload: str, record: StreamRecord | None) -> int | None:
        """How far an upload has got."""
        asked = "SELECT rows FROM uploads WHERE stream=%s AND upload=%s"
        if record is not None:
            rows = self._beside(record, "uploads", asked, (upload,))
            return int(rows[0][0]) if rows else None
        rows = self._all(asked, (MANY, upload))
        return int(rows[0][0]) if rows else None

    def put_uploaded(self, upload: str, rows: int, at: float, before: float) -> None:
        """Keep how far an upload to many streams has got."""
        self._lines.change(lambda db: put_uploaded(db, upload, rows, at, before))

    def events(self, record: StreamRecord, after: int, limit: int) -> list[StoredEvent]:
        """One page of events."""
        asked = f"SELECT {_EVENT} FROM events WHERE stream=%s AND id>%s ORDER BY id LIMIT %s"
        return [StoredEvent._make(row) for row in self._beside(record, "events", asked, (after, limit))]

    def all_events(self, after: int, limit: int) -> list[tuple[str, StoredEvent]]:
        """Events of all streams."""
        columns = ", ".join(f"e.{name}" for name in _EVENT.split(", "))
        rows = self._all(
            f"SELECT t.stream, {columns} FROM events e JOIN streams t ON t.key=e.stream"
            " WHERE e.id>%s ORDER BY e.id LIMIT %s",
            (after, limit),
        )
        return [(stream, StoredEvent._make(event)) for stream, *event in rows]

    def last_event(self) -> int:
        """The latest event."""
        return int(self._all("SELECT last FROM numbers WHERE name='events'", ())[0][0])

    def webhooks(self) -> list[Webhook]:
        """Who wants to hear of events."""
        rows = self._all("SELECT id, url, kinds, secret, created_at, cursor, gone FROM webhooks ORDER BY id", ())
        return [Webhook._make((*row[:2], tuple(orjson.loads(row[2])), *row[3:])) for row in rows]

    def put_webhook(self, webhook: Webhook, *, known: bool = False) -> None:
        """Keep one."""
        self._lines.change(lambda db: put_webhook(db, webhook, known=known))

    def delete_webhook(self, name: str) -> bool:
        """Forget one."""
        return self._lines.change(
            lambda db: db.execute("DELETE FROM webhooks WHERE id=%s RETURNING 1", (name,)).fetchone() is not None
        )

    def models(self) -> list[ModelRecord]:
        """All versions of all models."""
        rows = self._all("SELECT name, version, digest, active FROM models ORDER BY name, version", ())
        return [ModelRecord._make(row) for row in rows]

    def put_model(
        self, name: str, bundle: bytes, *, activate: bool | None = None, version: int | None = None
    ) -> ModelRecord:
        """Register a bundle."""
        return self._lines.change(lambda db: put_model(db, name, bundle, activate=activate, version=version))

    def activate_model(self, name: str, version: int) -> bool:
        """Make a version the active one."""
        return self._lines.change(lambda db: activate_model(db, name, version))

    def delete_model(self, name: str) -> bool:
        """Remove a model that no stream is bound to."""
        return self._lines.change(lambda db: delete_model(db, name))

    def behind(self, model: str, version: int, after: str, limit: int) -> list[StreamRecord]:
        """Streams at another version."""
        rows = self._all(
            f"SELECT {RECORD} FROM streams WHERE model=%s AND model_version<>%s AND stream>%s ORDER BY stream LIMIT %s",
            (model, version, after, limit),
        )
        return [to_record(row) for row in rows]

    def bundle(self, name: str, version: int) -> bytes:
        """A registered bundle."""
        rows = self._all("SELECT bundle, digest FROM models WHERE name=%s AND version=%s", (name, version))
        if not rows or bundle_digest(rows[0][0]) != rows[0][1]:
            raise DamagedError(None, None, f"the bundle of model {name}, version {version}, is missing or altered")
        return bytes(rows[0][0])

    def close(self) -> None:
        """Close the connections."""
        self._lines.close()

    def _all(self, statement: str, values: Iterable[Any]) -> list[tuple[Any, ...]]:
        """The rows of a single statement, which sees one moment by itself."""
        found: list[tuple[Any, ...]] = self._lines.read(
            lambda db: db.execute(statement, tuple(values)).fetchall(), one_moment=False
        )
        return found

    def _beside(
        self, record: StreamRecord, table: str, statement: str, values: tuple[Any, ...]
    ) -> list[tuple[Any, ...]]:
        """Rows of a table beside a stream's log, which is verified; the record may be a moment old."""

        def read(db: Any) -> list[tuple[Any, ...]]:
            kept = db.execute("SELECT beside FROM streams WHERE key=%s", (record.key,))
            told = db.execute(f"SELECT {COLUMNS[table]} FROM {table} WHERE stream=%s", (record.key,))
            asked = db.execute(statement, (record.key, *values))
            row = kept.fetchone()
            if row is not None:
                RowSums(row[0]).verify(record.stream, table, told.fetchall())
            found: list[tuple[Any, ...]] = asked.fetchall()
            return found

        return self._lines.read(read)


def _load(db: Any, stream: str) -> Loaded | None:
    row = db.execute(f"SELECT {RECORD}, beside FROM streams WHERE stream=%s", (stream,)).fetchone()
    if row is None:
        return None
    record, sums = to_record(row[:14]), RowSums(row[14])
    asked = {
        table: db.execute(f"SELECT {COLUMNS[table]} FROM {table} WHERE stream=%s", (record.key,)) for table in COLUMNS
    }
    snapshots = db.execute(_SNAPSHOT, (record.key, record.stream_version))
    entries = db.execute(
        "SELECT revision, kind, at, first_row, rows, payload, previous, chain FROM entries WHERE stream=%s AND"
        " revision>(SELECT coalesce(max(revision), 0) FROM snapshots WHERE stream=%s AND revision<=%s)"
        " ORDER BY revision",
        (record.key, record.key, record.stream_version),
    )
    watches = db.execute("SELECT revision, data, digest FROM watches WHERE stream=%s", (record.key,))
    for table, cursor in asked.items():
        sums.verify(stream, table, cursor.fetchall())
    found, kept = snapshots.fetchone(), watches.fetchone()
    snapshot = None if found is None else to_snapshot(record, found)
    watch = None if kept is None else verify_watch(stream, InputWatch(*kept[:2]), kept[2])
    return verify_loaded(Loaded(record, snapshot, [Entry._make(each) for each in entries.fetchall()], watch))


def stored_tenants(database: Database) -> list[str]:
    """Tenants that have a store beside that of the default one, by name.

    Raises:
        ConfigurationError: The database cannot be reached.
    """
    with closing(connect_plainly(database)) as db:
        return [tenant for tenant in tenants_of(db, database.schema) if tenant != database.tenant]
