"""A store in PostgreSQL read by another process, whether or not servers use it: nothing is written or locked."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from service.errors import ConfigurationError
from service.store.base import DamagedError, Entry, ModelRecord, StreamRecord
from service.store.beside import COLUMNS
from service.store.chain import bundle_digest, verify_chain
from service.store.checking import Checked, check_rows
from service.store.driver import Database
from service.store.postgres_link import connect_plainly
from service.store.postgres_schema import LAYOUT, layout_of
from service.store.postgres_writing import RECORD
from service.store.statements import to_record

PAGE_ENTRIES = 500
"""Log entries that are read at once."""


class DatabaseReader:
    """Records, log entries and models of a tenant, all from the moment of opening.

    Raises:
        ConfigurationError: The database cannot be reached, or has no store of the tenant that this version reads.
    """

    def __init__(self, database: Database) -> None:
        self._db = connect_plainly(database)
        try:
            self._db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            layout = layout_of(self._db, database.schema)
        except BaseException:
            self._db.close()
            raise
        if layout != LAYOUT:
            self._db.close()
            what = "has no store" if layout is None else f"has a store of layout {layout}, not {LAYOUT},"
            raise ConfigurationError(f"the database {database.place()} {what} of tenant {database.tenant}")

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> Any:
        """A cursor with what a statement selects, ``?`` in place of values."""
        return self._db.execute(statement.replace("?", "%s"), values)

    def models(self) -> list[ModelRecord]:
        """All versions of all models, by name and version."""
        rows = self.execute("SELECT name, version, digest, active FROM models ORDER BY name, version")
        return [ModelRecord._make(row) for row in rows]

    def bundle(self, name: str, version: int) -> bytes:
        """The bytes of a registered version.

        Raises:
            DamagedError: They are not what was registered.
        """
        row = self.execute("SELECT bundle, digest FROM models WHERE name=? AND version=?", (name, version)).fetchone()
        if row is None or bundle_digest(row[0]) != row[1]:
            raise DamagedError(None, None, f"the bundle of model {name}, version {version}, is missing or altered")
        return bytes(row[0])

    def streams(self, model: str) -> Iterator[StreamRecord]:
        """Streams of a model, by id."""
        return map(to_record, self.execute(f"SELECT {RECORD} FROM streams WHERE model=? ORDER BY stream", (model,)))

    def entries(self, record: StreamRecord, since: float) -> Iterator[Entry]:
        """Log entries of a stream that were committed at ``since`` (epoch seconds) or later, oldest first, verified."""
        revision = 0
        while True:
            rows = self.execute(
                "SELECT revision, kind, at, first_row, rows, payload, previous, chain FROM entries"
                " WHERE stream=? AND revision>? AND at>=? ORDER BY revision LIMIT ?",
                (record.key, revision, since, PAGE_ENTRIES),
            ).fetchall()
            if not rows:
                return
            for entry in map(Entry._make, rows):  # one by one, since a clock that was put back leaves gaps
                verify_chain(record.stream, (entry.revision - 1, entry.previous), [entry])
                yield entry
            revision = rows[-1][0]

    def close(self) -> None:
        """End reading."""
        self._db.close()


def check_database(database: Database, progress: Callable[[int], None] = lambda _done: None) -> Checked:
    """Verify every record, log entry, snapshot, waiting prediction and bundle of a tenant.

    Pages and indexes are PostgreSQL's to verify (``pg_amcheck``, data checksums).

    Raises:
        ConfigurationError: There is no store there, or one of another layout.
    """
    with closing(DatabaseReader(database)) as reader:

        def beside(table: str, key: int) -> Any:
            return reader.execute(f"SELECT {COLUMNS[table]} FROM {table} WHERE stream=?", (key,))

        return check_rows(reader, beside, progress)
