"""The embedded store's file: its lock, its format, its settings and its failures."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import ConfigurationError, StoreFullError, UnavailableError
from service.store import DamagedError, Delete, SqliteStore
from tests.checks.stores import Case, append, done, event, pend, snapshot

FILE = "streams.sqlite3"


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """One process a data directory: the error names the directory and the process that has it."""
    store = SqliteStore(tmp_path)
    opening = f"from pathlib import Path; from service.store import SqliteStore; SqliteStore(Path({str(tmp_path)!r}))"
    ended = subprocess.run([sys.executable, "-c", opening], capture_output=True, text=True, check=False, timeout=60)
    store.close()
    assert ended.returncode == 1
    assert "ConfigurationError" in ended.stderr
    assert str(tmp_path) in ended.stderr
    SqliteStore(tmp_path).close()


def test_a_second_opening_in_one_process_is_refused(tmp_path: Path) -> None:
    """The lock holds within a process too."""
    store = SqliteStore(tmp_path)
    with pytest.raises(ConfigurationError, match="in use by another process"):
        SqliteStore(tmp_path)
    store.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A file of a later version is left alone, with a sentence that says which versions are concerned."""
    SqliteStore(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConfigurationError, match="has format 99, this acclimate reads formats up to 5"):
        SqliteStore(tmp_path)


def test_a_file_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its streams and events stay, and what came with later formats works; the next opening finds it done."""
    case = Case("sqlite", tmp_path)
    record = case.grown(2)
    done(case.store, snapshot(record))
    record = done(case.store, append(record, ids=(), events=[event(record)])).record
    before = case.store.load("s"), case.store.events(record, 0, 10)
    case.store.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.executescript(
            "DROP TABLE uploads; DROP TABLE watches; DROP TABLE answers; DROP TABLE webhooks;"
            "DROP INDEX streams_version; ALTER TABLE streams DROP COLUMN beside;"
            "ALTER TABLE snapshots RENAME TO history; CREATE TABLE snapshots (stream INTEGER PRIMARY KEY,"
            " revision INTEGER NOT NULL, chain BLOB NOT NULL, status TEXT NOT NULL, digest BLOB NOT NULL,"
            " data BLOB NOT NULL) STRICT; INSERT INTO snapshots SELECT stream, revision, chain, status, digest, data"
            " FROM history; DROP TABLE history;"
            "ALTER TABLE events DROP COLUMN feature; ALTER TABLE events DROP COLUMN shift; PRAGMA user_version=1"
        )
    connection.close()
    for _ in range(2):
        store = SqliteStore(tmp_path)
        assert (store.load("s"), store.events(record, 0, 10)) == before
        store.close()
    case.store = SqliteStore(tmp_path)
    done(case.store, pend(record, "p"))
    case.store.put_uploaded("u", 3, 1.0, 0.0)
    case.store.close()


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    """Another program's database is not written to."""
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(ConfigurationError, match="is not a store of acclimate"):
        SqliteStore(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Garbage is reported with the file's name, and the lock is let go."""
    (tmp_path / FILE).write_bytes(b"garbage" * 1000)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="cannot open the store"):
            SqliteStore(tmp_path)


def test_an_unwritable_directory_is_refused(tmp_path: Path) -> None:
    """A data directory that is a file is a clear error."""
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write to the data directory"):
        SqliteStore(tmp_path / "data")


def test_commits_are_synced_and_reads_cannot_write(tmp_path: Path) -> None:
    """WAL with a sync at each commit on the writing connection; the others may only read."""
    store = SqliteStore(tmp_path)
    pragma = {name: store._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragma == {"journal_mode": "wal", "synchronous": 2}
    with pytest.raises(UnavailableError, match="readonly"), store._reading() as db:
        db.execute("DELETE FROM streams")
    store.close()


def test_a_full_disk_is_reported_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """507 and no half transaction; when there is room again the same operation goes through."""
    case = Case("sqlite", tmp_path)
    store = case.store
    assert isinstance(store, SqliteStore)
    record, other = case.grown(3), case.grown(1, "t")
    before = store.load("s"), store.load("t")
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count={pages}")
    big = append(record, payload=b"x" * 100_000)
    with pytest.raises(StoreFullError, match="disk of the data directory is full"):
        store.write([append(other), big])
    assert (store.load("s"), store.load("t")) == before
    store._writer.execute("PRAGMA max_page_count=1000000")
    done(store, big)
    store.close()


def test_reads_see_one_moment_beside_a_running_write(tmp_path: Path) -> None:
    """A reader neither waits for a transaction nor sees it before it is committed."""
    case = Case("sqlite", tmp_path)
    store = case.store
    assert isinstance(store, SqliteStore)
    record = case.grown(1)
    with store._transaction() as db:
        db.execute("UPDATE streams SET state='torn'")
        assert store.get("s") == (record, None)
        db.execute("UPDATE streams SET state='stable'")
    store.close()


def test_what_was_not_committed_is_not_there_after_a_crash(tmp_path: Path) -> None:
    """A copy of the files in the middle of a transaction opens with exactly what was committed."""
    case = Case("sqlite", tmp_path / "data")
    store = case.store
    assert isinstance(store, SqliteStore)
    record = case.grown(2)
    copy = tmp_path / "copy"
    copy.mkdir()
    with store._transaction() as db:
        db.execute("DELETE FROM entries")
        for file in (FILE, FILE + "-wal"):
            (copy / file).write_bytes((tmp_path / "data" / file).read_bytes())
    recovered = SqliteStore(copy)
    loaded = recovered.load("s")
    assert loaded is not None
    assert loaded.record == record
    assert len(loaded.entries) == 2
    recovered.close()
    store.close()


def test_a_torn_log_file_keeps_every_whole_commit(tmp_path: Path) -> None:
    """However short the write-ahead log is cut, what opens is the stream after some number of whole commits."""
    case = Case("sqlite", tmp_path / "data")
    case.grown(4)
    files = {name: (tmp_path / "data" / name).read_bytes() for name in (FILE, FILE + "-wal")}
    wal = files[FILE + "-wal"]
    versions = []
    for number, size in enumerate(range(0, len(wal), 4096)):
        copy = tmp_path / f"cut-{number}"
        copy.mkdir()
        (copy / FILE).write_bytes(files[FILE])
        (copy / (FILE + "-wal")).write_bytes(wal[:size])
        store = SqliteStore(copy)
        loaded = store.load("s")
        versions.append(-1 if loaded is None else loaded.record.stream_version)
        store.close()
    assert versions == sorted(versions)
    assert set(versions) <= set(range(-1, 5))
    case.store.close()


def test_a_damaged_page_is_reported(tmp_path: Path) -> None:
    """A file whose pages were overwritten raises an error that says so, and serves nothing."""
    case = Case("sqlite", tmp_path)
    record = case.grown(200)
    done(case.store, snapshot(record, b"x" * 20_000))
    case.store.close()
    data = bytearray((tmp_path / FILE).read_bytes())
    data[4096 * 4 :] = b"\xff" * (len(data) - 4096 * 4)
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises((DamagedError, ConfigurationError)):
        SqliteStore(tmp_path).load("s")


def test_a_deleted_streams_rows_are_overwritten(tmp_path: Path) -> None:
    """Deleting leaves no copy of a row's text in the file."""
    case = Case("sqlite", tmp_path)
    record = done(case.store, append(case.create(), payload=b'{"secret":"tell-nobody"}' * 300)).record
    done(case.store, Delete(record))
    while case.store.purge():
        pass
    case.store.close()
    assert b"tell-nobody" not in (tmp_path / FILE).read_bytes()
