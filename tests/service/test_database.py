"""The service on a database: found by its settings, never shown, and tenants and workers as on the embedded store."""

import io
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from models import write_bundle
from service import supervisor
from service.app import create_app
from service.cli import app as cli
from service.config import Settings, load_settings
from service.errors import ConfigurationError
from service.keys import KeyRing
from service.shards import lay_out_shared
from service.store import Database, MemoryStore, PostgresStore, stored_tenants
from service.store.postgres_schema import prepare
from tests.checks import postgres
from tests.models.examples import small_model
from tests.service.crew_case import crew_of, names_of
from tests.service.http_case import run_async
from tests.service.test_tenants import admins, as_tenant

SECRET = "not-for-logs"


@run_async
async def test_tenants_have_stores_of_their_own_and_are_found_again(tmp_path: Path) -> None:
    """What one has is another's 404, also after a restart; nothing but keys is in the directory."""
    keys = admins(tmp_path / "data", "default", "north")
    (tmp_path / "m.safetensors").write_bytes(write_bundle(small_model(name="m")))
    with postgres.own_database() as url:
        for restarted in (False, True):
            settings = Settings(data_dir=tmp_path / "data", store=url, models={"m": tmp_path / "m.safetensors"})
            app = create_app(settings, keys=KeyRing(tmp_path / "data"))
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
            ):
                ours, theirs = (as_tenant(client, key) for key in keys)
                if not restarted:
                    (await theirs.put("/v1/streams/s", json={"model": "m"})).raise_for_status()
                    row = {"inputs": [[0.5, 1.0]], "targets": [1.0]}
                    (await theirs.post("/v1/streams/s/feedback", json=row)).raise_for_status()
                else:
                    assert set(app.state.tenants.contexts) == {"default", "north"}
                assert (await theirs.get("/v1/streams/s")).json()["rows_seen"] == 1
                assert (await ours.get("/v1/streams/s")).status_code == 404
                assert (await client.get("/readyz")).status_code == 200
        assert stored_tenants(Database(url)) == ["north"]
    assert [path.name for path in (tmp_path / "data").glob("*.json")] == ["keys.json"]
    assert not list((tmp_path / "data").glob("*sqlite*"))


@pytest.mark.parametrize("tenant", ["north", "n" * 64, 'a"; DROP SCHEMA x; --', "N.o:r-t_h"])
def test_any_tenant_has_a_schema(tenant: str) -> None:
    """Whatever its name: each its own, and names that are long or strange do no harm."""
    place = postgres.database()
    store = PostgresStore(place.of_tenant(tenant))
    store.put_model("m", b"bundle")
    store.close()
    own = PostgresStore(place)
    assert own.models() == []
    own.close()
    assert stored_tenants(place) == [tenant]
    postgres.drop(place)


def test_the_address_is_read_from_its_file_and_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the password nor the user is in the settings' text, in an error, on the terminal or in the log."""
    url = f"postgresql://me:{SECRET}@127.0.0.1:1/db"
    (tmp_path / "store").write_text(f"{url}\n")
    settings = load_settings({}, store_file=tmp_path / "store", data_dir=tmp_path / "data")
    assert settings.store_url == url
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:1/db does not answer") as caught:
        create_app(settings)
    with pytest.raises(ConfigurationError, match="begins otherwise") as wrong:
        load_settings({}, store=f"mysql://me:{SECRET}@h/db")
    with pytest.raises(ConfigurationError, match="cannot be read") as unread:
        PostgresStore(Database(f"postgresql://me:{SECRET}@h/db?nonsense={SECRET}"))
    out = CliRunner().invoke(cli, ["serve", "--store", url, "--data-dir", str(tmp_path / "data")])
    assert out.exit_code == 1
    texts = [repr(settings), repr(Database(url)), *(str(each.value) for each in (caught, wrong, unread)), out.output]
    shown = io.StringIO("\n".join([*texts, *capsys.readouterr()])).getvalue()
    assert SECRET not in shown
    assert "me@" not in shown


