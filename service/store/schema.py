"""The SQLite file: its layout, how it is opened, and what its errors mean."""

import os
import sqlite3
from pathlib import Path

from service.errors import ConfigurationError, ServiceError, StoreFullError, UnavailableError
from service.store.base import FORMAT_VERSION, DamagedError
from service.store.beside import EMPTY, sum_all

APPLICATION_ID = 0x41636C69
"""``Acli``: marks the file as ours, so that another program's database is not taken for a store."""
FILE_NAME = "streams.sqlite3"

TABLES = """
CREATE TABLE streams (
  key INTEGER PRIMARY KEY AUTOINCREMENT,
  stream TEXT NOT NULL UNIQUE,
  model TEXT NOT NULL,
  model_version INTEGER NOT NULL,
  config TEXT NOT NULL,
  metadata TEXT NOT NULL,
  stream_version INTEGER NOT NULL,
  rows_seen INTEGER NOT NULL,
  chain BLOB NOT NULL,
  state TEXT NOT NULL,
  last_drift TEXT NOT NULL,
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL,
  digest BLOB NOT NULL
) STRICT;
CREATE INDEX streams_model ON streams (model, stream);
CREATE TABLE entries (
  stream INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  kind TEXT NOT NULL,
  at REAL NOT NULL,
  first_row INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  payload BLOB NOT NULL,
  previous BLOB NOT NULL,
  chain BLOB NOT NULL,
  PRIMARY KEY (stream, revision)
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
  stream INTEGER PRIMARY KEY,
  revision INTEGER NOT NULL,
  chain BLOB NOT NULL,
  status TEXT NOT NULL,
  digest BLOB NOT NULL,
  data BLOB NOT NULL
) STRICT;
CREATE TABLE ids (
  stream INTEGER NOT NULL,
  id TEXT NOT NULL,
  row INTEGER NOT NULL,
  PRIMARY KEY (stream, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX ids_row ON ids (stream, row);
CREATE TABLE pending (
  number INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL,
  id TEXT NOT NULL,
  at REAL NOT NULL,
  payload BLOB NOT NULL,
  digest BLOB NOT NULL,
  UNIQUE (stream, id)
) STRICT;
CREATE INDEX pending_at ON pending (stream, at);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  stream INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  at REAL NOT NULL,
  kind TEXT NOT NULL,
  detector TEXT,
  statistic REAL,
  threshold REAL,
  change_row INTEGER,
  action TEXT,
  rows_used INTEGER
) STRICT;
CREATE INDEX events_stream ON events (stream, id);
CREATE TABLE models (
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  digest TEXT NOT NULL,
  active INTEGER NOT NULL,
  bundle BLOB NOT NULL,
  PRIMARY KEY (name, version)
) STRICT;
CREATE TABLE graves (stream INTEGER PRIMARY KEY) STRICT;
"""

WATCHES = """
CREATE TABLE watches (
  stream INTEGER PRIMARY KEY,
  revision INTEGER NOT NULL,
  data BLOB NOT NULL,
  digest BLOB NOT NULL
) STRICT;
ALTER TABLE events ADD COLUMN feature TEXT;
ALTER TABLE events ADD COLUMN shift REAL;
"""
UPLOADS = """
CREATE TABLE uploads (
  stream INTEGER NOT NULL,
  upload TEXT NOT NULL,
  rows INTEGER NOT NULL,
  at REAL NOT NULL,
  PRIMARY KEY (stream, upload)
) STRICT, WITHOUT ROWID;
"""
HISTORY = """
CREATE TABLE history (
  stream INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  at REAL NOT NULL,
  chain BLOB NOT NULL,
  status TEXT NOT NULL,
  digest BLOB NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (stream, revision)
) STRICT;
INSERT INTO history (stream, revision, at, chain, status, digest, data)
  SELECT s.stream, s.revision, t.updated_at, s.chain, s.status, s.digest, s.data
  FROM snapshots s JOIN streams t ON t.key=s.stream;
DROP TABLE snapshots;
ALTER TABLE history RENAME TO snapshots;
CREATE TABLE answers (
  stream INTEGER NOT NULL,
  key TEXT NOT NULL,
  at REAL NOT NULL,
  digest BLOB NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (stream, key)
) STRICT;
CREATE INDEX answers_at ON answers (stream, at);
CREATE TABLE webhooks (
  id TEXT PRIMARY KEY,
  url TEXT NOT NULL,
  kinds TEXT NOT NULL,
  secret BLOB NOT NULL,
  created_at REAL NOT NULL,
  cursor INTEGER NOT NULL,
  gone INTEGER NOT NULL
) STRICT;
CREATE INDEX streams_version ON streams (model, model_version, stream);
"""
SUMS = f"""
ALTER TABLE streams ADD COLUMN beside BLOB NOT NULL DEFAULT (x'{EMPTY.hex()}');
"""
UPGRADES = {1: WATCHES, 2: UPLOADS, 3: HISTORY, 4: SUMS}
"""What makes the next format of each one; a new file begins with ``TABLES``, format 1."""

