"""All operations of a transaction in PostgreSQL, table by table instead of one by one.

A stream's row is locked first, and with it everything that belongs to the stream: who waited for the lock sees what the
other has committed, and the digest of its record then decides. Rows are locked in the order of their keys, so that two
servers whose ticks share streams wait for each other and never both.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import orjson

from service.store.base import (
    SNAPSHOTS_KEPT,
    TRIM_ROWS,
    Append,
    Configure,
    Create,
    Delete,
    Done,
    InputWatch,
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
from service.store.beside import COLUMNS, RowSums
from service.store.chain import (
    kept_snapshots,
    next_entry,
    next_record,
    pending_digest,
    record_digest,
    snapshot_digest,
    watch_digest,
)
from service.store.postgres_bulk import arrays, delete, insert, unnest
from service.store.postgres_facts import Facts, create, drop_surplus
from service.store.statements import columns_of

RECORD = (
    "key, stream, model, model_version, config, metadata, stream_version, rows_seen, chain, state, last_drift,"
    " created_at, updated_at, digest"
)
_CHANGED = RECORD.removeprefix("key, stream, model, ")
_ENTRY = "stream, revision, kind, at, first_row, rows, payload, previous, chain"
_SNAPSHOT = "stream, revision, at, chain, status, digest, data"
Rows = list[tuple[Any, ...]]


def write(db: Any, operations: Sequence[Operation]) -> list[Done | Refusal]:
    """Carry out operations inside a transaction: one answer an operation, in their order."""
    keys = {operation.record.key for operation in operations if not isinstance(operation, Create)}
    kept: dict[int, _Kept] = {}
    if keys:
        rows = db.execute(
            "SELECT key, digest, beside FROM streams WHERE key=ANY(%s) ORDER BY key FOR UPDATE", (sorted(keys),)
        )
        kept = {key: _Kept(digest, RowSums(beside)) for key, digest, beside in rows.fetchall()}
    answers: dict[int, Done | Refusal] = {}
    for wave in _waves(operations):
        answers |= _Wave(db, kept).carry_out(wave)
    return [answers[place] for place in range(len(operations))]


def _waves(operations: Sequence[Operation]) -> list[list[tuple[int, Operation]]]:
    """Operations with their places, divided so that those of one stream follow each other."""
    waves: list[list[tuple[int, Operation]]] = []
    used: dict[str, int] = defaultdict(int)
    for place, operation in enumerate(operations):
        stream = operation.stream if isinstance(operation, Create) else operation.record.stream
        number = used[stream]
        used[stream] += 1
        if number == len(waves):
            waves.append([])
        waves[number].append((place, operation))
    return waves


class _Kept:
    """What a stream's locked row says, as the transaction has changed it."""

    def __init__(self, digest: bytes, sums: RowSums) -> None:
        self.digest = digest
        self.sums = sums


