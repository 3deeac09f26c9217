"""Keys: who may ask for what, kept hashed, revoked at once, within their shares."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Scope
from typer.testing import CliRunner, Result

from service.cli import app
from service.config import Settings, load_settings
from service.errors import ConfigurationError, ForbiddenError, SaturatedError, UnauthorizedError
from service.guard import Guard
from service.keys import FILE, SCOPES, KeyRing, create_key, draw_bootstrap_key, has_keys, read_keys, revoke_key
from service.keys import Scope as KeyScope
from service.routes.context import TENANT
from service.scopes import SCOPE_OF, scope_of
from tests.service.http_case import assert_problem, run_async, serving

BOOTSTRAP = "a bootstrap key of these tests"


def bearer(key: str) -> dict[str, str]:
    """The header that sends a key."""
    return {"Authorization": f"Bearer {key}"}


class Seconds:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def concrete(path: str) -> str:
    """A path with names in it."""
    return re.sub(r"\{version\}", "1", re.sub(r"\{model\}", "reg", re.sub(r"\{(stream|upload|webhook)\}", "s1", path)))


@run_async
async def test_every_route_asks_for_its_scope(tmp_path: Path) -> None:
    """Of the OpenAPI description: nobody, a wrong key and each lesser scope are refused, and nothing else is."""
    keys = {scope: create_key(tmp_path, "t", scope)[1] for scope in SCOPES}
    async with serving(keys=KeyRing(tmp_path)) as (client, _):
        paths = (await client.get("/openapi.json")).json()["paths"]
        routes = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
        assert set(routes) <= set(SCOPE_OF), "a new route has its place in the table of scopes"
        pages = {
            "GET /docs",
            "GET /docs/oauth2-redirect",
            "GET /openapi.json",
            *(f"{method} {path}" for method in ("GET", "HEAD") for path in ("/", "/dashboard/{file}")),
        }
        assert set(SCOPE_OF) - set(routes) == pages
        for route, asked in SCOPE_OF.items():
            method, _, path = route.partition(" ")
            url = concrete(path)
            anonymous = await client.request(method, url)
            if asked == "open":
                assert anonymous.status_code not in {401, 403}, route
                continue
            for headers in ({}, bearer("acl_x_y"), bearer(""), {"Authorization": f"Basic {keys['admin']}"}):
                refused = await client.request(method, url, headers=headers)
                assert refused.status_code == 401, route
                assert refused.headers["www-authenticate"] == "Bearer"
            for scope, key in keys.items():
                answer = await client.request(method, url, headers=bearer(key))
                enough = asked == "metrics" or SCOPES.index(scope) >= SCOPES.index(asked)
                assert (answer.status_code == 403) == (not enough), (route, scope, answer.status_code)
                assert answer.status_code != 401, (route, scope)
                if not enough and not path.startswith("/v2"):
                    assert asked in assert_problem(answer, 403)["detail"]


@run_async
async def test_paths_that_are_none_need_a_key_too(tmp_path: Path) -> None:
    """Nobody learns what there is; whoever has a key gets 404 and 405 as ever."""
    key = create_key(tmp_path, "default", "predict")[1]
    async with serving(keys=KeyRing(tmp_path)) as (client, _):
        assert_problem(await client.get("/nosuch"), 401)
        assert_problem(await client.request("PATCH", "/v1/streams/s"), 401)
        assert_problem(await client.get("/nosuch", headers=bearer(key)), 404)
        assert_problem(await client.request("PATCH", "/v1/streams/s", headers=bearer(key)), 405)
        assert (await client.get("/v2/health/ready")).status_code == 200
        assert (await client.get("/v2")).json() == {"error": (await client.get("/v2")).json()["error"]}


@run_async
async def test_without_keys_everything_is_the_default_tenants(tmp_path: Path) -> None:
    """On loopback; with a key it needs that key, and the streams are the same."""
    ring = KeyRing(tmp_path, clock=(seconds := Seconds()))
    async with serving(keys=ring) as (client, _):
        assert (await client.put("/v1/streams/s", json={"model": "reg"})).status_code == 201
        key = create_key(tmp_path, "default", "admin")[1]
        assert (await client.get("/v1/streams/s")).status_code == 200  # not looked yet
        seconds.now += 1
        assert_problem(await client.get("/v1/streams/s"), 401)
        assert (await client.get("/v1/streams/s", headers=bearer(key))).status_code == 200


@run_async
async def test_a_revoked_key_is_refused_without_a_restart(tmp_path: Path) -> None:
    """After a second at most, on the hot path too; others stay good, and a new one becomes so."""
    first, whole = create_key(tmp_path, "t", "admin")
    other = create_key(tmp_path, "t", "admin")[1]
    seconds = Seconds()
    async with serving(keys=KeyRing(tmp_path, clock=seconds)) as (client, _):
        for path in ("predict", "feedback"):
            await client.put("/v1/streams/s", json={"model": "reg"}, headers=bearer(other))
            body = {"inputs": [[1.0, 2.0]]} | ({"targets": [1.0]} if path == "feedback" else {})
            assert (await client.post(f"/v1/streams/s/{path}", json=body, headers=bearer(whole))).status_code == 200
        revoke_key(tmp_path, first.id)
        new = create_key(tmp_path, "t", "predict")[1]
        seconds.now += 1
        for path in ("/v1/streams/s/predict", "/v1/streams/s/feedback"):
            assert_problem(await client.post(path, json={"inputs": [[1.0, 2.0]]}, headers=bearer(whole)), 401)
        for good in (other, new):
            assert (await client.get("/v1/streams/s", headers=bearer(good))).status_code == 200


def test_keys_are_kept_hashed(tmp_path: Path) -> None:
    """Nothing in the file opens anything, and nobody else on the machine reads it."""
    key, whole = create_key(tmp_path, "t", "predict", note="for the shop")
    text = (tmp_path / FILE).read_text("utf-8")
    assert whole.removeprefix(f"acl_{key.id}_") not in text
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    ring = KeyRing(tmp_path)
    assert ring.key_of(whole) == key
    for wrong in (whole[:-1], whole + "x", key.digest, f"acl_{key.id}_{key.digest}", "", "acl_", f"acl_{key.id}"):
        assert ring.key_of(wrong) is None


def test_the_bootstrap_key_is_admin_of_the_default_tenant(tmp_path: Path) -> None:
    """From a variable or a file; a short one is refused."""
    file = tmp_path / "secret"
    file.write_text(f"{BOOTSTRAP}\n")
    for settings in (Settings(bootstrap_key=BOOTSTRAP), Settings(bootstrap_key_file=file)):
        ring = KeyRing(tmp_path, settings.bootstrap)
        key = ring.key_of(BOOTSTRAP)
        assert key is not None
        assert (key.tenant, key.scope) == ("default", "admin")
        assert ring.key_of("another bootstrap key of these tests") is None
        assert BOOTSTRAP not in repr(settings)
    assert Settings(bootstrap_key="").bootstrap is None  # as compose files pass on what is not set
    with pytest.raises(ConfigurationError, match="shorter than 16"):
        KeyRing(tmp_path, "short")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _ = Settings(bootstrap_key_file=tmp_path / "none").bootstrap


def test_a_file_that_cannot_be_read_opens_nothing(tmp_path: Path) -> None:
    """At the start it is an error; while the service runs, what was good stays so."""
    _, whole = create_key(tmp_path, "t", "predict")
    seconds = Seconds()
    ring = KeyRing(tmp_path, clock=seconds)
    (tmp_path / FILE).write_text("garbage")
    seconds.now += 1
    assert ring.in_force
    assert ring.key_of(whole) is not None
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KeyRing(tmp_path)


def test_no_address_beyond_this_machine_without_a_key(tmp_path: Path) -> None:
    """One sentence that says what to do; a stored key, a bootstrap key or the operator's word opens it."""
    with pytest.raises(ConfigurationError, match="make a key"):
        load_settings({}, host="0.0.0.0", data_dir=tmp_path)
    for given in ({"bootstrap_key": BOOTSTRAP}, {"allow_anonymous": True}):
        assert load_settings({}, host="0.0.0.0", data_dir=tmp_path, **given).port == 8000
    key, _ = create_key(tmp_path, "t", "predict")
    assert load_settings({}, host="::", data_dir=tmp_path).port == 8000
    revoke_key(tmp_path, key.id)
    assert not has_keys(tmp_path)
    with pytest.raises(ConfigurationError):
        load_settings({}, host="::", data_dir=tmp_path)


