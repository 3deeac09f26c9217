"""Learned rows, read back: latest first, page by page, each with what was predicted before it was learned."""

from typing import Any

import httpx
import pytest

from tests.service.http_case import assert_problem, run_async, serving
from tests.service.streams_case import batches


async def rows(client: httpx.AsyncClient, **asked: Any) -> tuple[list[Any], str | None]:
    """One page."""
    page = (await client.get("/v1/streams/s/rows", params=asked)).raise_for_status().json()
    return page["items"], page["next_cursor"]


@run_async
async def test_rows_are_told_latest_first_with_what_was_predicted() -> None:
    """Inputs, labels, ids and times as they were sent; predictions as they were answered, to seven digits."""
    async with serving() as (client, _):
        await client.put("/v1/streams/s", json={"model": "reg"})
        said: list[Any] = []
        for number, (inputs, targets) in enumerate(batches(3)):
            names = [f"a{number}", f"b{number}"]
            body = {"inputs": inputs, "targets": targets, "ids": names, "times": [number, number + 0.5]}
            answer = await client.post("/v1/streams/s/feedback?return=predictions", json=body)
            made = answer.raise_for_status().json()
            said += zip(names, inputs, targets, made["predictions"], made["std"], strict=True)
        items, more = await rows(client)
        assert more is None
        assert [item["row"] for item in items] == [5, 4, 3, 2, 1, 0]
        assert [item["revision"] for item in items] == [3, 3, 2, 2, 1, 1]
        for item, (name, row, target, prediction, std) in zip(items, reversed(said), strict=True):
            assert (item["id"], item["input"], item["target"]) == (name, row, target)
            assert (item["prediction"], item["std"]) == (pytest.approx(prediction, 1e-6), pytest.approx(std, 1e-6))
            assert item["probability"] is None
        assert [item["time"] for item in items[:2]] == [2.5, 2.0]


@run_async
async def test_pages_of_rows_follow_each_other_over_batches_and_resets() -> None:
    """Any page size gives the same rows once each; a reset has none."""
    async with serving() as (client, _):
        await client.put("/v1/streams/s", json={"model": "reg"})
        for number, count in enumerate([1, 7, 2, 40, 3]):
            ((inputs, targets),) = batches(1, rows=count, seed=number)
            (
                await client.post("/v1/streams/s/feedback", json={"inputs": inputs, "targets": targets})
            ).raise_for_status()
            await client.post("/v1/streams/s/reset")
        everything = [item["row"] for item in (await rows(client))[0]]
        assert everything == list(range(52, -1, -1))
        for limit in (1, 5, 53):
            found: list[int] = []
            asked: dict[str, Any] = {"limit": limit}
            while True:
                items, more = await rows(client, **asked)
                found += [item["row"] for item in items]
                if more is None:
                    break
                asked["before"] = more
            assert found == everything
        assert await rows(client, before=0) == ([], None)
        assert [item["row"] for item in (await rows(client, before=9_000, limit=1))[0]] == [52]
        assert_problem(await client.get("/v1/streams/none/rows"), 404)
        assert_problem(await client.get("/v1/streams/s/rows?before=-1"), 422)


@run_async
async def test_a_late_row_is_told_with_what_was_answered_then() -> None:
    """Not with what the stream would have said when its label came."""
    async with serving() as (client, _):
        await client.put("/v1/streams/s", json={"model": "cls"})
        body = {"inputs": [[0.5, -1.0]], "ids": ["late"]}
        answered = (await client.post("/v1/streams/s/predict", json=body)).raise_for_status().json()
        for inputs, targets in batches(4, task="cls"):
            await client.post("/v1/streams/s/feedback", json={"inputs": inputs, "targets": targets})
        late = {"labels": [{"id": "late", "target": "yes"}]}
        (await client.post("/v1/streams/s/labels", json=late)).raise_for_status()
        (item, *_), _ = await rows(client)
        assert (item["id"], item["prediction"]) == ("late", answered["predictions"][0])
        assert item["probability"] == pytest.approx(max(answered["probabilities"][0]), 1e-6)
        assert item["std"] is None
