"""Streams that name their classes themselves, over HTTP: new labels, too many, late ones, restarts, other settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from models import Model
from models.types import Expert
from service.app import create_app
from service.config import Settings
from service.store import MemoryStore, SqliteStore, Store
from service.streams import Streams
from tests.models.examples import HEAD, small_model
from tests.service.http_case import NOW, assert_problem, run_async
from tests.service.streams_case import crash_copy

ROWS = [[2.0, 0.0], [-2.0, 1.0], [0.0, -2.5]]
NEAR = Expert("near", "protonet", {"hidden": (8, 4)})


def open_model(expert: Expert = HEAD) -> Model:
    """Three ways."""
    return small_model("classification", name="open", ways=3, expert=expert)


@asynccontextmanager
async def serving(store: Store, model: Model | None = None, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A served model whose classes are open, and a client."""
    settings = Settings(data_dir=Path("unused"), **given)
    made = Streams(settings, store, {"open": model or open_model()}, lambda: NOW)
    app = create_app(settings, streams=made)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
    ):
        yield client


async def put(client: httpx.AsyncClient, **config: Any) -> None:
    """Create the stream, or give it other settings."""
    reply = await client.put("/v1/streams/s", json={"model": "open", "config": config})
    assert reply.status_code in (200, 201), reply.text


async def teach(client: httpx.AsyncClient, labels: list[Any], **more: Any) -> httpx.Response:
    """Feedback on the first rows."""
    body = {"inputs": ROWS[: len(labels)], "targets": labels, **more}
    return await client.post("/v1/streams/s/feedback?return=predictions", json=body)


async def ask(client: httpx.AsyncClient, **more: Any) -> Any:
    """A prediction of all rows."""
    return (await client.post("/v1/streams/s/predict", json={"inputs": ROWS, **more})).json()


@run_async
async def test_labels_become_classes_as_they_come() -> None:
    """The model says how many there can be; the stream answers null, then in its own labels, of whatever kind."""
    async with serving(MemoryStore()) as client:
        model = (await client.get("/v1/models/open")).json()
        assert (model["classes"], model["ways"]) == ([], 3)
        frozen = (await client.post("/v1/models/open/predict", json={"inputs": ROWS})).json()
        await put(client)
        first = await ask(client)
        for reply in (frozen, first):
            assert reply["predictions"] == [None, None, None]
            assert (reply["probabilities"], reply["classes"]) == ([[], [], []], [])
        made = (await teach(client, ["left", 7])).json()
        assert (made["predictions"], made["classes"], made["score"]) == ([None, None], [], 0.0)
        for _ in range(5):
            made = (await teach(client, ["left", 7, True])).json()
        assert made["loss"] < 1.0
        reply = await ask(client)
        assert reply["classes"] == ["left", 7, True]
        assert reply["predictions"] == ["left", 7, True]


@run_async
async def test_more_labels_than_ways_are_refused_and_change_nothing() -> None:
    """One clear problem with the row; the revision, the rows and the answers stay; known labels go on."""
    async with serving(MemoryStore()) as client:
        await put(client)
        await teach(client, ["a", "b"])
        before, answer = (await client.get("/v1/streams/s")).json(), await ask(client)
        refused = await teach(client, ["a", "c", "d"])
        assert_problem(refused, 422)
        (error,) = refused.json()["errors"]
        assert error["loc"][-2:] == ["targets", 2]
        assert "named 3 already" in error["msg"]
        assert (await client.get("/v1/streams/s")).json() == before
        assert await ask(client) == answer
        assert (await teach(client, ["b", "a", "c"])).status_code == 200


@run_async
async def test_a_label_in_a_duplicate_row_takes_no_place() -> None:
    """What is not learned is not named."""
    async with serving(MemoryStore()) as client:
        await put(client)
        await teach(client, ["a", "b"], ids=["1", "2"])
        assert (await teach(client, ["z", "c"], ids=["1", "3"])).json()["accepted"] == 1
        assert (await ask(client))["classes"] == ["a", "b", "c"]


@run_async
async def test_late_labels_may_be_new_ones() -> None:
    """Rows that were predicted before there was any label are scored by what was answered then, and name labels."""
    async with serving(MemoryStore()) as client:
        await put(client)
        early = await ask(client, ids=["1", "2", "3"])
        assert early["predictions"] == [None, None, None]
        await teach(client, ["a", "b"])
        assert await ask(client, ids=["1", "2", "3"]) == early
        mixed = await ask(client, inputs=ROWS[:2], ids=["1", "4"])
        assert mixed["classes"] == ["a", "b"]
        assert mixed["probabilities"][0] == [0.0, 0.0]
        labels = [{"id": "1", "target": "a"}, {"id": "4", "target": "b"}, {"id": "3", "target": "c"}]
        learned = (await client.post("/v1/streams/s/labels", json={"labels": labels})).json()
        assert learned["accepted"] == 3
        assert learned["score"] <= 1 / 3  # the first answers were none
        assert 0.0 < learned["loss"] < 5.0
        assert (await ask(client))["classes"] == ["a", "b", "c"]


@run_async
async def test_names_survive_crash_restart_and_reset(tmp_path: Path) -> None:
    """From the log alone, from a snapshot, and after a reset the classes are as they were, with their kinds."""
    folder = tmp_path / "live"
    store = SqliteStore(folder)
    async with serving(store) as client:
        await put(client)
        for labels in (["a"], [1, "a"], ["1", 1, "a"]):
            await teach(client, labels)
        answer = await ask(client)
        assert answer["classes"] == ["a", 1, "1"]
        async with serving(crash_copy(folder, "crashed")) as after_crash:
            assert await ask(after_crash) == answer
    async with serving(SqliteStore(folder)) as client:
        assert await ask(client) == answer
        await client.post("/v1/streams/s/reset")
        reset = await ask(client)
        assert reset["classes"] == answer["classes"]
        assert reset["probabilities"] != answer["probabilities"]
    async with serving(SqliteStore(folder)) as client:
        assert await ask(client) == reset


@run_async
async def test_other_settings_keep_the_names() -> None:
    """A stream that learns its retained rows again keeps the slots that older rows have named."""
    async with serving(MemoryStore(), open_model(NEAR), retained_rows=3, snapshot_rows=2) as client:
        await put(client)
        for labels in (["a"], ["b"], *[["c", "b"]] * 6):
            await teach(client, labels)
        before = await ask(client)
        assert before["classes"] == ["a", "b", "c"]
        await put(client, window_rows=8)
        after = await ask(client)
        assert after["classes"] == ["a", "b", "c"]
        assert after["probabilities"] != before["probabilities"]
