"""What is kept of a stream beside its log, the sums that tell whether all of it is there, and where the log begins.

A row's own checksum would tell that it was altered, not that another one is missing. So a stream has a sum of its rows
for each table: a row that comes adds its digest, one that goes takes it away.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from service.store.base import DamagedError

SUM_BYTES = 16
COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "ids": "id, row",
        "pending": "id, at, payload, digest",
        "events": "revision, at, kind, detector, statistic, threshold, change_row, action, rows_used, feature, shift",
        "uploads": "upload, rows, at",
        "answers": "key, at, digest, body",
    }
)
"""Tables that are summed, in the order of the sums, and what of their rows counts; an event's id is the store's."""
_BEGIN_BYTES = 8
EMPTY = bytes(SUM_BYTES * len(COLUMNS)) + (1).to_bytes(_BEGIN_BYTES, "little")
"""Of a stream without such rows, whose log begins at revision 1."""
_LOOKED_UP_BY: Mapping[str, str] = MappingProxyType(
    {
        "ids": "sqlite_autoindex_ids_1",
        "pending": "sqlite_autoindex_pending_1",
        "events": "events_stream",
        "uploads": "sqlite_autoindex_uploads_1",
        "answers": "sqlite_autoindex_answers_1",
    }
)
"""The index through which rows are asked for: what it does not lead to is not there."""
_MODULUS = 1 << (8 * SUM_BYTES)


class RowSums:
    """The sums of one stream as numbers, whatever database its rows are in.

    Attributes:
        begins: First revision of the log that is kept.
    """

    def __init__(self, kept: bytes) -> None:
        self._kept = kept
        self._sums = _numbers(kept)
        self.begins = begins_at(kept)

    def has(self, table: str) -> bool:
        """Whether the stream has any rows there."""
        return self._sums[table] != 0

    def add(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Count rows that came, which have the columns of ``COLUMNS``."""
        self._sums[table] = (self._sums[table] + sum(_digest(table, row) for row in rows)) % _MODULUS

    def take(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Count rows that went."""
        self._sums[table] = (self._sums[table] - sum(_digest(table, row) for row in rows)) % _MODULUS

    def text(self) -> bytes:
        """What to keep of it."""
        return _text(self._sums, self.begins)

    def changed(self) -> bytes | None:
        """What to keep from here on; ``None`` if that is what is kept."""
        text = self.text()
        if text == self._kept:
            return None
        self._kept = text
        return text

    def verify(self, stream: str, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Compare the sum of a table with its rows.

        Raises:
            DamagedError: A row is missing, altered or one too many; names the table.
        """
        if sum(_digest(table, row) for row in rows) % _MODULUS != self._sums[table]:
            raise DamagedError(stream, None, f"what is kept beside its log was altered ({table})")


class Sums:
    """The sums of one stream in SQLite, changed along with its rows inside a transaction."""

    def __init__(self, db: sqlite3.Connection, key: int, kept: bytes) -> None:
        self._db = db
        self._key = key
        self._sums = RowSums(kept)

    def trimmed(self, first: int) -> None:
        """The log begins at this revision, or later."""
        self._sums.begins = max(self._sums.begins, first)

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows, which have the columns of ``COLUMNS``."""
        if not rows:
            return
        marks = ",".join("?" * (COLUMNS[table].count(",") + 2))
        statement = f"INSERT INTO {table} (stream, {COLUMNS[table]}) VALUES ({marks})"
        self._db.executemany(statement, [(self._key, *row) for row in rows])
        self._sums.add(table, rows)

    def delete(self, table: str, where: str, *values: Any) -> None:
        """Delete rows of the stream for which a condition holds."""
        if not self._sums.has(table):
            return
        statement = f"DELETE FROM {table} WHERE stream=? AND {where} RETURNING {COLUMNS[table]}"
        gone = self._db.execute(statement, (self._key, *values)).fetchall()
        self._sums.take(table, gone)

    def keep(self) -> None:
        """Write what has changed."""
        text = self._sums.changed()
        if text is not None:
            self._db.execute("UPDATE streams SET beside=? WHERE key=?", (text, self._key))


def verify_beside(db: sqlite3.Connection, stream: str, key: int, kept: bytes, tables: Iterable[str] = COLUMNS) -> None:
    """Compare the sums of a stream with its rows.

    Raises:
        DamagedError: A row is missing, altered or one too many; names the table.
    """
    sums = RowSums(kept)
    for table in tables:
        sums.verify(stream, table, rows_beside(db, table, key))


def begins_at(kept: bytes) -> int:
    """First revision of a log that is kept; one more than the last where none is."""
    return int.from_bytes(kept[-_BEGIN_BYTES:], "little")


def sum_all(db: sqlite3.Connection) -> None:
    """Write the sums of all streams, for a store that had none."""
    for key, version in db.execute("SELECT key, stream_version FROM streams").fetchall():
        (first,) = db.execute("SELECT min(revision) FROM entries WHERE stream=?", (key,)).fetchone()
        sums = RowSums(EMPTY)
        sums.begins = first or version + 1
        for table in COLUMNS:
            sums.add(table, rows_beside(db, table, key))
        db.execute("UPDATE streams SET beside=? WHERE key=?", (sums.text(), key))


def rows_beside(db: sqlite3.Connection, table: str, key: int) -> sqlite3.Cursor:
    """Rows of a stream in a summed table, with the columns of ``COLUMNS``."""
    return db.execute(f"SELECT {COLUMNS[table]} FROM {table} INDEXED BY {_LOOKED_UP_BY[table]} WHERE stream=?", (key,))


def _digest(table: str, row: Sequence[Any]) -> int:
    # what is written into a column of real numbers as an integer, or as NumPy's, is read as a float
    plain = [float(value) if isinstance(value, int | float) else value for value in row]
    text = repr((table, *plain)).encode()
    return int.from_bytes(blake2b(text, digest_size=SUM_BYTES).digest(), "little")


def _numbers(text: bytes) -> dict[str, int]:
    parts = (text[place * SUM_BYTES : (place + 1) * SUM_BYTES] for place in range(len(COLUMNS)))
    return dict(zip(COLUMNS, (int.from_bytes(part, "little") for part in parts), strict=True))


def _text(sums: Mapping[str, int], begins: int) -> bytes:
    numbers = (sums[table].to_bytes(SUM_BYTES, "little") for table in COLUMNS)
    return b"".join((*numbers, begins.to_bytes(_BEGIN_BYTES, "little")))