class Door:
    """A guard, a clock, and requests to it."""

    def __init__(self, data_dir: Path, **given: Any) -> None:
        self.clock = Seconds()
        self.guard = Guard(Settings(**given), KeyRing(data_dir), self.clock)

    async def ask(self, key: str, size: int = 0, method: str = "GET", path: str = "/v1/limits") -> Scope:
        """A request with a body of so many bytes, read to its end."""
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(b"authorization", f"Bearer {key}".encode())],
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": b"x" * size, "more_body": False}

        await self.guard.admit(scope, receive)()
        return scope


@run_async
async def test_a_key_has_a_share_of_requests(tmp_path: Path) -> None:
    """So many at once and so many a second; then 429 says when; its own rate comes before the setting, keys apart."""
    one = create_key(tmp_path, "t", "predict", requests_per_second=4)[1]
    two = create_key(tmp_path, "t", "predict")[1]
    door = Door(tmp_path, key_requests_per_second=2)
    for key, rate in ((one, 4), (two, 2)):
        for _ in range(rate):
            assert (await door.ask(key))[TENANT] == "t"
        with pytest.raises(SaturatedError) as refused:
            await door.ask(key)
        assert refused.value.retry_after_s == 1
    door.clock.now += 0.6
    for _ in range(2):
        await door.ask(one)
    await door.ask(two)
    for key in (one, two):
        with pytest.raises(SaturatedError):
            await door.ask(key)


