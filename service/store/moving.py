"""Streams moved from one set of stores to another, with all that belongs to them, and compared afterwards."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from service.errors import ConfigurationError
from service.store.base import DamagedError, StreamRecord
from service.store.chain import verify_rising
from service.store.schema import FILE_NAME, READER_PRAGMAS, connect, open_writer
from service.store.sqlite import SqliteStore
from service.store.statements import MANY, columns_of, to_record

STREAMS_A_COMMIT = 500
_RECORD = (
    "key, stream, model, model_version, config, metadata, stream_version, rows_seen, chain, state, last_drift,"
    " created_at, updated_at, digest"
)
_OWNED = {
    "entries": "revision, kind, at, first_row, rows, payload, previous, chain",
    "snapshots": "revision, at, chain, status, digest, data",
    "ids": "id, row",
    "pending": "id, at, payload, digest",
    "watches": "revision, data, digest",
    "uploads": "upload, rows, at",
    "answers": "key, at, digest, body",
}
"""Tables of what belongs to a stream, but for events, and their columns after the stream's key."""
_EVENT = "revision, at, kind, detector, statistic, threshold, change_row, action, rows_used, feature, shift"


class _Target(NamedTuple):
    store: sqlite3.Connection
    directory: Path


@contextmanager
def moved_streams(
    sources: Sequence[Path], targets: Sequence[Path], owner: Callable[[str], int], progress: Callable[[int, int], None]
) -> Iterator[int]:
    """Copy all streams and models of some stores into new ones, and check that they arrived.

    Nobody else can open the sources until the end of the context: within it the caller makes the new ones count.

    Events keep their order and get new, higher ids: those of two stores may be the same. Webhooks begin with what
    happens afterwards.

    Args:
        sources: Directories of stores that nobody else has open.
        targets: Directories to make them in.
        owner: Which of the targets a stream, or an upload to many, belongs to, by its name.
        progress: Told how many streams are done, and how many there are.

    Yields:
        Number of streams.

    Raises:
        ConfigurationError: A source is in use, or cannot be read.
        DamagedError: A stream is not what was written; nothing was made that anybody would use.
    """
    with ExitStack() as stack:
        for source in sources:
            stack.callback(SqliteStore(source).close)  # holds its lock, and brings it to the present format
        readers = [stack.enter_context(closing(connect(path / FILE_NAME, READER_PRAGMAS))) for path in sources]
        made = []
        for directory in targets:
            directory.mkdir(parents=True)
            made.append(_Target(stack.enter_context(closing(open_writer(directory / FILE_NAME))), directory))
        _copy_models(readers, made)
        webhooks = readers[0].execute("SELECT id, url, kinds, secret, created_at, 0, gone FROM webhooks").fetchall()
        first_event = 1 + max(
            (
                _one(reader, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name='events'")
                for reader in readers
            ),
            default=0,
        )
        for target in made:
            target.store.execute("DELETE FROM sqlite_sequence WHERE name='events'")
            target.store.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (first_event - 1,))
        total = sum(_one(reader, "SELECT count(*) FROM streams") for reader in readers)
        done = 0
        for reader in readers:
            _copy_uploads(reader, made, owner)
            for group in _groups(reader):
                for target in made:
                    target.store.execute("BEGIN IMMEDIATE")
                for record in group:
                    _copy_stream(reader, made[owner(record.stream)].store, record)
                for target in made:
                    target.store.execute("COMMIT")
                done += len(group)
                progress(done, total)
        for target in made:
            target.store.executemany(
                "INSERT INTO webhooks (id, url, kinds, secret, created_at, cursor, gone) VALUES (?,?,?,?,?,?,?)",
                webhooks,
            )
            target.store.execute("UPDATE webhooks SET cursor=(SELECT seq FROM sqlite_sequence WHERE name='events')")
            target.store.close()
        _verify(targets, total)
        yield total


def _one(reader: sqlite3.Connection, statement: str) -> int:
    return int(reader.execute(statement).fetchone()[0])