class _Wave:
    """Operations of different streams: first what they ask, then what they decide, then what they change."""

    def __init__(self, db: Any, kept: dict[int, _Kept]) -> None:
        self._db = db
        self._kept = kept
        self._records: dict[int, StreamRecord] = {}
        self._appended: set[int] = set()
        self._events: list[tuple[int, int, StoredEvent]] = []
        self._onces: list[tuple[int, Once]] = []
        self._insert: dict[str, Rows] = defaultdict(list)
        self._delete: dict[str, Rows] = defaultdict(list)
        self._entries: Rows = []
        self._snapshots: Rows = []
        self._trims: list[PutSnapshot] = []
        self._watches: Rows = []
        self._most: Rows = []
        self._graves: Rows = []

    def carry_out(self, wave: Sequence[tuple[int, Operation]]) -> dict[int, Done | Refusal]:
        """Answers by place."""
        creates = {place: operation for place, operation in wave if isinstance(operation, Create)}
        others = {place: operation for place, operation in wave if not isinstance(operation, Create)}
        made = create(self._db, creates)
        facts = Facts(self._db, list(others.values()))
        answers: dict[int, Done | Refusal] = dict(made)
        for place, operation in others.items():
            answers[place] = self._decide(place, operation, facts)
        answers |= self._numbered(answers)
        for place, once in self._onces:
            answer = answers[place]
            if isinstance(answer, Done):
                self._remember(answer, once)
        self._change(facts)
        return answers

    def _decide(
        self, place: int, operation: Append | PutSnapshot | Configure | Pend | Remember | Delete, facts: Facts
    ) -> Done | Refusal:
        record = operation.record
        kept = self._kept.get(record.key)
        if kept is None:
            return Refusal.GONE
        if isinstance(operation, Delete):
            del self._kept[record.key]
            self._graves.append((record.key,))
            return Done(record)
        current = kept.digest == record_digest(record)
        if isinstance(operation, PutSnapshot):
            return self._put_snapshot(operation, facts, current=current)
        if isinstance(operation, Remember):
            self._onces.append((place, operation.once))
            return Done(record)
        if not current:
            return Refusal.STALE
        if isinstance(operation, Append):
            return self._append(place, operation, facts)
        if isinstance(operation, Pend):
            return self._pend(place, operation, facts)
        return self._configure(operation, facts)

    def _append(self, place: int, operation: Append, facts: Facts) -> Done | Refusal:
        record, part = operation.record, operation.upload
        key, sums = record.key, self._kept[operation.record.key].sums
        if key in facts.answered:
            return Refusal.KNOWN
        if part is not None:
            if facts.uploaded.get((key, part.upload), 0) > part.start:
                return Refusal.KNOWN
            self._delete["uploads"].append((key, part.upload))
            self._insert["uploads"].append((key, part.upload, part.stop, operation.at))
        entry = next_entry(operation)
        self._entries.append((key, *entry))
        if sums.has("ids"):
            self._delete["ids"].append((key, operation.ids_from))
        self._insert["ids"] += [(key, *each) for each in operation.ids]
        if sums.has("pending"):
            self._delete["pending"] += [(key, name) for name, _ in operation.ids]
        self._events += [(place, key, event) for event in operation.events]
        if operation.once is not None:
            self._onces.append((place, operation.once))
        self._appended.add(place)
        self._records[key] = next_record(operation, entry, operation.events)
        return Done(self._records[key])

    def _pend(self, place: int, operation: Pend, facts: Facts) -> Done | Refusal:
        record = operation.record
        key = record.key
        if key in facts.known:
            return Refusal.KNOWN
        if self._kept[key].sums.has("pending"):
            self._delete["old pending"].append((key, operation.before))
        self._insert["pending"] += [(key, *row, pending_digest(record.stream, row)) for row in operation.rows]
        self._most.append((key, operation.rows_max))
        watch = InputWatch(record.stream_version, operation.inputs)
        self._watches.append((key, *watch, watch_digest(record.stream, watch)))
        self._events += [(place, key, event) for event in operation.events]
        if operation.state != record.state:
            record = self._records[key] = record._replace(state=operation.state)
        return Done(record)

    def _configure(self, operation: Configure, facts: Facts) -> Done:
        record = operation.record._replace(
            config=dict(operation.config), metadata=dict(operation.metadata), updated_at=operation.at
        )
        self._records[record.key] = record
        if operation.snapshot is not None:
            self._put_snapshot(operation.snapshot, facts, current=True)
        return Done(record)

    def _put_snapshot(self, operation: PutSnapshot, facts: Facts, *, current: bool) -> Done | Refusal:
        """Of a revision that has one already it is taken only from who knows the stream: the config may be another."""
        record = operation.record
        there = [revision for revision, _ in facts.snapshots[record.key]]
        newest = max(there, default=-1)
        if newest > record.stream_version or (newest == record.stream_version and not current):
            return Refusal.STALE
        snapshot = Snapshot(record.stream_version, record.chain, operation.status, operation.data)
        status = orjson.dumps(operation.status).decode()
        row = (record.key, snapshot.revision, operation.at, record.chain, status)
        self._snapshots.append((*row, snapshot_digest(record, snapshot), operation.data))
        self._trims.append(operation)
        return Done(record)

    def _remember(self, done: Done, once: Once) -> None:
        key = done.record.key
        self._delete["answers"].append((key, once.before, once.key))
        self._insert["answers"].append((key, once.key, once.at, once.digest, once.answer(done)))

    def _numbered(self, answers: dict[int, Done | Refusal]) -> dict[int, Done | Refusal]:
        """Answers with events, which get their numbers.

        The row of the latest number stays locked to the end of the transaction: numbers are committed in their order,
        so that nobody who has read up to one misses a smaller one that is committed later.
        """
        if not self._events:
            return {}
        (last,) = self._db.execute(
            "UPDATE numbers SET last=last+%s WHERE name='events' RETURNING last", (len(self._events),)
        ).fetchone()
        numbered: dict[int, list[StoredEvent]] = defaultdict(list)
        for number, (place, key, event) in enumerate(self._events, start=last - len(self._events) + 1):
            numbered[place].append(event._replace(id=number))
            self._insert["events"].append((key, *event[1:], number))
        found: dict[int, Done | Refusal] = {}
        for place, events in numbered.items():
            answer = answers[place]
            if isinstance(answer, Done):
                record = answer.record
                drifts = [event for event in events if event.kind == "drift"]
                if drifts and place in self._appended:
                    record = self._records[record.key] = record._replace(last_drift=drifts[-1])
                found[place] = Done(record, tuple(events))
        return found

    def _change(self, facts: Facts) -> None:
        """Everything is sent before anything is read, so that it costs one round trip."""
        db, gone = self._db, []
        for name, table, columns, condition in (
            ("uploads", "uploads", "stream, upload", "t.stream=w.stream AND t.upload=w.upload"),
            ("ids", "ids", "stream, before_row", "t.stream=w.stream AND t.row<w.before_row"),
            ("pending", "pending", "stream, id", "t.stream=w.stream AND t.id=w.id"),
            ("old pending", "pending", "stream, before", "t.stream=w.stream AND t.at<w.before"),
            ("answers", "answers", "stream, before, key", "t.stream=w.stream AND (t.at<w.before OR t.key=w.key)"),
        ):
            gone.append((table, delete(db, table, columns, condition, self._delete[name])))
        insert(db, "entries", _ENTRY, self._entries)
        for table in COLUMNS:
            columns = f"stream, {COLUMNS[table]}" + (", id" if table == "events" else "")
            insert(db, table, columns, self._insert[table])
            for key, *row in self._insert[table]:
                self._kept[key].sums.add(table, [row[:-1] if table == "events" else row])
        gone.append(("pending", drop_surplus(db, self._most)))
        watched = "ON CONFLICT (stream) DO UPDATE SET revision=excluded.revision, data=excluded.data,"
        insert(db, "watches", "stream, revision, data, digest", self._watches, f"{watched} digest=excluded.digest")
        gone += self._trim(facts)
        for table, cursor in gone:
            for key, *row in cursor.fetchall() if cursor is not None else ():
                self._kept[key].sums.take(table, [row])
        self._update()

    def _trim(self, facts: Facts) -> list[tuple[str, Any]]:
        """Put snapshots, thin those before them, and let go of entries, events and uploads that nothing needs."""
        if not self._trims:
            return []
        db = self._db
        put = "ON CONFLICT (stream, revision) DO UPDATE SET at=excluded.at, chain=excluded.chain,"
        rest = "status=excluded.status, digest=excluded.digest, data=excluded.data"
        insert(db, "snapshots", _SNAPSHOT, self._snapshots, f"{put} {rest}")
        dropped: Rows = []
        limits: Rows = []
        for operation in self._trims:
            key = operation.record.key
            revision = operation.record.stream_version
            found = [*(each for each in facts.snapshots[key] if each[0] != revision), (revision, operation.at)]
            oldest, kept = kept_snapshots(found, operation.trim_before, SNAPSHOTS_KEPT)
            dropped += [(key, each) for each, _ in found if each not in kept]
            if oldest:
                limits.append((key, oldest, operation.trim_rows, operation.trim_before))
        if dropped:
            columns = "stream, revision"
            one = "t.stream=w.stream AND t.revision=w.revision"
            db.execute(f"DELETE FROM snapshots t USING {unnest(columns)} WHERE {one}", arrays(columns, dropped))
        if limits:
            self._trim_entries(limits)
        tallies = [(operation, self._kept[operation.record.key].sums) for operation in self._trims]
        before = [(each.record.key, each.trim_before) for each, sums in tallies if sums.has("events")]
        old = (
            ", LATERAL (SELECT id FROM events e WHERE e.stream=w.stream AND e.at<w.before"
            f" ORDER BY id LIMIT {TRIM_ROWS}) x"
        )
        events = delete(db, "events", "stream, before", "t.id=x.id", before, old)
        before = [(each.record.key, each.trim_before) for each, sums in tallies if sums.has("uploads")]
        uploads = delete(db, "uploads", "stream, before", "t.stream=w.stream AND t.at<w.before", before)
        return [("events", events), ("uploads", uploads)]

    def _trim_entries(self, limits: Rows) -> None:
        columns = "stream, oldest, before_row, before"
        self._db.execute(
            f"DELETE FROM entries t USING {unnest(columns)}, LATERAL (SELECT revision FROM entries e"
            " WHERE e.stream=w.stream AND e.revision<=w.oldest AND e.first_row+e.rows<=w.before_row AND e.at<w.before"
            f" ORDER BY revision LIMIT {TRIM_ROWS}) x WHERE t.stream=w.stream AND t.revision=x.revision",
            arrays(columns, limits),
        )
        found = self._db.execute(
            f"SELECT w.stream, (SELECT min(revision) FROM entries e WHERE e.stream=w.stream) FROM {unnest('stream')}",
            arrays("stream", [limit[:1] for limit in limits]),
        )
        for key, first in found.fetchall():
            sums = self._kept[key].sums
            sums.begins = max(sums.begins, first or 0)

    def _update(self) -> None:
        """Each row once: a record that has changed together with its sums, then sums alone; then deleted streams."""
        db = self._db
        records: Rows = []
        for key, record in self._records.items():
            kept, columns = self._kept[key], columns_of(record)
            kept.digest = columns[-1]
            records.append((key, record.model_version, *columns, kept.sums.changed() or kept.sums.text()))
        for names, rows in (
            (f"key, {_CHANGED}, beside", records),
            ("key, beside", [(key, text) for key, kept in self._kept.items() if (text := kept.sums.changed())]),
        ):
            if rows:
                changed = ", ".join(f"{name}=w.{name}" for name in names.split(", ")[1:])
                db.execute(
                    f"UPDATE streams t SET {changed} FROM {unnest(names)} WHERE t.key=w.key", arrays(names, rows)
                )
        if self._graves:
            db.execute("DELETE FROM streams WHERE key=ANY(%s)", ([key for (key,) in self._graves],))
            insert(db, "graves", "stream", self._graves)