def test_a_store_of_a_newer_layout_is_refused() -> None:
    """And one of an older one is brought up to date, in one transaction, by whoever comes first."""
    place = postgres.database()
    PostgresStore(place).close()
    with postgres.connected(place) as db:
        prepare(db, place, {1: "CREATE TABLE more (x bigint)", 2: "ALTER TABLE more ADD y bigint"}, 3)
        assert db.execute("SELECT version FROM layout").fetchall() == [(3,)]
        db.execute("SELECT x, y FROM more")
    with pytest.raises(ConfigurationError, match="has layout 3, this acclimate reads layouts up to 1: use the version"):
        PostgresStore(place)
    with postgres.connected(place) as db, pytest.raises(ConfigurationError, match="cannot make the store"):
        prepare(db, place, {3: "CREATE TABLE another (x bigint); SELECT nonsense"}, 4)
    with postgres.connected(place) as db:
        assert db.execute("SELECT to_regclass('another'), (SELECT version FROM layout)").fetchone() == (None, 3)
    postgres.drop(place)


def test_another_program_s_schema_is_left_alone() -> None:
    """A schema of that name which is not ours is refused, and so is a database that cannot hold every text."""
    place = postgres.database()
    with postgres.connected(place) as db:
        db.execute(f"CREATE SCHEMA {place.schema}".encode())
    with pytest.raises(ConfigurationError, match="is not a store of acclimate"):
        PostgresStore(place)
    postgres.drop(place)
    with postgres.connected(place) as db:
        db.execute(b"CREATE DATABASE narrow ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with pytest.raises(ConfigurationError, match="has encoding SQL_ASCII"):
        PostgresStore(Database(postgres.url_of("narrow")))
    with postgres.connected(place) as db:
        db.execute(b"DROP DATABASE narrow WITH (FORCE)")


class Common(MemoryStore):
    """A store that several workers share."""

    @property
    def shared(self) -> bool:
        """So it is."""
        return True


@run_async
async def test_workers_that_share_a_store_list_each_stream_once() -> None:
    """On pages of any size; each has all of them, and each is still served by one."""
    store = Common()
    async with crew_of(2, store=store) as (first, second):
        names = sorted([*names_of(0, 3), *names_of(1, 3)])
        for name in names:
            (await first.client.put(f"/v1/streams/{name}", json={"model": "reg"})).raise_for_status()
        for worker in (first, second):
            page = (await worker.client.get("/v1/streams", params={"limit": 4})).json()
            assert [item["stream"] for item in page["items"]] == names[:4]
            rest = (await worker.client.get("/v1/streams", params={"cursor": page["next_cursor"]})).json()
            assert [item["stream"] for item in rest["items"]] == names[4:]
        overview = (await first.client.get("/v1/overview")).json()
        assert (overview["states"], overview["models"][0]["streams"]) == ({"new": 6}, 6)
        hook = (await first.client.post("/v1/webhooks", json={"url": "https://1.1.1.1/", "events": ["drift"]})).json()
        await second.streams.webhooks.follow()
        assert (await second.client.delete(f"/v1/webhooks/{hook['id']}")).status_code == 204
        assert store.webhooks() == []


def test_workers_on_a_database_talk_in_a_directory_of_their_own(tmp_path: Path) -> None:
    """Nobody locks the data directory, so that another service may use its keys; it need not be there at all."""
    settings = Settings(data_dir=tmp_path / "none", store="postgresql://h/db", workers=2)
    with supervisor._socket_paths(settings) as paths:
        assert len({path.parent for path in paths}) == 1
        assert tmp_path not in paths[0].parents
        assert paths[0].parent.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "none").exists()
    assert lay_out_shared(settings.data_dir, 2).directories == (settings.data_dir,) * 2