def _groups(reader: sqlite3.Connection) -> Iterator[list[StreamRecord]]:
    after = 0
    while True:
        rows = reader.execute(
            f"SELECT {_RECORD} FROM streams WHERE key>? ORDER BY key LIMIT ?",
            (after, STREAMS_A_COMMIT),
        ).fetchall()
        if not rows:
            return
        verify_rising(after, [row[0] for row in rows])
        yield [to_record(row) for row in rows]
        after = rows[-1][0]


def _copy_models(readers: Sequence[sqlite3.Connection], targets: Sequence[_Target]) -> None:
    columns = "name, version, digest, active, bundle"
    stated = [reader.execute("SELECT name, version, digest FROM models ORDER BY 1, 2").fetchall() for reader in readers]
    if any(models != stated[0] for models in stated):
        raise ConfigurationError(
            "the shards have different models: start the server once with all --model, then repeat"
        )
    rows = readers[0].execute(f"SELECT {columns} FROM models").fetchall()
    for target in targets:
        target.store.executemany(f"INSERT INTO models ({columns}) VALUES (?,?,?,?,?)", rows)


def _copy_uploads(reader: sqlite3.Connection, targets: Sequence[_Target], owner: Callable[[str], int]) -> None:
    """How far uploads to many streams have got."""
    for upload, rows, at in reader.execute("SELECT upload, rows, at FROM uploads WHERE stream=?", (MANY,)).fetchall():
        targets[owner(upload)].store.execute(
            "INSERT INTO uploads (stream, upload, rows, at) VALUES (?,?,?,?)", (MANY, upload, rows, at)
        )


def _copy_stream(reader: sqlite3.Connection, target: sqlite3.Connection, record: StreamRecord) -> None:
    cursor = target.execute(
        "INSERT INTO streams (stream, model, model_version, config, metadata, stream_version, rows_seen, chain, state,"
        " last_drift, created_at, updated_at, digest) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (*record[1:4], *columns_of(record)),
    )
    key = cursor.lastrowid or 0
    for table, columns in _OWNED.items():
        marks = ",".join("?" * (columns.count(",") + 2))
        rows = reader.execute(
            f"SELECT {columns} FROM {table} WHERE stream=? ORDER BY rowid"
            if table == "pending"
            else f"SELECT {columns} FROM {table} WHERE stream=?",
            (record.key,),
        )
        target.executemany(f"INSERT INTO {table} (stream, {columns}) VALUES ({marks})", ((key, *row) for row in rows))
    (sums,) = reader.execute("SELECT beside FROM streams WHERE key=?", (record.key,)).fetchone()
    target.execute("UPDATE streams SET beside=? WHERE key=?", (sums, key))
    renamed: dict[int, int] = {}
    for number, *event in reader.execute(
        f"SELECT id, {_EVENT} FROM events WHERE stream=? ORDER BY id", (record.key,)
    ).fetchall():
        inserted = target.execute(
            f"INSERT INTO events (stream, {_EVENT}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", (key, *event)
        )
        renamed[number] = inserted.lastrowid or 0
    drift = record.last_drift
    if drift is not None and drift.id in renamed:
        values = columns_of(record._replace(last_drift=drift._replace(id=renamed[drift.id])))
        target.execute("UPDATE streams SET last_drift=?, digest=? WHERE key=?", (values[6], values[9], key))


def _verify(targets: Sequence[Path], total: int) -> None:
    """Open the new stores as a server would, and load every stream."""
    found = 0
    for directory in targets:
        store = SqliteStore(directory)
        try:
            after = ""
            while page := store.page("", None, STREAMS_A_COMMIT, after):
                for record, _ in page:
                    if store.load(record.stream) is None:
                        raise DamagedError(record.stream, None, "it did not arrive")
                    found += 1
                after = page[-1][0].stream
        finally:
            store.close()
    if found != total:
        raise DamagedError(None, None, f"{found} of {total} streams arrived")
