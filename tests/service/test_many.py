"""Many streams in one request: each is answered as if it had been asked alone."""

from typing import Any

import httpx
import pytest

from tests.service.http_case import assert_problem, run_async, serving
from tests.service.streams_case import PROBE, batches

ITEM = {"stream": "s1", "inputs": PROBE, "targets": [1.0, 2.0, 3.0]}


async def put(client: httpx.AsyncClient, *names: str) -> None:
    """Create streams of the regression model, each taught a batch of its own."""
    for number, name in enumerate(names):
        await client.put(f"/v1/streams/{name}", json={"model": "reg"})
        inputs, targets = batches(1, seed=number)[0]
        await client.post(f"/v1/streams/{name}/feedback", json={"inputs": inputs, "targets": targets})


async def results(client: httpx.AsyncClient, path: str, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of a request that is taken."""
    answer = await client.post(path, json={"items": items})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


@run_async
async def test_each_stream_predicts_as_if_alone() -> None:
    """In the order of the items, one stream as often as it is named."""
    async with serving() as (client, _):
        await put(client, "s1", "s2")
        alone = [
            (await client.post(f"/v1/streams/{name}/predict", json={"inputs": PROBE, "interval": 0.9})).json()
            for name in ("s2", "s1", "s2")
        ]
        items = [{"stream": name, "inputs": PROBE, "interval": 0.9} for name in ("s2", "s1", "s2")]
        assert await results(client, "/v1/predict", *items) == alone


@run_async
async def test_the_frozen_start_answers_for_a_stream_that_is_not_there() -> None:
    """If its model is stated; it is not created by that."""
    async with serving() as (client, _):
        initial = (await client.post("/v1/models/reg/predict", json={"inputs": PROBE})).json()
        found = await results(
            client,
            "/v1/predict",
            {"stream": "new", "model": "reg", "inputs": PROBE},
            {"stream": "new", "inputs": PROBE},
            {"stream": "new", "model": "none", "inputs": PROBE},
            {"stream": "new", "model": "reg", "inputs": PROBE, "ids": ["a", "b", "c"]},
        )
        assert found[0] == initial | {"stream": "new"}
        assert [result["error"]["status"] for result in found[1:]] == [404, 404, 404]
        assert (await client.get("/v1/streams/new")).status_code == 404


@run_async
async def test_each_stream_learns_as_if_alone() -> None:
    """Items of one stream in their order; one that is not there is created where its model is stated."""
    first, second = ({"inputs": inputs, "targets": targets} for inputs, targets in batches(2, seed=9))
    async with serving() as (client, _):
        await put(client, "s1", "s2")
        found = await results(
            client,
            "/v1/feedback",
            {"stream": "s1", **first},
            {"stream": "new", "model": "reg", **first},
            {"stream": "s1", **second},
        )
        assert [result["stream_version"] for result in found] == [2, 1, 3]
        await client.put("/v1/streams/other", json={"model": "reg"})
        alone = await client.post("/v1/streams/other/feedback", json=first)
        assert found[1] == alone.json() | {"stream": "new"}


@run_async
async def test_the_trouble_of_an_item_is_its_own() -> None:
    """It stands in its place, as a problem without an echo, and the others are taken."""
    async with serving() as (client, _):
        await put(client, "s1")
        found = await results(
            client,
            "/v1/feedback",
            {"stream": "s1", "inputs": [["secret", 1.0]], "targets": [1.0]},
            {"stream": "s1", "inputs": PROBE, "targets": [1.0]},
            {"stream": "nobody", "inputs": PROBE, "targets": [1.0, 2.0, 3.0]},
            {"stream": "s1", "model": "cls", "inputs": PROBE, "targets": [1.0, 2.0, 3.0]},
            ITEM,
        )
        assert [result["error"]["status"] for result in found[:4]] == [422, 422, 404, 409]
        assert found[0]["error"]["errors"][0]["loc"] == ["inputs", 0, "a"]
        assert "secret" not in str(found)
        assert (found[4]["accepted"], found[4]["stream_version"]) == (3, 2)
        [found_conflict] = await results(client, "/v1/predict", {"stream": "s1", "model": "cls", "inputs": PROBE})
        assert found_conflict["error"]["status"] == 409


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, ["items"]),
        ({"items": []}, ["items"]),
        ({"items": [ITEM], "more": 1}, ["more"]),
        ({"items": [3]}, ["items", 0]),
        ({"items": [ITEM, {"inputs": PROBE}]}, ["items", 1, "stream"]),
        ({"items": [ITEM, ITEM | {"stream": "a b"}]}, ["items", 1, "stream"]),
        ({"items": [ITEM | {"model": 3}]}, ["items", 0, "model"]),
        ({"items": [ITEM, ITEM]}, ["items"]),
    ],
)
@run_async
async def test_what_is_no_list_of_items_is_refused_whole(body: dict[str, Any], loc: list[Any]) -> None:
    """Nothing of it is taken; nor are more rows than a batch may have."""
    async with serving(batch_rows_max=5) as (client, _):
        await put(client, "s1")
        assert assert_problem(await client.post("/v1/feedback", json=body), 422)["errors"][0]["loc"] == loc
        assert (await client.get("/v1/streams/s1")).json()["stream_version"] == 1
