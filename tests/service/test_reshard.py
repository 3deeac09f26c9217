"""Another number of shards: everything of every stream arrives, or nothing has changed."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service import shards
from service.cli import app
from service.commands import reshard
from service.commands.console import CommandError
from service.errors import ConfigurationError
from service.shards import read_layout, shard_of
from service.store import Create, DamagedError, Done, PutSnapshot, SqliteStore, Store, StreamRecord, UploadPart
from tests.checks.stores import append, done, event, pend
from tests.checks.stores import snapshot as snapshot_of

STREAMS = [f"s{number}" for number in range(9)]


def fill(store: Store) -> None:
    """Streams with all that a stream can have."""
    store.put_model("m", b"bundle 1", activate=True)
    store.put_model("m", b"bundle 2", activate=True)
    for name in STREAMS:
        record = done(store, Create(name, "m", 2, {"steps": 3}, {"note": "ö"}, 1.0)).record
        record = done(store, append(record, ids=("a", "b"), events=[event(record)])).record
        record = done(store, snapshot_of(record)).record
        record = done(store, append(record, ids=("c", "d"), upload=UploadPart("u", 0, 2))).record
        record = done(store, append(record, ids=(), events=[event(record, "warning"), event(record)])).record
        done(store, pend(record, "p", "q", events=[event(record, "warning")]))
    store.put_uploaded("u", 18, 5.0, 0.0)


def told(stores: list[SqliteStore]) -> dict[str, Any]:
    """All that stores say of the streams, the numbers of events apart."""
    found: dict[str, Any] = {}
    for store in stores:
        for listed, _ in store.page("", None, 100, ""):
            loaded = store.load(listed.stream)
            assert loaded is not None
            record = loaded.record
            events = store.events(record, 0, 100)
            assert (
                record.last_drift
                == [each._replace(feature=None, shift=None) for each in events if each.kind == "drift"][-1]
            )
            numbers = [each.id for each in events]
            assert numbers == sorted(set(numbers))
            found[record.stream] = (
                _plain(record),
                loaded.snapshot,
                loaded.entries,
                loaded.watch,
                [each._replace(id=0) for each in events],
                store.learned([(record.key, ["a", "b", "c", "d", "e"])]),
                store.pending(record, ["p", "q", "r"], 0.0),
                store.uploaded("u", record),
                store.entries(record, 0, 100),
                [store.bundle("m", version) for version in (1, 2)],
            )
        found.setdefault("models", store.models())
        assert store.models() == found["models"]
    return found


def _plain(record: StreamRecord) -> tuple[Any, ...]:
    drift = record.last_drift
    return (*record[1:10], None if drift is None else drift._replace(id=0), *record[11:])


def opened(data_dir: Path) -> dict[str, Any]:
    """All that the stores of a directory say."""
    layout = read_layout(data_dir)
    stores = [SqliteStore(directory) for directory in layout.directories]
    try:
        for number, store in enumerate(stores):
            own = [record.stream for record, _ in store.page("", None, 100, "")]
            assert all(shard_of(name, len(stores)) == number for name in own)
        assert stores[shard_of("u", len(stores))].uploaded("u", None) == 18
        return told(stores)
    finally:
        for store in stores:
            store.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A store of one shard."""
    store = SqliteStore(tmp_path / "data")
    fill(store)
    store.close()
    return tmp_path / "data"


def test_everything_arrives_in_any_number_of_shards(data_dir: Path) -> None:
    """One to three to two to one; only the current stores are left."""
    before = opened(data_dir)
    assert set(STREAMS) < set(before)
    last = 0
    for generation, number in enumerate((3, 2, 1), start=1):
        reshard.run(data_dir, number)
        assert opened(data_dir) == before
        assert sorted(path.name for path in data_dir.glob("*s*")) == [f"shards-{generation}", "shards.json"]
        first = min(_event_ids(data_dir))
        assert first > last
        last = max(_event_ids(data_dir))
    reshard.run(data_dir, 1)
    assert read_layout(data_dir).generation == 3


def _event_ids(data_dir: Path) -> list[int]:
    found = []
    for directory in read_layout(data_dir).directories:
        with sqlite3.connect(directory / "streams.sqlite3") as db:
            found += [number for (number,) in db.execute("SELECT id FROM events")]
        db.close()
    return found


