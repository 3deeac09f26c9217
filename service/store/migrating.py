"""The stores of a data directory moved into a database, in one transaction, and compared row by row before it ends."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from service.errors import ConfigurationError
from service.store.base import DamagedError
from service.store.checking import check_store
from service.store.driver import Database, driver, first_line, quoted
from service.store.postgres_bulk import TYPES
from service.store.postgres_link import connect_plainly
from service.store.postgres_schema import layout_of, prepare
from service.store.postgres_writing import RECORD
from service.store.schema import FILE_NAME, READER_PRAGMAS, connect
from service.store.sqlite import SqliteStore
from service.store.statements import MANY, columns_of, to_record

FETCHED_ROWS = 500
STEP_ROWS = 1_000
"""Rows between two words of progress."""


class Table(NamedTuple):
    """A table that moves.

    Attributes:
        name: Of it.
        columns: All of them.
        order: Columns that tell its rows apart.
        types: Of columns that are not what their name says elsewhere.
    """

    name: str
    columns: str
    order: str
    types: Mapping[str, str] = MappingProxyType({})


STREAMS = Table("streams", f"{RECORD}, beside", "key", {"stream": "text"})
OWNED = (
    Table("entries", "stream, revision, kind, at, first_row, rows, payload, previous, chain", "stream, revision"),
    Table("snapshots", "stream, revision, at, chain, status, digest, data", "stream, revision"),
    Table("ids", "stream, id, row", "stream, id"),
    Table("pending", "stream, number, id, at, payload, digest", "stream, number"),
    Table("watches", "stream, revision, data, digest", "stream"),
    Table("uploads", "stream, upload, rows, at", "stream, upload"),
    Table("answers", "stream, key, at, digest, body", "stream, key", {"key": "text"}),
    Table(
        "events",
        "stream, id, revision, at, kind, detector, statistic, threshold, change_row, action, rows_used, feature, shift",
        "stream, id",
        {"id": "bigint"},
    ),
)
"""Tables of what belongs to a stream; its key comes first."""
MODELS = Table(
    "models", "name, version, digest, active, bundle", "name, version",
    {"version": "bigint", "digest": "text", "active": "boolean", "bundle": "bytea"},
)  # fmt: skip
WEBHOOKS = Table(
    "webhooks", "id, url, kinds, secret, created_at, cursor, gone", "id",
    {"url": "text", "kinds": "text", "secret": "bytea", "cursor": "bigint", "gone": "boolean"},
)  # fmt: skip


SHARED = (MODELS, WEBHOOKS)
"""Tables that all shards have alike."""


class Moved(NamedTuple):
    """What has arrived, and is the same there: rows by table, over all tenants."""

    tenants: int
    rows: dict[str, int]


@contextmanager
def moved_stores(
    sources: Mapping[str, Sequence[Path]], database: Database, progress: Callable[[str, int, int], None]
) -> Iterator[Moved]:
    """Copy stores into a database that has none, and compare every row with what it was.

    All of it is one transaction, which is committed at the end of the context: a run that is cut short has changed
    nothing. Nobody else can open the sources meanwhile. The events of a store that is alone keep their numbers; those
    of several shards get new, higher ones, as numbers of two shards may be the same.

    Args:
        sources: Directories of a tenant's shards, by tenant.
        database: Of the default tenant.
        progress: Told of what, how many rows are done, and how many there are.

    Yields:
        What has arrived.

    Raises:
        ConfigurationError: A source is in use or cannot be read, or the database has a store already.
        DamagedError: A source is damaged, or what has arrived is not what was there; nothing was changed.
    """
    rows: dict[str, int] = {}
    with ExitStack() as stack:
        for directory in (each for directories in sources.values() for each in directories):
            stack.callback(SqliteStore(directory).close)  # holds its lock, and brings it to the present format
            _check(directory, progress)
        connection = stack.enter_context(closing(connect_plainly(database)))
        try:
            with connection.transaction():
                connection.execute("SET LOCAL synchronous_commit = on")
                for tenant, directories in sources.items():
                    place = database.of_tenant(tenant)
                    with ExitStack() as reading:
                        shards = [reading.enter_context(closing(_open(each))) for each in directories]
                        _begin(connection, place)
                        _Move(connection, shards, tenant, rows, progress).run()
                yield Moved(len(sources), rows)
        except driver().Error as error:
            raise ConfigurationError(
                f"the database {database.place()} did not take the streams ({first_line(error)}): nothing was changed"
            ) from error


def _check(directory: Path, progress: Callable[[str, int, int], None]) -> None:
    """Look a source through: what is compared afterwards is only as good as this."""
    found = check_store(directory, lambda done: progress(f"check {directory}", done, done))
    for damage in found.damages:
        raise DamagedError(damage.stream, damage.revision, damage.reason)


def _open(directory: Path) -> sqlite3.Connection:
    db = connect(directory / FILE_NAME, READER_PRAGMAS)
    db.execute("BEGIN")
    return db


def _begin(connection: Any, place: Database) -> None:
    """A new store, into which what follows goes."""
    connection.execute("SELECT set_config('search_path', %s, true)", (quoted(place.schema),))
    if layout_of(connection, place.schema) is not None:
        raise ConfigurationError(
            f"the database {place.place()} has a store of tenant {place.tenant} already: name an empty one, or remove "
            f"it (DROP SCHEMA {place.schema} CASCADE)"
        )
    prepare(connection, place)


class _Move:
    """One tenant's store."""

    def __init__(
        self,
        connection: Any,
        shards: Sequence[sqlite3.Connection],
        tenant: str,
        rows: dict[str, int],
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._db = connection
        self._shards = shards
        self._tenant = tenant
        self._rows = rows
        self._progress = progress
        self._keys: list[dict[int, int]] = []
        self._last_event = max(_one(shard, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name='events'")
                               for shard in shards)  # fmt: skip
        self._events: list[dict[int, int]] = [{} for _ in shards]

    def run(self) -> None:
        """Copy and compare."""
        self._number()
        for table in (STREAMS, *OWNED, MODELS, WEBHOOKS):
            total = sum(1 for _ in self._source(table)) if table in SHARED else self._count(table)
            self._copy(table, total)
            self._compare(table, total)
            self._rows[table.name] = self._rows.get(table.name, 0) + total
            self._db.execute(f"ANALYZE {table.name}")
        for name, column in (("streams", "key"), ("pending", "number")):
            self._db.execute(
                f"SELECT setval(pg_get_serial_sequence('{name}', '{column}'), coalesce(max({column}), 0) + 1, false)"
                f" FROM {name}"
            )
        self._db.execute("UPDATE numbers SET last=%s WHERE name='events'", (self._last_event,))

    def _number(self) -> None:
        """Keys of streams, which are the shards' own, and numbers of events, where several shards have the same."""
        key = 0
        for shard in self._shards:
            keys: dict[int, int] = {}
            for (old,) in shard.execute("SELECT key FROM streams ORDER BY key"):
                key += 1
                keys[old] = key
            self._keys.append(keys)
        if len(self._shards) > 1:
            for events, shard in zip(self._events, self._shards, strict=True):
                for (old,) in shard.execute("SELECT id FROM events ORDER BY id"):
                    self._last_event += 1
                    events[old] = self._last_event

    def _count(self, table: Table) -> int:
        many = f" OR stream={MANY}" if table.name == "uploads" else ""
        return sum(_one(each, f"SELECT count(*) FROM {table.name}{_living(table)}{many}") for each in self._shards)

    def _source(self, table: Table) -> Iterator[tuple[Any, ...]]:
        """Rows as they are to arrive, in their order."""
        if table in SHARED:
            yield from self._kept_for_all(table)
            return
        if table.name == "uploads":
            query = f"SELECT {table.columns} FROM uploads WHERE stream={MANY}"
            yield from sorted(row for shard in self._shards for row in shard.execute(query))
        number = 0
        for keys, events, shard in zip(self._keys, self._events, self._shards, strict=True):
            for row in shard.execute(
                f"SELECT {table.columns} FROM {table.name}{_living(table)} ORDER BY {table.order}"
            ):
                values = [keys[row[0]], *row[1:]]
                if table is STREAMS and events:
                    values = _renumbered(values, events)
                elif table.name == "events" and events:
                    values[1] = events[row[1]]
                elif table.name == "pending":
                    number += 1
                    values[1] = number
                yield tuple(values)

    def _kept_for_all(self, table: Table) -> Iterator[tuple[Any, ...]]:
        """Models and webhooks, which all shards have alike."""
        found = [
            shard.execute(f"SELECT {table.columns} FROM {table.name} ORDER BY {table.order}").fetchall()
            for shard in self._shards
        ]
        if table is MODELS and any(models != found[0] for models in found):
            raise ConfigurationError(
                "the shards have different models: start the server once with all --model, then repeat"
            )
        booleans = [place for place, name in enumerate(table.columns.split(", ")) if _type(table, name) == "boolean"]
        for row in found[0]:
            values = [bool(value) if place in booleans else value for place, value in enumerate(row)]
            if table is WEBHOOKS and len(self._shards) > 1:
                values[5] = self._last_event  # each shard had one of its own
            yield tuple(values)

    def _copy(self, table: Table, total: int) -> None:
        what = f"copy {table.name} of {self._tenant}"
        with self._db.cursor() as cursor, cursor.copy(
            f"COPY {table.name} ({table.columns}) FROM STDIN (FORMAT BINARY)"
        ) as copy:  # fmt: skip
            copy.set_types([_type(table, name) for name in table.columns.split(", ")])
            for done, row in enumerate(self._source(table), start=1):
                copy.write_row(row)
                if done % STEP_ROWS == 0:
                    self._progress(what, done, total)
        self._progress(what, total, total)

    def _compare(self, table: Table, total: int) -> None:
        """Row by row, in their order, what was there with what is there now."""
        what = f"compare {table.name} of {self._tenant}"
        with self._db.cursor(name="compared") as cursor:
            cursor.itersize = FETCHED_ROWS
            cursor.execute(f"SELECT {table.columns} FROM {table.name} ORDER BY {table.order}")
            arrived = iter(cursor)
            done = 0
            for row in self._source(table):
                if next(arrived, None) != row:
                    raise DamagedError(None, None, f"a row of {table.name} of tenant {self._tenant} did not arrive")
                done += 1
                if done % STEP_ROWS == 0:
                    self._progress(what, done, total)
            if next(arrived, None) is not None or done != total:
                raise DamagedError(None, None, f"{table.name} of tenant {self._tenant} has other rows than it had")
        self._progress(what, total, total)


def _living(table: Table) -> str:
    """Rows of deleted streams, which are cleared away later, stay behind."""
    return "" if table is STREAMS else " WHERE stream IN (SELECT key FROM streams)"


def _type(table: Table, name: str) -> str:
    return table.types.get(name) or TYPES[name]


def _renumbered(values: list[Any], events: Mapping[int, int]) -> list[Any]:
    """A stream's row whose last drift has the number that it gets."""
    record = to_record(values[:14])
    drift = record.last_drift
    if drift is None or drift.id not in events:
        return values
    columns = columns_of(record._replace(last_drift=drift._replace(id=events[drift.id])))
    return [*values[:10], columns[6], *values[11:13], columns[9], values[14]]


def _one(db: sqlite3.Connection, statement: str) -> int:
    return int(db.execute(statement).fetchone()[0])
