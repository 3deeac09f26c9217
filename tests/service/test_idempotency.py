"""A request with an idempotency key is done once, and answered alike when it is repeated."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from models import Model
from service.config import Settings
from service.errors import UnavailableError
from service.store import SqliteStore, Store
from service.streams import Streams
from tests.service.http_case import assert_problem, run_async, serving
from tests.service.streams_case import Clock, FailingStore, WaitingStore

ROW = {"inputs": [[0.5, -1.0]], "targets": [1.0]}


async def send(client: httpx.AsyncClient, key: str, body: Any = None, path: str = "/v1/streams/s/feedback") -> Any:
    """Feedback under a key."""
    return await client.post(path, json=ROW if body is None else body, headers={"Idempotency-Key": key})


async def made(client: httpx.AsyncClient, *streams: str) -> None:
    """New streams of the regression model."""
    for stream in streams:
        (await client.put(f"/v1/streams/{stream}", json={"model": "reg"})).raise_for_status()


@run_async
async def test_a_repeat_changes_nothing_and_gets_the_first_answer() -> None:
    """Also with predictions, which a repeat would make differently now; other keys are other requests."""
    async with serving() as (client, _):
        await made(client, "s")
        path = "/v1/streams/s/feedback?return=predictions"
        first, again = await send(client, "k", path=path), await send(client, "k", path=path)
        assert first.status_code == again.status_code == 200
        assert again.content == first.content
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert (await send(client, "l")).json()["stream_version"] == 2
        assert (await client.get("/v1/streams/s")).json()["rows_seen"] == 2


@run_async
async def test_a_key_belongs_to_one_request() -> None:
    """Another body, or another wish, under the same key is refused; in another order of its fields it is the same."""
    async with serving() as (client, _):
        await made(client, "s", "t")
        await send(client, "k", {"inputs": [{"a": 1, "b": 2}], "targets": [1.0]})
        same = await send(client, "k", {"targets": [1.0], "inputs": [{"b": 2, "a": 1}]})
        assert same.headers["idempotent-replayed"] == "true"
        other = await send(client, "k", {"inputs": [{"a": 1, "b": 2}], "targets": [3.0]})
        assert assert_problem(other, 422, "3.0")["errors"][0]["loc"] == ["header", "Idempotency-Key"]
        wish = await send(
            client, "k", {"inputs": [{"a": 1, "b": 2}], "targets": [1.0]}, "/v1/streams/s/feedback?return=predictions"
        )
        assert_problem(wish, 422)
        assert (await send(client, "k", path="/v1/streams/t/feedback")).json()["stream_version"] == 1


@run_async
async def test_a_repeat_while_the_first_runs_is_refused() -> None:
    """409, and the first goes on."""
    store = WaitingStore()
    async with serving(store=store) as (client, _):
        await made(client, "s")
        store.gate.clear()
        first = asyncio.create_task(send(client, "k"))
        await asyncio.to_thread(store.begun.wait, 30)
        assert_problem(await send(client, "k"), 409)
        store.gate.set()
        assert (await first).status_code == 200
        assert (await send(client, "k")).headers["idempotent-replayed"] == "true"


@run_async
async def test_what_was_not_taken_may_be_repeated() -> None:
    """A refusal and a failed commit leave no answer behind."""
    store = FailingStore()
    async with serving(store=store) as (client, _):
        await made(client, "s")
        assert_problem(await send(client, "k", {"inputs": [["x", 1]], "targets": [1.0]}), 422)
        store.error = UnavailableError("no")
        assert_problem(await send(client, "k"), 503)
        store.error = None
        taken = await send(client, "k")
        assert taken.json()["stream_version"] == 1
        assert "idempotent-replayed" not in taken.headers


@run_async
async def test_nothing_but_duplicates_is_answered_alike() -> None:
    """Although no revision was made that the answer could be kept with."""
    async with serving() as (client, _):
        await made(client, "s")
        body = {**ROW, "ids": ["a"]}
        await send(client, "first", body)
        once, twice = await send(client, "k", body), await send(client, "k", body)
        assert once.json()["duplicates"] == 1
        assert twice.content == once.content
        assert twice.headers["idempotent-replayed"] == "true"


@run_async
async def test_items_of_a_request_to_many_are_taken_once() -> None:
    """A repeat takes what was refused before, and only that; a stream may be named twice."""
    async with serving() as (client, _):
        await made(client, "s")
        items = [{"stream": "s", **ROW}, {"stream": "t", **ROW}, {"stream": "s", **ROW}]
        first = await send(client, "k", {"items": items}, "/v1/feedback")
        assert [result.get("stream_version") for result in first.json()["results"]] == [1, None, 2]
        await made(client, "t")
        again = await send(client, "k", {"items": items}, "/v1/feedback")
        assert "idempotent-replayed" not in again.headers
        assert [result.get("stream_version") for result in again.json()["results"]] == [1, 1, 2]
        third = await send(client, "k", {"items": items}, "/v1/feedback")
        assert third.headers["idempotent-replayed"] == "true"
        assert third.json() == again.json()


@run_async
@pytest.mark.parametrize("path", ["/v1/streams/s/feedback", "/v1/feedback"])
async def test_uploads_take_no_key(path: str) -> None:
    """They have names of their own."""
    async with serving() as (client, _):
        await made(client, "s")
        headers = {"Idempotency-Key": "k", "Content-Type": "application/x-ndjson"}
        assert "Upload-Id" in assert_problem(await client.post(path, content=b"", headers=headers), 422)["detail"]


@run_async
@pytest.mark.parametrize("key", ["a b", "x" * 256, "\x7f"])
async def test_a_key_is_visible_ascii(key: str) -> None:
    """And not too long."""
    async with serving() as (client, _):
        await made(client, "s")
        assert_problem(await send(client, key), 422)


def test_answers_outlive_the_process_for_a_day(tmp_path: Path) -> None:
    """The same answer after a restart, and none a second after 24 hours."""
    now = 1_700_000_000.0

    async def life(at: float) -> tuple[int, bool]:
        def streams(settings: Settings, _store: Store, models: dict[str, Model], _clock: Clock) -> Streams:
            return Streams(settings, SqliteStore(tmp_path), models, lambda: at)

        async with serving(streams) as (client, _):
            await made(client, "s")
            answer = await send(client, "k")
            return answer.json()["stream_version"], "idempotent-replayed" in answer.headers

    assert asyncio.run(life(now)) == (1, False)
    assert asyncio.run(life(now + 86_400)) == (1, True)
    assert asyncio.run(life(now + 86_401)) == (2, False)
