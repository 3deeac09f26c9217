"""Shards: which stream belongs to which, and what a data directory says about them."""

from collections import Counter
from pathlib import Path

import pytest

from service.app import create_app
from service.config import Settings
from service.errors import ConfigurationError
from service.shards import Layout, lay_out, read_layout, shard_of, write_layout
from service.store import SqliteStore


def test_streams_are_spread_evenly_and_for_ever() -> None:
    """The shard of a name never changes, or its rows would be looked for elsewhere."""
    assert [shard_of(name, 4) for name in ("a", "b", "lab-1", "shop:7")] == [3, 1, 0, 0]
    counts = Counter(shard_of(f"stream-{number}", 8) for number in range(8_000))
    assert len(counts) == 8
    assert max(counts.values()) < 1_150
    assert {shard_of(f"s{number}", 1) for number in range(10)} == {0}


def test_a_directory_of_one_shard_is_a_store_itself(tmp_path: Path) -> None:
    """As all directories were before there were several."""
    SqliteStore(tmp_path).close()
    assert lay_out(tmp_path, 1) == read_layout(tmp_path) == Layout(0, (tmp_path,))


def test_a_new_directory_gets_as_many_shards_as_workers(tmp_path: Path) -> None:
    """And keeps them."""
    layout = lay_out(tmp_path / "new", 3)
    assert layout == read_layout(tmp_path / "new") == lay_out(tmp_path / "new", 3)
    assert layout.directories == tuple(tmp_path / "new" / "shards-1" / str(number) for number in range(3))


def test_another_number_of_workers_is_refused(tmp_path: Path) -> None:
    """With what to do about it, whatever way the service is started."""
    SqliteStore(tmp_path / "one").close()
    with pytest.raises(ConfigurationError, match=r"has 1 shard: start it with --workers 1, or first run .*--shards 2"):
        lay_out(tmp_path / "one", 2)
    lay_out(tmp_path / "two", 2)
    with pytest.raises(ConfigurationError, match=r"has 2 shards: start it with --workers 2, or first run .*--shards 1"):
        create_app(Settings(data_dir=tmp_path / "two"))


def test_one_shard_may_be_a_folder_of_its_own(tmp_path: Path) -> None:
    """After there were several."""
    layout = Layout.of(tmp_path, 4, 1)
    SqliteStore(layout.directories[0]).close()
    write_layout(tmp_path, layout)
    create_app(Settings(data_dir=tmp_path)).state.context.streams._store.close()
    assert (tmp_path / "shards-4" / "0" / "streams.sqlite3").is_file()


@pytest.mark.parametrize("text", ["{", '{"shards": 2}', '{"shards": "x", "generation": 1}', "[]"])
def test_a_statement_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    """Rather than begun anew beside what is there."""
    (tmp_path / "shards.json").write_text(text)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_layout(tmp_path)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """By its name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write to the data directory"):
        lay_out(tmp_path / "file" / "below", 2)
