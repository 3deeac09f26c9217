"""Models that come, become active and go while the service runs."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from models import Model, read_bundle, write_bundle
from service.config import Settings
from service.store import SqliteStore, Store
from service.streams import Streams
from tests.models.examples import older_bundle, small_model
from tests.service.http_case import assert_problem, run_async, serving, small_models
from tests.service.streams_case import PROBE, batches

SHIPPED = Path("models/shipped/sinusoid.safetensors").read_bytes()
FILE = {"Content-Type": "application/octet-stream"}


def other(shift: float = 0.25) -> Model:
    """Another version of the regression model."""
    model = small_model("regression", name="reg")
    return model._replace(meta={name: value + shift for name, value in model.meta.items()})


async def upload(client: httpx.AsyncClient, model: Model, name: str = "reg") -> httpx.Response:
    """Add a version."""
    return await client.post(f"/v1/models/{name}/versions", content=write_bundle(model), headers=FILE)


async def activate(client: httpx.AsyncClient, version: int, name: str = "reg") -> httpx.Response:
    """Make a version the active one."""
    return await client.post(f"/v1/models/{name}/activate", json={"version": version})


async def teach(client: httpx.AsyncClient, stream: str, count: int, seed: int = 0) -> None:
    """Feedback to a stream."""
    for inputs, targets in batches(count, seed=seed):
        body = {"inputs": inputs, "targets": targets}
        (await client.post(f"/v1/streams/{stream}/feedback", json=body)).raise_for_status()


async def predicted(client: httpx.AsyncClient, path: str) -> Any:
    """Predictions alone."""
    answer = await client.post(f"{path}/predict", json={"inputs": PROBE})
    return answer.raise_for_status().json()["predictions"]


@run_async
async def test_an_uploaded_version_waits_to_be_activated() -> None:
    """The same bytes are the same version; the frozen start and new streams follow the active one."""
    async with serving() as (client, _):
        start = await predicted(client, "/v1/models/reg")
        for _ in range(2):
            added = await upload(client, other())
            assert (added.status_code, added.json()) == (201, {"name": "reg", "version": 2})
        assert await predicted(client, "/v1/models/reg") == start
        info = (await activate(client, 2)).json()
        assert (info["versions"], info["active_version"]) == ([1, 2], 2)
        assert await predicted(client, "/v1/models/reg") != start
        assert (await client.put("/v1/streams/s", json={"model": "reg"})).json()["model_version"] == 2
        assert (await activate(client, 1)).json()["active_version"] == 1
        assert await predicted(client, "/v1/models/reg") == start


@run_async
async def test_a_file_is_told_by_what_it_says() -> None:
    """However it was written: an older file of a model is the same version of it."""
    model = read_bundle(SHIPPED)
    older = older_bundle(model)
    assert write_bundle(model) != older
    async with serving() as (client, _):
        for written in (SHIPPED, older, write_bundle(read_bundle(older))):
            added = await client.post("/v1/models/new/versions", content=written, headers=FILE)
            assert added.json()["version"] == 1


@run_async
async def test_an_unknown_model_is_made_and_serves_nothing_before_its_activation() -> None:
    """It is listed, and says what it takes; streams of it are refused until then."""
    async with serving() as (client, _):
        assert (await upload(client, other(), "new")).json() == {"name": "new", "version": 1}
        info = (await client.get("/v1/models/new")).json()
        assert (info["active_version"], [feature["name"] for feature in info["features"]]) == (None, ["a", "b"])
        assert (
            "activate one first"
            in assert_problem(await client.post("/v1/models/new/predict", json={"inputs": PROBE}), 409)["detail"]
        )
        assert_problem(await client.put("/v1/streams/s", json={"model": "new"}), 409)
        assert_problem(await activate(client, 2, "new"), 404)
        assert_problem(await activate(client, 1, "none"), 404)
        await activate(client, 1, "new")
        assert (await client.put("/v1/streams/s", json={"model": "new"})).status_code == 201


@run_async
async def test_streams_learn_their_rows_again_from_the_new_start() -> None:
    """Hot and cold ones predict as if they had begun with it, say so as a revision and an event, and go back."""
    async with serving(hot_streams_max=1) as (client, streams):
        for stream in ("hot", "cold", "idle"):
            await client.put(f"/v1/streams/{stream}", json={"model": "reg"})
        await client.put("/v1/streams/c", json={"model": "cls"})
        for stream in ("cold", "hot"):
            await teach(client, stream, 5)
        before = await predicted(client, "/v1/streams/hot")
        await upload(client, other())
        await activate(client, 2)
        await streams._activation.done()
        await client.put("/v1/streams/fresh", json={"model": "reg"})
        await teach(client, "fresh", 5)
        expected = await predicted(client, "/v1/streams/fresh")
        for stream, revision in (("hot", 6), ("cold", 6), ("idle", 1)):
            info = (await client.get(f"/v1/streams/{stream}")).json()
            assert (info["model_version"], info["stream_version"]) == (2, revision)
            (event,) = (await client.get(f"/v1/streams/{stream}/events")).json()["items"]
            assert (event["kind"], event["revision"]) == ("activate", revision)
        assert await predicted(client, "/v1/streams/hot") == await predicted(client, "/v1/streams/cold") == expected
        assert (await client.get("/v1/streams/hot/revisions?after=5")).json()["items"][0]["model_version"] == 2
        assert (await client.get("/v1/streams/c")).json()["stream_version"] == 0
        await activate(client, 1)
        await streams._activation.done()
        assert await predicted(client, "/v1/streams/hot") == before


@run_async
async def test_no_request_fails_while_streams_are_brought_along() -> None:
    """Predictions and feedback under way all along; every acknowledged row is there afterwards."""
    async with serving() as (client, streams):
        names = [f"s{number}" for number in range(8)]
        for name in names:
            await client.put(f"/v1/streams/{name}", json={"model": "reg"})
            await teach(client, name, 12)
        await upload(client, other())

        async def busy(name: str) -> None:
            for seed in range(3):
                await teach(client, name, 4, seed=seed)
                await predicted(client, f"/v1/streams/{name}")

        async def swap() -> None:
            for version in (2, 1, 2):
                await activate(client, version)
                await asyncio.sleep(0)

        await asyncio.gather(*(busy(name) for name in names), swap())
        await streams._activation.done()
        for name in names:
            info = (await client.get(f"/v1/streams/{name}")).json()
            assert (info["model_version"], info["rows_seen"]) == (2, 2 * 24)


@run_async
async def test_what_a_stop_came_between_is_done_after_the_next_start(tmp_path: Path) -> None:
    """Also where the new version is given on the command line: ``serve --activate``."""

    def streams(model: Model, *, activate: bool) -> Any:
        def made(settings: Settings, _store: Store, _models: Any, clock: Any) -> Streams:
            given = {**small_models(), "reg": model}
            return Streams(settings, SqliteStore(tmp_path), given, clock, activate=activate)

        return made

    async with serving(streams(small_models()["reg"], activate=False)) as (client, _):
        await client.put("/v1/streams/s", json={"model": "reg"})
        await teach(client, "s", 3)
    for _ in range(2):
        async with serving(streams(other(), activate=True)) as (client, made):
            await made._activation.done()
            assert (await client.get("/v1/streams/s")).json()["model_version"] == 2
            await teach(client, "s", 1, seed=9)


@run_async
async def test_a_roll_back_across_an_activation_learns_the_rows_again() -> None:
    """The stream stays on its version: a state of the other one means nothing to it."""
    async with serving() as (client, streams):
        await client.put("/v1/streams/s", json={"model": "reg"})
        await teach(client, "s", 4)
        await upload(client, other())
        await activate(client, 2)
        await streams._activation.done()
        await client.post("/v1/streams/s/rollback", json={"revision": 2})
        await client.put("/v1/streams/t", json={"model": "reg"})
        await teach(client, "t", 2)
        assert await predicted(client, "/v1/streams/s") == await predicted(client, "/v1/streams/t")
        assert (await client.get("/v1/streams/s")).json()["model_version"] == 2


@run_async
async def test_labels_come_late_to_predictions_of_another_version() -> None:
    """They are learned, and scored against what was answered; beside those of the present version in one request."""
    async with serving() as (client, streams):
        await client.put("/v1/streams/s", json={"model": "reg"})
        said = (await client.post("/v1/streams/s/predict", json={"inputs": PROBE[:1], "ids": ["old"]})).json()
        await upload(client, other())
        await activate(client, 2)
        await streams._activation.done()
        await client.post("/v1/streams/s/predict", json={"inputs": PROBE[1:2], "ids": ["new"]})
        target = said["predictions"][0] + 2.0
        one = await client.post("/v1/streams/s/labels", json={"labels": [{"id": "old", "target": target}]})
        assert one.json()["accepted"] == 1
        assert one.json()["score"] == pytest.approx(2.0)
        await client.post("/v1/streams/s/predict", json={"inputs": PROBE[:1], "ids": ["third"]})
        await activate(client, 1)
        await streams._activation.done()
        await client.post("/v1/streams/s/predict", json={"inputs": PROBE[:1], "ids": ["fourth"]})
        both = [{"id": name, "target": 1.0} for name in ("new", "third", "fourth", "old")]
        answer = (await client.post("/v1/streams/s/labels", json={"labels": both})).json()
        assert (answer["accepted"], answer["duplicates"]) == (3, 1)


@run_async
async def test_a_model_goes_when_nobody_is_bound_to_it() -> None:
    """409 before, 204 then, 404 afterwards; its versions begin anew."""
    async with serving() as (client, _):
        await predicted(client, "/v1/models/reg")
        await client.put("/v1/streams/s", json={"model": "reg"})
        assert_problem(await client.delete("/v1/models/reg"), 409)
        await client.delete("/v1/streams/s")
        assert (await client.delete("/v1/models/reg")).status_code == 204
        assert_problem(await client.delete("/v1/models/reg"), 404)
        assert_problem(await client.get("/v1/models/reg"), 404)
        assert (await upload(client, other())).json()["version"] == 1


@pytest.mark.parametrize("body", [b"", b"garbage" * 50, b"\xff" * 9])
@run_async
async def test_a_body_that_is_no_bundle_is_refused(body: bytes) -> None:
    """With the reason; other media types and what is too large are, too, and nothing has changed."""
    async with serving(bundle_bytes_max=500) as (client, _):
        path = "/v1/models/reg/versions"
        assert "bundle" in assert_problem(await client.post(path, content=body, headers=FILE), 422)["detail"]
        assert_problem(await client.post(path, json={}), 415)
        assert_problem(await upload(client, other()), 413)
        assert (await client.get("/v1/models/reg")).json()["versions"] == [1]
