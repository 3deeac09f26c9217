"""The embedded store read by another process, whether or not a server has it open: nothing is written or locked."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from service.errors import ConfigurationError
from service.store.base import FORMAT_VERSION, DamagedError, Entry, ModelRecord, StreamRecord
from service.store.chain import bundle_digest, verify_chain, verify_rising
from service.store.schema import APPLICATION_ID, FILE_NAME, READER_PRAGMAS, connect_read_only, translate
from service.store.statements import to_record

PAGES_AT_ONCE = 4_096
"""Database pages that are copied at once."""
PAGE_ENTRIES = 500
"""Log entries that are read at once."""


def copy_store(source: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Copy a store that may be in use, as of one moment, into a directory that has none.

    Args:
        source: Its directory.
        target: Where to.
        progress: Told how many pages are left, and how many there are.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        with (
            closing(connect_read_only(source / FILE_NAME, READER_PRAGMAS)) as reader,
            closing(sqlite3.connect(target / FILE_NAME)) as writer,
        ):
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the moment that is copied
            reader.backup(writer, pages=PAGES_AT_ONCE, progress=lambda _status, left, of: progress(left, of), sleep=0)
            writer.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"cannot copy the store in {source} ({error}): acclimate fsck names damages"
        ) from error


class StoreReader:
    """Records, log entries and models of a data directory, all from the moment of opening.

    Raises:
        ConfigurationError: There is no store there, or it is foreign, damaged or too new.
    """

    def __init__(self, data_dir: Path) -> None:
        path = data_dir / FILE_NAME
        if not path.is_file():
            raise ConfigurationError(f"there is no store in {data_dir}: state the server's directory with --data-dir")
        try:
            self._db = connect_read_only(path, READER_PRAGMAS)
            try:
                application = self._db.execute("PRAGMA application_id").fetchone()[0]
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
                self._db.execute("BEGIN")
                self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the moment that is read from
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise ConfigurationError(f"cannot read the store {path} ({error}): restore it from a backup") from error
        if application != APPLICATION_ID or version > FORMAT_VERSION:
            self._db.close()
            raise ConfigurationError(
                f"{path} is no store that this acclimate reads (application {application:#x}, format {version}): "
                "choose another directory with --data-dir, or use the version that wrote it"
            )

    def models(self) -> list[ModelRecord]:
        """All versions of all models, by name and version."""
        rows = self._select("SELECT name, version, digest, active FROM models ORDER BY name, version", ())
        return [ModelRecord(name, version, digest, bool(active)) for name, version, digest, active in rows]

    def bundle(self, name: str, version: int) -> bytes:
        """The bytes of a registered version.

        Raises:
            DamagedError: They are not what was registered.
        """
        rows = self._select("SELECT bundle, digest FROM models WHERE name=? AND version=?", (name, version))
        for bundle, digest in rows:
            if bundle_digest(bundle) == digest:
                return bytes(bundle)
        raise DamagedError(None, None, f"the bundle of model {name}, version {version}, is missing or altered")

    def streams(self, model: str) -> Iterator[StreamRecord]:
        """Streams of a model, by id."""
        rows = self._select(
            "SELECT key, stream, model, model_version, config, metadata, stream_version, rows_seen, chain, state,"
            " last_drift, created_at, updated_at, digest FROM streams WHERE model=? ORDER BY stream",
            (model,),
        )
        return map(to_record, rows)

    def entries(self, record: StreamRecord, since: float) -> Iterator[Entry]:
        """Log entries of a stream that were committed at ``since`` (epoch seconds) or later, oldest first, verified."""
        revision = 0
        while True:
            rows = self._select(
                "SELECT revision, kind, at, first_row, rows, payload, previous, chain FROM entries"
                " WHERE stream=? AND revision>? AND at>=? ORDER BY revision LIMIT ?",
                (record.key, revision, since, PAGE_ENTRIES),
            )
            entries = [Entry._make(row) for row in rows]
            if not entries:
                return
            verify_rising(revision, [entry.revision for entry in entries])
            for entry in entries:  # one by one: a clock that was put back leaves gaps in what ``since`` selects
                verify_chain(record.stream, (entry.revision - 1, entry.previous), [entry])
            yield from entries
            revision = entries[-1].revision

    def close(self) -> None:
        """End reading."""
        self._db.close()

    def _select(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error
