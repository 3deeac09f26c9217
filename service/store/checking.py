"""A store looked through from end to end, beside a running server or without one: what does not hold is named."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from service.errors import ConfigurationError
from service.store.base import FORMAT_VERSION, DamagedError, Entry, InputWatch, Pending, StreamRecord
from service.store.beside import COLUMNS, RowSums, begins_at, rows_beside
from service.store.chain import bundle_digest, verify_chain, verify_pending, verify_rising, verify_watch
from service.store.schema import APPLICATION_ID, FILE_NAME, READER_PRAGMAS, connect_read_only
from service.store.statements import to_record, to_snapshot

_PAGE_ENTRIES = 500
_PROBLEMS_MAX = 100
"""Most complaints of SQLite about one file that are told."""
_RECORD = (
    "SELECT key, stream, model, model_version, config, metadata, stream_version, rows_seen, chain, state, last_drift,"
    " created_at, updated_at, digest, beside FROM streams WHERE key>? ORDER BY key LIMIT 1"
)


class Damage(NamedTuple):
    """Something that is not what was written.

    Attributes:
        stream: Whose; ``None`` where it is nobody's.
        revision: Where it shows, if that is known.
        reason: What it is.
    """

    stream: str | None
    revision: int | None
    reason: str


class Checked(NamedTuple):
    """What was looked at."""

    streams: int
    entries: int
    models: int
    damages: list[Damage]


def check_store(directory: Path, progress: Callable[[int], None] = lambda _done: None) -> Checked:
    """Verify pages and indexes, and every record, log entry, snapshot, waiting prediction and bundle.

    Args:
        directory: Of the store.
        progress: Told how many streams are done.

    Raises:
        ConfigurationError: There is no store there, or one of a newer or foreign format.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise ConfigurationError(f"there is no store in {directory}: state the server's directory with --data-dir")
    try:
        db = connect_read_only(path, READER_PRAGMAS)
    except sqlite3.Error as error:
        return Checked(0, 0, 0, [Damage(None, None, f"{path} cannot be read ({error})")])
    with closing(db):
        try:
            _check_kind(db, path)
            db.execute("BEGIN")
            return _check(db, progress)
        except sqlite3.Error as error:
            return Checked(0, 0, 0, [Damage(None, None, f"{path} cannot be read ({error})")])


def _check_kind(db: sqlite3.Connection, path: Path) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID or version > FORMAT_VERSION:
        raise ConfigurationError(f"{path} is no store that this acclimate reads: use the version that wrote it")
    if version < FORMAT_VERSION:
        raise ConfigurationError(f"{path} has format {version}: start the server once, which brings it up to date")


def _check(db: sqlite3.Connection, progress: Callable[[int], None]) -> Checked:
    damages = [
        Damage(None, None, str(row[0]))
        for row in db.execute(f"PRAGMA integrity_check({_PROBLEMS_MAX})").fetchall()
        if row[0] != "ok"
    ]
    found = check_rows(db, lambda table, key: rows_beside(db, table, key), progress)
    return found._replace(damages=[*damages, *found.damages])


def check_rows(
    db: Any, beside: Callable[[str, int], Iterable[Sequence[Any]]], progress: Callable[[int], None]
) -> Checked:
    """Verify every record, log entry, snapshot, waiting prediction, sum and bundle.

    Args:
        db: A connection, inside a transaction that sees one moment, whose statements have ``?`` for values.
        beside: Rows of a summed table that belong to a stream's key.
        progress: Told how many streams are done.
    """
    damages: list[Damage] = []
    streams = entries = key = 0
    while (row := db.execute(_RECORD, (key,)).fetchone()) is not None:
        try:
            verify_rising(key, [row[0]])
        except DamagedError as error:
            damages.append(_damage(error))
            break
        key, streams = row[0], streams + 1
        found, count = _check_stream(db, beside, row)
        damages += found
        entries += count
        progress(streams)
    models = db.execute("SELECT name, version, digest, bundle, active FROM models").fetchall()
    damages += [
        Damage(None, None, f"the bundle of model {name}, version {version}, was altered")
        for name, version, digest, bundle, _ in models
        if bundle_digest(bundle) != digest
    ]
    return Checked(streams, entries, len(models), damages)


