"""Tenants see nothing of each other: streams, models, uploads, events, webhooks, repeats, files on disk."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
from typer.testing import CliRunner

from models import write_bundle
from service.app import create_app
from service.cli import app as cli
from service.config import Settings
from service.keys import FILE, KeyRing, create_key
from service.shards import lay_out
from service.store import SqliteStore
from service.tenants import folder_of
from tests.models.examples import small_model
from tests.service.crew_case import crew_of, names_of
from tests.service.http_case import assert_problem, run_async, serving
from tests.service.streams_case import PROBE, WaitingStore, batches, opened

NDJSON = {"Content-Type": "application/x-ndjson"}
FILE_TYPE = {"Content-Type": "application/octet-stream"}
ROWS = [{"inputs": inputs, "targets": targets} for inputs, targets in batches(3)]


def as_tenant(client: httpx.AsyncClient, key: str) -> httpx.AsyncClient:
    """The same service, asked by another key."""
    return httpx.AsyncClient(
        transport=client._transport, base_url="http://test", headers={"Authorization": f"Bearer {key}"}
    )


def admins(data_dir: Path, *tenants: str) -> list[str]:
    """A key for each."""
    return [create_key(data_dir, tenant, "admin")[1] for tenant in tenants]


async def predicted(client: httpx.AsyncClient, stream: str = "s") -> Any:
    """What a stream answers."""
    answer = await client.post(f"/v1/streams/{stream}/predict", json={"inputs": PROBE})
    return answer.raise_for_status().json()["predictions"]


@run_async
async def test_streams_of_the_same_name_are_different_streams(tmp_path: Path) -> None:
    """Each learns its own rows; what one has is 404 to the other, on every route of a stream, and in every list."""
    keys = admins(tmp_path, "default", "a", "b")
    async with serving(keys=KeyRing(tmp_path)) as (plain, _):
        ours, theirs, third = (as_tenant(plain, key) for key in keys)
        for client, rows in ((ours, ROWS[:1]), (theirs, ROWS[:2])):
            await client.put("/v1/streams/s", json={"model": "reg"})
            for body in rows:
                (await client.post("/v1/streams/s/feedback", json=body)).raise_for_status()
        assert (await ours.get("/v1/streams/s")).json()["rows_seen"] == 2
        assert (await theirs.get("/v1/streams/s")).json()["rows_seen"] == 4
        assert await predicted(ours) != await predicted(theirs)
        asked: list[tuple[str, str, Any]] = [
            ("GET", "", None),
            ("DELETE", "", None),
            ("POST", "/predict", {"inputs": PROBE}),
            ("POST", "/feedback", ROWS[0]),
            ("POST", "/labels", {"labels": [{"id": "x", "target": 1.0}]}),
            ("POST", "/reset", None),
            ("POST", "/rollback", {"revision": 0}),
            ("GET", "/events", None),
            ("GET", "/revisions", None),
            ("GET", "/snapshot", None),
            ("GET", "/uploads/u", None),
        ]
        for method, path, body in asked:
            assert_problem(await third.request(method, f"/v1/streams/s{path}", json=body), 404)
        assert (await third.get("/v1/streams")).json()["items"] == []
        assert [item["rows_seen"] for item in (await theirs.get("/v1/streams")).json()["items"]] == [4]
        many = await third.post("/v1/feedback", json={"items": [{"stream": "s", **ROWS[0]}]})
        assert many.json()["results"][0]["error"]["status"] == 404
        await theirs.delete("/v1/streams/s")
        assert (await ours.get("/v1/streams/s")).json()["rows_seen"] == 2


@run_async
async def test_nobody_waits_for_another_tenants_commits() -> None:
    """While all that one has sent waits for its disk, another learns and predicts: queues and threads are its own."""
    slow = WaitingStore()
    async with opened(slow) as theirs, opened() as ours:
        for streams in (theirs, ours):
            await streams.put("s", "reg")
            await streams.put("t", "reg")
        slow.gate.clear()
        slow.begun.clear()
        waiting = [asyncio.ensure_future(theirs.feedback(name, *batch)) for name in ("s", "t") for batch in batches(20)]
        assert await asyncio.to_thread(slow.begun.wait, 30)
        async with asyncio.timeout(30):
            for batch in batches(3):
                await ours.feedback("s", *batch)
            assert (await ours.predict("s", PROBE)).stream_version == 3
        assert not any(each.done() for each in waiting)
        slow.gate.set()
        await asyncio.gather(*waiting)


@run_async
async def test_uploaded_models_are_a_tenants_own(tmp_path: Path) -> None:
    """Those that the service was given are everybody's to read; an activation is the tenant's alone."""
    keys = admins(tmp_path, "a", "b")
    model = small_model("regression", name="reg")
    other = write_bundle(model._replace(meta={name: value + 0.25 for name, value in model.meta.items()}))
    async with serving(keys=KeyRing(tmp_path)) as (plain, _):
        ours, theirs = (as_tenant(plain, key) for key in keys)
        for name in ("reg", "new"):
            added = await ours.post(f"/v1/models/{name}/versions", content=other, headers=FILE_TYPE)
            await ours.post(f"/v1/models/{name}/activate", json={"version": added.json()["version"]})
        assert (await ours.get("/v1/models/reg")).json()["active_version"] == 2
        assert (await theirs.get("/v1/models/reg")).json()["versions"] == [1]
        assert_problem(await theirs.get("/v1/models/new"), 404)
        assert [item["name"] for item in (await theirs.get("/v1/models")).json()["items"]] == ["cls", "reg"]
        assert "new" not in (await theirs.get("/v2/models")).text
        assert (await theirs.get("/v2/models/new/ready")).status_code == 404
        assert await _initial(ours) != await _initial(theirs)


async def _initial(client: httpx.AsyncClient) -> Any:
    return (await client.post("/v1/models/reg/predict", json={"inputs": PROBE})).json()["predictions"]


@run_async
async def test_uploads_repeats_and_webhooks_are_a_tenants_own(tmp_path: Path) -> None:
    """The same Upload-Id and Idempotency-Key are others for another tenant; so is the list of webhooks."""
    keys = admins(tmp_path, "a", "b")
    async with serving(keys=KeyRing(tmp_path), webhook_private=True) as (plain, _):
        ours, theirs = (as_tenant(plain, key) for key in keys)
        line = json.dumps({"stream": "s", "model": "reg", "input": [0.5, 1.0], "target": 1.0})
        for client in (ours, theirs):
            sent = await client.post("/v1/feedback", content=line, headers=NDJSON | {"Upload-Id": "u"})
            assert json.loads(sent.text.splitlines()[-1])["accepted"] == 1
            once = await client.post("/v1/streams/s/feedback", json=ROWS[0], headers={"Idempotency-Key": "k"})
            assert "idempotent-replayed" not in once.headers
        await ours.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/", "events": ["drift"]})
        assert (await theirs.get("/v1/webhooks")).json()["items"] == []
        assert len((await ours.get("/v1/webhooks")).json()["items"]) == 1


@run_async
async def test_metrics_of_all_tenants_are_the_operators(tmp_path: Path) -> None:
    """The others see themselves; open by a setting, everybody sees all."""
    keys = admins(tmp_path, "default", "a")
    for metrics_open in (False, True):
        async with serving(keys=KeyRing(tmp_path), metrics_open=metrics_open) as (plain, _):
            operator, ours = (as_tenant(plain, key) for key in keys)
            await ours.put("/v1/streams/s", json={"model": "reg"})
            await ours.post("/v1/streams/s/feedback", json=ROWS[0])
            learned = 'acclimate_labelled_rows_total{outcome="learned"'
            assert f'{learned},tenant="a"}} 2.0' in (await operator.get("/metrics")).text
            anonymous = await plain.get("/metrics")
            assert anonymous.status_code == (200 if metrics_open else 401)
            if not metrics_open:
                assert f"{learned}}} 2.0" in (await ours.get("/metrics")).text
                assert "tenant=" not in (await ours.get("/metrics")).text


@run_async
async def test_workers_serve_tenants_wherever_their_streams_are(tmp_path: Path) -> None:
    """A request at the wrong worker is handed on with its key; lists and many streams stay within the tenant."""
    keys = admins(tmp_path, "a", "b")
    names = [names_of(worker, 1)[0] for worker in range(2)]
    async with crew_of(keys=KeyRing(tmp_path)) as workers:
        assert_problem(await workers[0].client.get(f"/v1/streams/{names[1]}"), 401)
        ours = [as_tenant(worker.client, keys[0]) for worker in workers]
        theirs = [as_tenant(worker.client, keys[1]) for worker in workers]
        for name in names:
            assert (await ours[0].put(f"/v1/streams/{name}", json={"model": "reg"})).status_code == 201
            assert (await ours[1].post(f"/v1/streams/{name}/feedback", json=ROWS[0])).json()["accepted"] == 2
            assert_problem(await theirs[0].get(f"/v1/streams/{name}"), 404)
        items = {"items": [{"stream": name, **ROWS[1]} for name in names]}
        found = (await ours[1].post("/v1/feedback", json=items)).json()["results"]
        assert [result["rows_seen"] for result in found] == [4, 4]
        refused = (await theirs[1].post("/v1/feedback", json=items)).json()["results"]
        assert [result["error"]["status"] for result in refused] == [404, 404]
        for client in ours:
            listed = (await client.get("/v1/streams")).json()["items"]
            assert [item["stream"] for item in listed] == sorted(names)
        assert (await theirs[0].get("/v1/streams")).json()["items"] == []


@run_async
async def test_there_is_a_limit_of_tenants(tmp_path: Path) -> None:
    """One more is told so, and the others go on."""
    keys = admins(tmp_path, "a", "b")
    async with serving(keys=KeyRing(tmp_path), tenants_max=2) as (plain, _):
        ours, theirs = (as_tenant(plain, key) for key in keys)
        assert (await ours.get("/v1/streams")).status_code == 200
        assert "ACCLIMATE_TENANTS_MAX" in assert_problem(await theirs.get("/v1/streams"), 503)["detail"]
        assert_problem(await theirs.post("/v1/streams/s/predict", json={"inputs": PROBE}), 503)
        assert (await ours.get("/v1/streams")).status_code == 200


def test_tenants_are_on_disk_apart_and_come_back(tmp_path: Path) -> None:
    """A folder each, in backups too; after a restart everything is there; fsck, export and reshard know them."""
    home = tmp_path / "home"
    key = create_key(home, "shop", "admin")[1]

    async def life(data_dir: Path) -> int:
        app = create_app(Settings(data_dir=data_dir))
        async with app.router.lifespan_context(app):
            client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
            ours = as_tenant(client, key)
            await ours.put("/v1/streams/s", json={"model": "sinusoid"})
            answer = await ours.post("/v1/streams/s/feedback", json={"inputs": [[0.5]], "targets": [1.0]})
            return int(answer.raise_for_status().json()["rows_seen"])

    assert asyncio.run(life(home)) == 1
    assert asyncio.run(life(home)) == 2
    assert folder_of(home, "shop") == home / "tenants" / "shop"
    copy, back = tmp_path / "copy", tmp_path / "back"

    def run(*words: object) -> str:
        result = CliRunner().invoke(cli, [str(word) for word in words], env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.stderr
        return result.stdout

    run("backup", "--data-dir", home, "--to", copy)
    run("restore", "--from", copy, "--data-dir", back)
    assert (back / FILE).is_file()
    assert asyncio.run(life(back)) == 3
    assert "1 streams" in run("fsck", "--data-dir", back)
    out = tmp_path / "rows.parquet"
    assert "3 rows" in run("export", "--data-dir", back, "--tenant", "shop", "--model", "sinusoid", "--out", out)
    run("reshard", "--data-dir", back, "--shards", 2)
    found = []
    for directory in lay_out(back, 2).directories:
        store = SqliteStore(folder_of(directory, "shop"))
        found += [record.rows_seen for record, _ in store.page("", None, 9, "")]
        store.close()
    assert found == [3]
    run("reshard", "--data-dir", back, "--shards", 1)
    assert "1 streams" in run("fsck", "--data-dir", back)