WRITER_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "fullfsync=ON",
    "secure_delete=ON",  # a deleted stream is gone from the disk, not only from the index
    "journal_size_limit=67108864",
    "cache_size=-16384",
    "trusted_schema=OFF",
)
READER_PRAGMAS = ("query_only=ON", "wal_autocheckpoint=0", "cache_size=-4096", "trusted_schema=OFF")
BUSY_SECONDS = 5.0


def connect(path: Path, pragmas: tuple[str, ...]) -> sqlite3.Connection:
    """A connection without implicit transactions; its user sees to it that one thread at a time is in it."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    return _prepared(connection, pragmas)


def _prepared(connection: sqlite3.Connection, pragmas: tuple[str, ...]) -> sqlite3.Connection:
    try:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()
    except UnicodeDecodeError as error:  # SQLite quotes a damaged table's text in its message
        connection.close()
        raise sqlite3.DatabaseError("its tables are damaged") from error
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def connect_read_only(path: Path, pragmas: tuple[str, ...]) -> sqlite3.Connection:
    """A connection that can change nothing and never checkpoints, beside a running server or without one.

    Where the directory cannot be written to, a store that was closed properly is read as a file that nobody changes.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    if not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists():
        uri += "&immutable=1"
    return _prepared(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None), pragmas)


def open_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes and checkpoints; makes the tables in a new file.

    Raises:
        ConfigurationError: The file is damaged, foreign or written by a newer version.
    """
    try:
        if not path.exists():
            _begin(path)
        if path.stat().st_size == 0:
            raise ConfigurationError(f"the store {path} is empty: restore it from a backup, or remove it to begin anew")
        connection = connect(path, WRITER_PRAGMAS)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise ConfigurationError(f"cannot open the store {path} ({error}): restore it from a backup") from error
    return connection


def _begin(path: Path) -> None:
    """Make a new store under another name first: a crash leaves none, so that an empty one is damage.

    Not in WAL mode: what a failed checkpoint leaves in the log would not be renamed along.
    """
    made = path.with_name(f"{path.name}-new")
    for leftover in (made, made.with_name(f"{made.name}-journal")):
        leftover.unlink(missing_ok=True)
    connection = connect(made, ("journal_mode=DELETE", *WRITER_PRAGMAS[1:]))
    try:
        _make(connection, TABLES, f"PRAGMA application_id={APPLICATION_ID};", 0)
    finally:
        connection.close()
    made.rename(path)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise ConfigurationError(f"{path} is not a store of acclimate: choose another directory with --data-dir")
    if version > FORMAT_VERSION:
        raise ConfigurationError(
            f"the store {path} has format {version}, this acclimate reads formats up to {FORMAT_VERSION}: "
            "use the version that wrote it, or a newer one"
        )
    if version < FORMAT_VERSION:
        _make(connection, "", "", version)


def _make(connection: sqlite3.Connection, tables: str, mark: str, version: int) -> None:
    """Bring a file to the present format, in one transaction."""
    steps = "".join(script for before, script in sorted(UPGRADES.items()) if before >= version)
    connection.executescript(f"BEGIN IMMEDIATE; {tables} {steps} {mark} PRAGMA user_version={FORMAT_VERSION};")
    sum_all(connection)
    connection.execute("COMMIT")


_STRANGE = ("no such column", "no such table", "malformed database schema")
"""How SQLite begins what it says where the text of the schema was altered."""


def translate(error: sqlite3.Error | UnicodeDecodeError) -> ServiceError:
    """What a failed statement means to a client. Whatever it is, its transaction was rolled back."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and "decode" in str(error):  # Python's own: text of ours is always UTF-8
        return DamagedError(None, None, "a text is no text any more")
    code = (code or sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(
            "The disk of the data directory is full: nothing was learned, free some space and repeat."
        )
    strange = code == sqlite3.SQLITE_ERROR and str(error).startswith(_STRANGE)  # our statements are always the same
    if strange or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return DamagedError(None, None, str(error))
    return UnavailableError(f"The store failed ({error}): nothing was changed, repeat later.")
