"""Files that are not what was written: nothing is served that was never true, and what is wrong is named.

``BLOCKS_EVERY=1`` (``make damage``) takes every block of each file; otherwise some of them are taken.
"""

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from models import BundleError, read_bundle, write_bundle
from service.errors import ConfigurationError, NotFoundError
from service.store import DamagedError, SqliteStore, check_store
from service.store.beside import COLUMNS
from service.store.chain import bundle_digest
from tests.service.damage_case import ABSENT, FILE, NAMES, NAMING, WAL, Named, answers, damages, differences, fill, told
from tests.service.http_case import run_async
from tests.service.streams_case import PROBE, batches, models, opened

EVERY = int(os.environ.get("BLOCKS_EVERY", "0"))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A data directory with everything in it, closed."""
    directory = tmp_path / "data"

    async def make() -> None:
        async with opened(SqliteStore(directory), snapshot_rows=10) as streams:
            await fill(streams)

    asyncio.run(make())
    return directory


def is_named(directory: Path) -> bool:
    """Whether the check of a store finds anything."""
    try:
        return bool(check_store(directory).damages)
    except ConfigurationError:
        return True


def test_a_damaged_block_changes_no_answer_or_is_named(whole: Path) -> None:
    """Of the database: all that can be asked is answered as before, or with damage; the check finds what answers do.

    Where an index does not lead to a stream any more, it is not found; the check finds that, too.
    """
    expected = answers(whole)
    assert not isinstance(expected, Named)
    assert not [what for what, value in expected.items() if isinstance(value, Named)]
    wrong, found = [], 0
    for damage in damages(whole / FILE, EVERY or 17):
        after = answers(whole, damage)
        values = [after] if isinstance(after, Named) else list(after.values())
        hidden = any(isinstance(value, Named) and value.kind == ABSENT for value in values)
        wrong += [] if hidden else [(damage, what) for what in differences(after, expected)]
        if hidden or any(isinstance(value, Named) and value.kind in NAMING for value in values):
            found += 1
            copy = whole.with_name("checked")
            shutil.copytree(whole, copy)
            damage.apply(copy)
            wrong += [] if is_named(copy) else [(damage, "not found by the check")]
            shutil.rmtree(copy)
    assert wrong == []
    assert found > 10


def test_a_damaged_block_of_the_write_ahead_log_shows_an_earlier_commit_or_is_named(tmp_path: Path) -> None:
    """Each stream stands where it once stood, never anywhere else."""
    directory, copy = tmp_path / "data", tmp_path / "copy"
    stood: dict[tuple[str, int], Any] = {}

    async def make() -> None:
        async with opened(SqliteStore(directory), snapshot_rows=10) as streams:
            for name in NAMES:
                await streams.put(name, "reg")
            for inputs, targets in [*batches(7), ([], [])]:
                for name in NAMES:
                    stood[name, (await streams.get(name)).stream_version] = await streams.predict(name, PROBE)
                    if inputs:
                        await streams.feedback(name, inputs, targets)
            shutil.copytree(directory, tmp_path / "crashed")

    async def look() -> list[tuple[str, Any]]:
        async with opened(SqliteStore(copy), given={}) as streams:
            return [(name, await told(streams.predict(name, PROBE))) for name in NAMES]

    asyncio.run(make())
    wrong, versions = [], set()
    for damage in damages(tmp_path / "crashed" / WAL, EVERY or 41):
        shutil.copytree(tmp_path / "crashed", copy)
        damage.apply(copy)
        try:
            found = asyncio.run(look())
        except (ConfigurationError, DamagedError):
            found = []
        for name, answer in found:
            if isinstance(answer, Named):
                wrong += [] if answer.kind in {*NAMING, NotFoundError.__name__} else [(damage, answer)]
                continue
            versions.add(answer.stream_version)
            once = stood[name, answer.stream_version]
            if answer.predictions != pytest.approx(once.predictions, rel=1e-5, abs=1e-5):
                wrong.append((damage, answer))
        shutil.rmtree(copy)
    assert wrong == []
    assert len(versions) > 1


def test_a_damaged_block_of_a_bundle_is_refused() -> None:
    """Whatever block it is; what is read is what was written."""
    bundle = write_bundle(models()["reg"])
    for start in range(0, len(bundle), 512):
        flipped = bytes(255 - byte for byte in bundle[start : start + 512])
        for damaged in (bundle[:start] + flipped + bundle[start + 512 :], bundle[:start]):
            with pytest.raises(BundleError):
                read_bundle(damaged, "the file")


@pytest.mark.parametrize("table", COLUMNS)
@pytest.mark.parametrize("change", ["DELETE FROM {} WHERE stream=2", "UPDATE {} SET {}={} WHERE stream=2"])
def test_a_row_beside_the_log_that_is_gone_or_altered_is_named(whole: Path, table: str, change: str) -> None:
    """By the stream and the table, when the stream is asked and by the check; the others are served."""
    column = {"ids": "row", "pending": "at", "events": "revision", "uploads": "rows", "answers": "at"}[table]
    with sqlite3.connect(whole / FILE) as connection:
        connection.execute(change.format(table, column, f"{column}+1"))
    connection.close()

    async def look() -> None:
        async with opened(SqliteStore(whole), given={}) as streams:
            with pytest.raises(DamagedError, match=rf"stream s1 is damaged.*\({table}\)"):
                await streams.predict("s1", PROBE)
            assert (await streams.predict("s0", PROBE)).stream_version > 0

    asyncio.run(look())
    found = check_store(whole).damages
    assert {damage.stream for damage in found} == {"s1"}
    assert any(f"({table})" in damage.reason for damage in found)


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("revision>2", "at revision 3: its log ends before revision 4"),
        ("revision<2", "at revision 1: its log entry is missing"),
        ("revision=2", "at revision 2: its log entry is missing"),
    ],
)
@run_async
async def test_revisions_do_not_end_early(tmp_path: Path, missing: str, problem: str) -> None:
    """Nor begin late: a list of what was committed is not shorter without a word."""
    async with opened(SqliteStore(tmp_path)) as streams:
        await streams.put("s", "reg")
        for inputs, targets in batches(4):
            await streams.feedback("s", inputs, targets)
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute(f"DELETE FROM entries WHERE {missing}")
    connection.close()
    async with opened(SqliteStore(tmp_path), given={}) as streams:
        with pytest.raises(DamagedError, match=problem):
            await streams.history.revisions("s", 0, 100)
    assert is_named(tmp_path)


def test_an_empty_file_is_not_taken_for_a_new_store(whole: Path) -> None:
    """A store is made under another name first, so that an empty file is no crash; a leftover of one is no harm."""
    (whole / FILE).write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"is empty: restore it from a backup"):
        SqliteStore(whole)
    (whole / FILE).unlink()
    (whole / f"{FILE}-new").write_bytes(b"half")
    SqliteStore(whole).close()


def test_records_that_lead_back_end_the_check(whole: Path) -> None:
    """Where the numbers of records are zeros, the one after the first is the first: that is named, once, and left."""
    with sqlite3.connect(whole / FILE) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name='streams'").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = bytearray((whole / FILE).read_bytes())
    start = (page - 1) * page_bytes
    cells = [start + int.from_bytes(data[at : at + 2]) for at in (start + 10, start + 12)]
    for cell in cells:
        data[cell : cell + 64] = bytes(64)
    (whole / FILE).write_bytes(data)
    assert any("does not lead" in damage.reason for damage in check_store(whole).damages)


@pytest.mark.parametrize("value", [None, 7, 0.5, "text"])
def test_what_is_no_bytes_is_no_bundle(value: object) -> None:
    """A damaged record may have anything in any column; it has not the digest of a bundle."""
    assert bundle_digest(value) != bundle_digest(write_bundle(models()["reg"]))


def test_a_schema_that_was_altered_is_named(whole: Path) -> None:
    """Statements of ours do not fail for want of a column: that is damage, and nothing to repeat later."""
    data = (whole / FILE).read_bytes()
    (whole / FILE).write_bytes(data.replace(b"  first_row INTEGER", b"  first_rox INTEGER"))

    async def look() -> None:
        async with opened(SqliteStore(whole), given={}) as streams:
            with pytest.raises(DamagedError, match="no such column"):
                await streams.history.revisions("s0", 0, 10)

    asyncio.run(look())
    assert is_named(whole)
    (whole / FILE).write_bytes(data.replace(b"  active INTEGER", b"  ective INTEGER"))
    assert is_named(whole)


def test_a_log_that_begins_after_its_end_is_named(whole: Path) -> None:
    """The number of the first revision that is kept was altered."""
    with sqlite3.connect(whole / FILE) as connection:
        (beside,) = connection.execute("SELECT beside FROM streams WHERE stream='s1'").fetchone()
        altered = beside[:-4] + bytes([beside[-4] ^ 4]) + beside[-3:]
        connection.execute("UPDATE streams SET beside=? WHERE stream='s1'", (altered,))
    connection.close()
    assert any("begin after its end" in damage.reason for damage in check_store(whole).damages)
