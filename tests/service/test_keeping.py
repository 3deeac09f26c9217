"""Backups while the server runs, back again, and damage that is named."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from models import write_bundle
from service.cli import app
from service.commands import doctor
from service.commands.console import CommandError
from service.errors import ConfigurationError
from service.shards import lay_out
from service.store import STORE_FILE, SqliteStore, check_store
from tests.checks.stores import Case, append, done, event, pend, snapshot
from tests.models.examples import small_model
from tests.service.streams_case import PROBE, batches, learn, opened

DAMAGES = {
    "UPDATE entries SET payload=CAST('x' AS BLOB) WHERE revision=2": "revision 2: its log entry was altered",
    "DELETE FROM entries WHERE revision=2": "revision 2: its log entry is missing",
    "DELETE FROM entries WHERE revision=4": "revision 4: its log ends before revision 4",
    "DELETE FROM entries": "revision 4: its log is missing",
    "UPDATE snapshots SET data=CAST('x' AS BLOB)": "revision 3: its snapshot was altered",
    "UPDATE snapshots SET revision=2": "revision 2: its snapshot was altered",
    "UPDATE streams SET rows_seen=5": "revision 4: its record was altered",
    "UPDATE pending SET payload=CAST('x' AS BLOB)": "a prediction that waits for its label was altered",
    "UPDATE watches SET data=CAST('x' AS BLOB)": "what is known of its inputs was altered",
    "UPDATE models SET bundle=CAST('x' AS BLOB)": "the bundle of model m, version 1, was altered",
}


_OF_S = dict.fromkeys([each for each in DAMAGES if "UPDATE streams" in each], "key=1") | dict.fromkeys(
    [each for each in DAMAGES if "UPDATE models" in each], "true"
)
"""What picks the first stream, where that is not its number."""


def command(*words: object) -> Result:
    """``acclimate`` with these words."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


def filled(folder: Path) -> Path:
    """A store with a stream that has all that a stream can have."""
    case = Case("sqlite", folder)
    case.store.put_model("m", write_bundle(small_model()))
    record = case.grown(3)
    done(case.store, snapshot(record))
    record = done(case.store, append(record, ids=(), events=[event(record)])).record
    done(case.store, pend(record, "p"))
    case.grown(2, "other")
    case.store.close()
    return folder