def test_streams_go_on_where_they_were(data_dir: Path) -> None:
    """Their next revision follows, under a key that is new."""
    reshard.run(data_dir, 2)
    store = SqliteStore(read_layout(data_dir).directories[shard_of("s0", 2)])
    found = store.get("s0")
    assert found is not None
    answer = store.write([append(found[0], ids=("e",), events=[event(found[0])])])[0]
    assert isinstance(answer, Done)
    assert answer.record.stream_version == 4
    assert answer.events[0].id > max(each.id for each in store.events(found[0], 0, 100)[:-1])
    assert isinstance(store.write([PutSnapshot(answer.record, {}, b"x")])[0], Done)
    store.close()


def test_a_run_that_is_cut_short_changes_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the file is replaced the old shards count; the next run clears up and goes through."""
    before = opened(data_dir)

    def cut(*_: Any) -> None:
        raise OSError("cut")

    for name in ("sync_file", "sync_directory"):
        with monkeypatch.context() as patched:
            patched.setattr(shards, name, cut)
            with pytest.raises(OSError, match="cut"):
                reshard.run(data_dir, 2)
        if name == "sync_file":
            assert read_layout(data_dir).generation == 0
            assert opened(data_dir) == before
    assert read_layout(data_dir).generation == 1
    assert opened(data_dir) == before
    assert (data_dir / "streams.sqlite3").exists()
    reshard.run(data_dir, 3)
    assert opened(data_dir) == before
    assert not (data_dir / "streams.sqlite3").exists()


def test_a_damaged_stream_is_not_moved(data_dir: Path) -> None:
    """It is named, and the directory is as it was."""
    with sqlite3.connect(data_dir / "streams.sqlite3") as db:
        db.execute("UPDATE entries SET payload=CAST('x' AS BLOB) WHERE revision=3 AND stream=4")
    db.close()
    with pytest.raises(DamagedError, match="s3 is damaged at revision 3"):
        reshard.run(data_dir, 2)
    assert read_layout(data_dir).generation == 0


def test_a_running_server_s_directory_is_left_alone(data_dir: Path) -> None:
    """As one where there is nothing."""
    store = SqliteStore(data_dir)
    with pytest.raises(ConfigurationError, match="in use"):
        reshard.run(data_dir, 2)
    store.close()
    with pytest.raises(CommandError, match="no store"):
        reshard.run(data_dir / "none", 2)
    assert opened(data_dir)


def test_shards_with_different_models_are_refused(data_dir: Path) -> None:
    """One of them would be lost."""
    reshard.run(data_dir, 2)
    store = SqliteStore(read_layout(data_dir).directories[1])
    store.put_model("other", b"bundle", activate=True)
    store.close()
    with pytest.raises(ConfigurationError, match="different models"):
        reshard.run(data_dir, 1)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """Its streams are not forgotten in silence, whether it is served or divided."""
    directories = shards.lay_out(tmp_path, 2).directories
    shutil.rmtree(directories[1])
    for refused in (lambda: reshard.run(tmp_path, 1), lambda: shards.lay_out(tmp_path, 2)):
        with pytest.raises(ConfigurationError, match=r"shard 1 of .* is missing"):
            refused()


def test_nobody_writes_to_the_old_shards_while_the_new_ones_come_to_count(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that starts between the copy and the change would acknowledge rows that are then removed."""
    tried = []
    switch = shards.write_layout

    def switching(*given: Any) -> None:
        with pytest.raises(ConfigurationError, match="in use"):
            SqliteStore(data_dir)
        tried.append(True)
        switch(*given)

    monkeypatch.setattr("service.commands.reshard.write_layout", switching)
    reshard.run(data_dir, 2)
    assert tried == [True]


def test_the_command_says_what_comes_next(data_dir: Path) -> None:
    """How to serve from now on."""
    result = CliRunner().invoke(app, ["reshard", "--data-dir", str(data_dir), "--shards", "2"])
    assert result.exit_code == 0
    assert "9 streams in 2 shards: serve with --workers 2" in result.output
