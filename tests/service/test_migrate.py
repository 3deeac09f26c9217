"""A data directory moved into a database: every row of every tenant arrives, or nothing has changed."""

import sqlite3
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import psycopg
import pytest
from typer.testing import CliRunner, Result

from models import write_bundle
from service.cli import app
from service.commands import migrate, reshard
from service.errors import ConfigurationError
from service.shards import lay_out, lay_out_shared, moved_to
from service.store import Create, DamagedError, Database, Delete, PostgresStore, SqliteStore, Webhook, moved_stores
from service.tenants import folder_of
from tests.checks import postgres
from tests.checks.stores import append, done, event
from tests.models.examples import small_model
from tests.service.test_reshard import STREAMS, fill, told

HOOK = Webhook("h", "https://example.test", ("drift",), b"secret", 1.0, cursor=7)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A directory with two tenants, one of whom has deleted a stream that is not cleared away yet."""
    for tenant in ("default", "north"):
        store = SqliteStore(folder_of(tmp_path / "data", tenant))
        fill(store)
        store.put_webhook(HOOK)
        if tenant == "north":
            found = store.get(STREAMS[0])
            assert found is not None
            done(store, Delete(found[0]))
        store.close()
    return tmp_path / "data"


def everything(store: Any) -> dict[str, Any]:
    """All that a store says, webhooks and uploads to many too."""
    try:
        return told([store]) | {"hooks": store.webhooks(), "uploaded": store.uploaded("u", None)}
    finally:
        store.close()


def numbers(store: Any) -> list[int]:
    """Of all events."""
    try:
        return [each.id for _, each in store.all_events(0, 1_000)]
    finally:
        store.close()


def command(data_dir: Path, url: str) -> Result:
    """``acclimate migrate-store``."""
    words = ["migrate-store", "--data-dir", str(data_dir), "--to", url]
    return CliRunner().invoke(app, words, env={"COLUMNS": "300", "TERM": "dumb"})


def test_everything_of_every_tenant_arrives(data_dir: Path) -> None:
    """Told row by row; events keep their numbers, what is deleted stays behind, and the store goes on from there."""
    before = {tenant: everything(SqliteStore(folder_of(data_dir, tenant))) for tenant in ("default", "north")}
    events = numbers(SqliteStore(data_dir))
    with postgres.own_database() as url:
        result = command(data_dir, url)
        assert result.exit_code == 0, result.output
        assert "17 streams, 51 entries" in result.output.replace("\n", " ")
        place = Database(url)
        assert {t: everything(PostgresStore(place.of_tenant(t))) for t in ("default", "north")} == before
        assert numbers(PostgresStore(place)) == events
        store = PostgresStore(place)
        found = store.get(STREAMS[0])
        assert found is not None
        later = done(store, append(found[0], ids=("z",), rows=1, events=[event(found[0])]))
        assert later.events[0].id > max(events)
        created = done(store, Create("new", "m", 1, {}, {}, 1.0))
        assert created.record.key > found[0].key
        store.close()


def test_a_directory_that_was_moved_is_not_served_from_again(data_dir: Path) -> None:
    """Neither by the embedded store nor moved a second time; it is fine on a database, where its streams are now."""
    with pytest.raises(ConfigurationError, match="has streams of its own: move them"):
        lay_out_shared(data_dir, 1)
    with postgres.own_database() as url:
        assert command(data_dir, url).exit_code == 0
        assert moved_to(data_dir) == Database(url).place()
        with pytest.raises(ConfigurationError, match="were moved to"):
            lay_out(data_dir, 1)
        assert lay_out_shared(data_dir, 2).directories == (data_dir, data_dir)
        again = command(data_dir, url)
        assert again.exit_code == 1
        assert "has a store of tenant default already" in again.output
        assert moved_to(data_dir) is not None


def test_shards_become_one_store(tmp_path: Path) -> None:
    """All of their streams, with new numbers for events, which two shards may have given twice."""
    store = SqliteStore(tmp_path / "data")
    fill(store)
    store.close()
    before = everything(SqliteStore(tmp_path / "data"))
    reshard.run(tmp_path / "data", 3)
    with postgres.own_database() as url:
        migrate.run(tmp_path / "data", url)
        found = numbers(PostgresStore(Database(url)))
        assert len(found) == len(set(found)) == 4 * len(STREAMS)
        assert everything(PostgresStore(Database(url))) == before


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE entries SET payload=CAST('x' AS BLOB) WHERE stream=3", "stream s2 is damaged at revision 1"),
        ("DELETE FROM ids WHERE stream=4", "stream s3 is damaged"),
    ],
)
def test_damage_is_named_and_nothing_has_changed(data_dir: Path, damage: str, says: str) -> None:
    """In the last tenant, after the first was copied: the database has none of them, and the directory is served."""
    with sqlite3.connect(folder_of(data_dir, "north") / "streams.sqlite3") as db:
        db.execute(damage)
    db.close()
    with postgres.own_database() as url:
        result = command(data_dir, url)
        assert (result.exit_code, says in result.output) == (1, True), result.output
        assert moved_to(data_dir) is None
        assert schemas(url) == []


def test_a_run_that_is_cut_short_has_changed_nothing(data_dir: Path) -> None:
    """Whatever it was doing: the next one moves everything."""
    with postgres.own_database() as url:
        for stop in ("copy streams of default", "compare entries of default", "copy webhooks of north"):

            def progress(what: str, _done: int, _of: int, stop: str = stop) -> None:
                if what == stop:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt), moved_stores(sources(data_dir), Database(url), progress):
                pass
            assert schemas(url) == []
        migrate.run(data_dir, url)
        assert schemas(url) == ["acclimate", "acclimate_north"]


def test_a_row_that_arrives_otherwise_is_noticed(data_dir: Path) -> None:
    """Each is compared: a database that keeps something else than it was given is not taken for the same."""
    trigger = """
    CREATE FUNCTION public.spoil() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN IF NEW.id = 'a' AND NEW.stream = 5 THEN NEW.row = 99; END IF; RETURN NEW; END $$;
    CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS
      $$ BEGIN IF to_regclass('acclimate.ids') IS NOT NULL AND NOT EXISTS
        (SELECT FROM pg_trigger WHERE tgname='spoil') THEN
        CREATE TRIGGER spoil BEFORE INSERT ON acclimate.ids FOR EACH ROW EXECUTE FUNCTION public.spoil();
      END IF; END $$;
    CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.watch();
    """
    with postgres.own_database() as url:
        with psycopg.connect(url) as db:
            db.execute(trigger.encode())
        with pytest.raises(DamagedError, match="a row of ids of tenant default did not arrive"):
            migrate.run(data_dir, url)
        assert (schemas(url), moved_to(data_dir)) == ([], None)


def sources(data_dir: Path) -> dict[str, list[Path]]:
    """The stores of the fixture."""
    return {tenant: [folder_of(data_dir, tenant)] for tenant in ("default", "north")}


def schemas(url: str) -> list[str]:
    """Of stores in a database."""
    with psycopg.connect(url) as db:
        rows = db.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'acclimate') ORDER BY 1")
        return [name for (name,) in rows]


def test_a_database_is_looked_through_and_exported_as_a_directory_is(tmp_path: Path) -> None:
    """The same rows, and each damage by its name; nothing is made where there is no store."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data")
    words = ["export", "--data-dir", str(tmp_path / "data"), "--out"]
    assert invoked(*words, str(tmp_path / "before.parquet")).exit_code == 0
    with postgres.own_database() as url:
        none = invoked("fsck", "--store", url)
        assert (none.exit_code, "has no store of tenant default" in none.output) == (1, True), none.output
        assert schemas(url) == []
        migrate.run(tmp_path / "data", url)
        after = invoked(*words, str(tmp_path / "after.parquet"), "--store", url)
        assert after.exit_code == 0, after.output
        assert pl.read_parquet(tmp_path / "after.parquet").equals(pl.read_parquet(tmp_path / "before.parquet"))
        whole = invoked("fsck", "--store", url)
        assert whole.exit_code == 0
        assert "1 streams, 3 log entries, 1 models" in whole.output
        assert "database: test_" in invoked("doctor", env={"ACCLIMATE_STORE": url}).output
        for damage, says in (
            ("UPDATE entries SET at=at+1 WHERE revision=2", "stream s, revision 2: its log entry was altered"),
            ("DELETE FROM ids WHERE id='a'", "(ids)"),
            ("UPDATE streams SET rows_seen=9", "its record was altered"),
            ("UPDATE models SET bundle='x'", "the bundle of model m, version 1, was altered"),
        ):
            with postgres.connected(Database(url)) as db:
                db.execute(damage.encode())
            found = invoked("fsck", "--store", url)
            assert (found.exit_code, says in found.output) == (1, True), found.output


def write_rows(data_dir: Path) -> None:
    """A stream with three batches that can be decoded."""
    store = SqliteStore(data_dir)
    store.put_model("m", write_bundle(small_model(name="m")))
    record = done(store, Create("s", "m", 1, {}, {}, 1.0)).record
    for number in range(3):
        payload = orjson.dumps(
            {
                "inputs": [[0.5, number], [1.0, 2.0]],
                "targets": [1.0, 2.0],
                "ids": ["a", None],
                "times": None,
                "asked": [[], []],
                "decision": {"kind": "none", "rows_since_change": -1, "statistic": 0.0, "threshold": 8.0},
            }
        )
        record = done(store, append(record, payload=payload, ids=("a",) if number == 0 else ())).record
    store.close()


def invoked(*words: str, env: dict[str, str] | None = None) -> Result:
    """``acclimate`` with these words."""
    return CliRunner().invoke(app, words, env={"COLUMNS": "300", "TERM": "dumb"} | (env or {}))