def test_a_store_that_is_whole_has_no_damage(tmp_path: Path) -> None:
    """All that there is was looked at; also as JSON."""
    result = command("fsck", "--data-dir", filled(tmp_path), "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"streams": 2, "entries": 6, "models": 1, "damages": []}
    assert "2 streams, 6 log entries, 1 models" in command("fsck", "--data-dir", tmp_path).stdout


@pytest.mark.parametrize("statement", DAMAGES)
def test_every_damage_is_named(statement: str, tmp_path: Path) -> None:
    """Exit code 1; whose it is, where and what; other streams are looked at all the same."""
    with sqlite3.connect(filled(tmp_path) / STORE_FILE) as db:
        db.execute(f"{statement}{' AND' if 'WHERE' in statement else ' WHERE'} {_OF_S.get(statement, 'stream=1')}")
    db.close()
    result = command("fsck", "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert DAMAGES[statement] in result.stdout
    assert "restore a backup" in result.stderr


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    """Blocks of the file overwritten one after the other: nothing passes for whole that is not, and nothing raises."""
    filled(tmp_path)
    file = tmp_path / STORE_FILE
    whole = file.read_bytes()
    expected = check_store(tmp_path)
    assert not expected.damages
    for start in range(0, len(whole), 4_096):
        file.write_bytes(whole[:start] + b"\xa5" * 512 + whole[start + 512 :])
        try:
            found = check_store(tmp_path)
        except ConfigurationError:  # told as one sentence
            continue
        assert found.damages or found == expected


def test_there_has_to_be_a_store(tmp_path: Path) -> None:
    """One line that says what to do."""
    for words in (["fsck"], ["backup", "--to", tmp_path / "copy"]):
        result = command(*words, "--data-dir", tmp_path / "none")
        assert result.exit_code == 1
        assert "--data-dir" in result.stderr


@pytest.mark.parametrize("workers", [1, 3])
def test_a_backup_restores_everything(workers: int, tmp_path: Path) -> None:
    """Of one shard or several; the restored directory has the same streams, and can be served."""
    home, copy, back = tmp_path / "home", tmp_path / "copy", tmp_path / "back"
    for directory in lay_out(home, workers).directories:
        filled(directory)
    made = command("backup", "--data-dir", home, "--to", copy)
    assert made.exit_code == 0, made.stderr
    assert f"{2 * workers} streams and {6 * workers} log entries" in made.stdout
    restored = command("restore", "--from", copy, "--data-dir", back)
    assert restored.exit_code == 0, restored.stderr
    for before, after in zip(lay_out(home, workers).directories, lay_out(back, workers).directories, strict=True):
        stores = SqliteStore(before), SqliteStore(after)
        assert stores[0].load("s") == stores[1].load("s")
        assert stores[0].models() == stores[1].models()
        for store in stores:
            store.close()


def test_a_backup_is_taken_while_rows_are_learned(tmp_path: Path) -> None:
    """It has a moment of each stream, at or after what was acknowledged before it began, and predicts as then."""

    async def scenario() -> tuple[int, Any]:
        async with opened(SqliteStore(tmp_path / "home")) as streams:
            await streams.put("s", "reg")
            await learn(streams, "s", batches(6))
            running = asyncio.create_task(learn(streams, "s", batches(20, seed=1)))
            result = await asyncio.to_thread(
                command, "backup", "--data-dir", tmp_path / "home", "--to", tmp_path / "copy"
            )
            assert result.exit_code == 0, result.stderr
            await running
        async with opened(SqliteStore(tmp_path / "copy")) as streams:
            info = await streams.get("s")
            return info.stream_version, (await streams.predict("s", PROBE)).predictions

    version, predictions = asyncio.run(scenario())
    assert 6 <= version <= 26
    assert len(predictions) == len(PROBE)


def test_nothing_is_overwritten_and_nothing_doubtful_restored(tmp_path: Path) -> None:
    """A folder in use, a backup that was cut short, one that was altered, one that is none."""
    home, copy = filled(tmp_path / "home"), tmp_path / "copy"
    assert command("backup", "--data-dir", home, "--to", copy).exit_code == 0
    back = tmp_path / "back"

    def altered(change: Callable[[Path], object]) -> str:
        folder = tmp_path / "altered"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(copy, folder)
        change(folder)
        result = command("restore", "--from", folder, "--data-dir", back)
        assert result.exit_code == 1
        assert not back.exists()
        return result.stderr

    assert "not empty" in command("backup", "--data-dir", home, "--to", copy).stderr
    assert "not empty" in command("restore", "--from", copy, "--data-dir", home).stderr
    assert "no backup that was finished" in altered(lambda folder: (folder / "backup.json").unlink())
    assert "not what was written" in altered(lambda folder: (folder / STORE_FILE).write_bytes(b"x"))
    assert "not what was written" in altered(lambda folder: (folder / STORE_FILE).unlink())
    escaping = b'{"format_version": 1, "files": {"../x": ""}, "streams": 0, "made_at": ""}'
    assert "outside" in altered(lambda folder: (folder / "backup.json").write_bytes(escaping))


def test_a_damaged_store_makes_no_finished_backup(tmp_path: Path) -> None:
    """The copy stays for whoever wants to save what is left, but is no backup."""
    with sqlite3.connect(filled(tmp_path / "home") / STORE_FILE) as db:
        db.execute("UPDATE entries SET payload=CAST('x' AS BLOB) WHERE revision=2")
    db.close()
    result = command("backup", "--data-dir", tmp_path / "home", "--to", tmp_path / "copy")
    assert result.exit_code == 1
    assert "fsck" in result.stderr
    assert not (tmp_path / "copy" / "backup.json").exists()


def test_the_doctor_finds_nothing_wrong_here(tmp_path: Path) -> None:
    """Python, packages, models, port, directory, disk; as a table and as JSON."""
    result = command("doctor", "--data-dir", filled(tmp_path), "--json")
    assert result.exit_code == 0, result.stdout
    found = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert {"Python", "SQLite", "torch", "settings", "models", "port", "data directory", "disk"} <= set(found)
    assert found["data directory"]["state"] == "ok"
    assert "sinusoid" in command("doctor", "--data-dir", tmp_path).stdout


def test_the_doctor_names_what_keeps_a_server_from_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign file in the data directory, a setting that is none: exit code 1, and what to do."""
    (tmp_path / STORE_FILE).write_bytes(b"garbage" * 1_000)
    result = command("doctor", "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert "data directory" in result.stderr
    monkeypatch.setenv("ACCLIMATE_POTR", "80")
    with pytest.raises(CommandError, match="ACCLIMATE_POTR is not a setting"):
        doctor.run(tmp_path, as_json=True)