def _check_stream(
    db: Any, beside: Callable[[str, int], Iterable[Sequence[Any]]], row: Sequence[Any]
) -> tuple[list[Damage], int]:
    """What is wrong with a stream, and how many log entries it has."""
    try:
        record = to_record(row)
    except DamagedError as error:
        return [_damage(error)], 0
    damages: list[Damage] = []
    chains: dict[int, bytes] = {}
    entries = 0
    for check in (_check_log, _check_beside):
        try:
            entries += check(db, record, chains)
        except DamagedError as error:
            damages.append(_damage(error))
    for table in COLUMNS:
        try:
            RowSums(row[14]).verify(record.stream, table, beside(table, record.key))
        except DamagedError as error:
            damages.append(_damage(error))
    return damages, entries


def _check_log(db: Any, record: StreamRecord, chains: dict[int, bytes]) -> int:
    """Follow the log to where the stream stands; ``chains`` is told the snapshots' revisions and fills in theirs."""
    wanted = {revision for (revision,) in db.execute("SELECT revision FROM snapshots WHERE stream=?", (record.key,))}
    at: tuple[int, bytes] | None = None
    count = 0
    for page in _pages(db, record.key):
        at = verify_chain(record.stream, at or (page[0].revision - 1, page[0].previous), page)
        chains |= {entry.revision: entry.chain for entry in page if entry.revision in wanted}
        count += len(page)
    if at is None and record.stream_version and record.stream_version not in wanted:
        raise DamagedError(record.stream, record.stream_version, "its log is missing")
    (kept,) = db.execute("SELECT beside FROM streams WHERE key=?", (record.key,)).fetchone()
    first = begins_at(kept)
    if first > record.stream_version + 1:
        raise DamagedError(record.stream, record.stream_version, "its log is said to begin after its end")
    (found,) = db.execute("SELECT min(revision) FROM entries WHERE stream=?", (record.key,)).fetchone()
    if (found or record.stream_version + 1) > first <= record.stream_version:
        raise DamagedError(record.stream, first, "its log entry is missing")
    if at is not None and at[0] != record.stream_version:
        raise DamagedError(record.stream, at[0] + 1, f"its log ends before revision {record.stream_version}")
    if at is not None and at[1] != record.chain:
        raise DamagedError(record.stream, at[0], "its log does not end where the stream stands")
    return count


def _check_beside(db: Any, record: StreamRecord, chains: dict[int, bytes]) -> int:
    """Snapshots, what is known of inputs, and predictions that wait; no entries are counted."""
    query = "SELECT revision, chain, status, data, digest FROM snapshots WHERE stream=? ORDER BY revision"
    for row in db.execute(query, (record.key,)):
        snapshot = to_snapshot(record, row)
        if chains.get(snapshot.revision, snapshot.chain) != snapshot.chain:
            raise DamagedError(record.stream, snapshot.revision, "its snapshot does not belong to its log")
    for *watch, digest in db.execute("SELECT revision, data, digest FROM watches WHERE stream=?", (record.key,)):
        verify_watch(record.stream, InputWatch(*watch), digest)
    for *row, digest in db.execute("SELECT id, at, payload, digest FROM pending WHERE stream=?", (record.key,)):
        verify_pending(record.stream, Pending(*row), digest)
    return 0


def _pages(db: Any, key: int) -> Iterator[list[Entry]]:
    after = -1
    while True:
        rows = db.execute(
            "SELECT revision, kind, at, first_row, rows, payload, previous, chain FROM entries"
            " WHERE stream=? AND revision>? ORDER BY revision LIMIT ?",
            (key, after, _PAGE_ENTRIES),
        ).fetchall()
        if not rows:
            return
        yield [Entry._make(row) for row in rows]
        after = rows[-1][0]


def _damage(error: DamagedError) -> Damage:
    return Damage(error.stream, error.revision, error.reason)