@run_async
async def test_a_key_has_a_share_of_bytes(tmp_path: Path) -> None:
    """A body may overdraw it once; the next request waits until that is made good."""
    key = create_key(tmp_path, "t", "predict", bytes_per_second=1_000)[1]
    door = Door(tmp_path)
    await door.ask(key, 400)
    await door.ask(key, 3_600)
    with pytest.raises(SaturatedError) as refused:
        await door.ask(key)
    assert refused.value.retry_after_s == 4
    door.clock.now += 3.5
    await door.ask(key)


@run_async
async def test_who_is_refused_uses_up_nothing(tmp_path: Path) -> None:
    """Neither by a wrong key, nor by one that may not do what it asks."""
    key = create_key(tmp_path, "t", "predict", requests_per_second=1)[1]
    door = Door(tmp_path)
    for _ in range(5):
        with pytest.raises(UnauthorizedError):
            await door.ask("acl_x_y")
        with pytest.raises(ForbiddenError):
            await door.ask(key, method="DELETE", path="/v1/models/m")
    await door.ask(key)


@pytest.mark.parametrize(("path", "asked"), [("/v1/streams/v1/feedback", "feedback"), ("/v2/models/stats", "predict")])
def test_names_do_not_change_what_a_path_asks(path: str, asked: KeyScope) -> None:
    """A stream may be called like a part of another path."""
    assert scope_of("POST" if asked == "feedback" else "GET", path) == asked


@pytest.fixture
def command(tmp_path: Path) -> Any:
    """``acclimate keys`` on a directory of its own."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["keys", *words, "--data-dir", str(tmp_path)], env={"COLUMNS": "200"})

    return run


def test_keys_are_made_listed_and_revoked_from_the_terminal(command: Any, tmp_path: Path) -> None:
    """The whole key is shown once; exit codes; JSON."""
    assert "no keys" in command("list").stdout
    made = command("create", "--tenant", "shop", "--scope", "feedback", "--note", "till 3")
    whole = made.stdout.splitlines()[0]
    key = KeyRing(tmp_path).key_of(whole)
    assert key is not None
    assert (key.tenant, key.scope, key.note) == ("shop", "feedback", "till 3")
    assert json.loads(command("create", "--tenant", "a", "--scope", "admin", "--json").stdout)["key"].startswith("acl_")
    listed = json.loads(command("list", "--json").stdout)
    assert [(each["tenant"], each["state"]) for each in listed] == [("shop", "good"), ("a", "good")]
    assert whole not in command("list").stdout
    assert key.digest not in command("list", "--json").stdout
    assert command("revoke", key.id).exit_code == 0
    assert KeyRing(tmp_path).key_of(whole) is None
    assert command("revoke", "nosuch").exit_code == 1
    for bad in ("../x", "", ".", "a/b", "x" * 65):
        assert command("create", "--tenant", bad, "--scope", "admin").exit_code == 1
    assert command("create", "--tenant", "a", "--scope", "root").exit_code == 2
    assert len(read_keys(tmp_path / FILE)) == 2


def test_a_first_key_is_drawn_once(tmp_path: Path) -> None:
    """Readable by its owner alone, good for the server that is told of the file, and never replaced."""
    file = tmp_path / "data/bootstrap.key"
    first = CliRunner().invoke(app, ["keys", "bootstrap", str(file)], env={"COLUMNS": "200"})
    assert first.exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    drawn = file.read_text().strip()
    assert drawn not in first.stdout
    assert f"cat {file}" in first.stdout
    assert CliRunner().invoke(app, ["keys", "bootstrap", str(file)]).exit_code == 0
    assert file.read_text().strip() == drawn
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    settings = Settings(bootstrap_key_file=file, data_dir=tmp_path)
    assert KeyRing(tmp_path, settings.bootstrap).key_of(drawn) is not None
    assert draw_bootstrap_key(tmp_path / "other")
    assert (tmp_path / "other").read_text().strip() != drawn


def test_a_key_that_cannot_be_drawn_says_where(tmp_path: Path) -> None:
    """A folder that is a file."""
    (tmp_path / "file").write_text("")
    refused = CliRunner().invoke(app, ["keys", "bootstrap", str(tmp_path / "file/key")], env={"COLUMNS": "200"})
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert str(tmp_path / "file/key") in refused.stderr
