"""A stream's past: its revisions, roll-backs, and the whole stream as a file."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from models import Model, write_bundle
from service.config import Settings
from service.store import SqliteStore, Store
from service.streams import Streams
from tests.models.examples import small_model
from tests.service.http_case import assert_problem, run_async, serving
from tests.service.streams_case import NOW, PROBE, Clock, batches

FILE = {"Content-Type": "application/octet-stream"}


async def teach(client: httpx.AsyncClient, count: int, *, stream: str = "s", seed: int = 0) -> None:
    """Create the stream if need be, and teach it batches."""
    (await client.put(f"/v1/streams/{stream}", json={"model": "reg"})).raise_for_status()
    for inputs, targets in batches(count, seed=seed):
        body = {"inputs": inputs, "targets": targets}
        (await client.post(f"/v1/streams/{stream}/feedback", json=body)).raise_for_status()


async def predicted(client: httpx.AsyncClient, stream: str = "s") -> Any:
    """What a stream answers, without the revision it states."""
    answer = await client.post(f"/v1/streams/{stream}/predict", json={"inputs": PROBE})
    return {name: answer.raise_for_status().json()[name] for name in ("predictions", "std")}


async def roll_back(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    """Ask for a roll-back."""
    return await client.post("/v1/streams/s/rollback", json=body)


@run_async
async def test_revisions_tell_what_was_committed_when() -> None:
    """Page by page, oldest first: figures of feedback, a reset, and where a roll-back went."""
    async with serving() as (client, _):
        await teach(client, 2)
        await client.post("/v1/streams/s/reset")
        await roll_back(client, revision=1)
        first = (await client.get("/v1/streams/s/revisions?limit=3")).json()
        rest = (await client.get(f"/v1/streams/s/revisions?after={first['next_cursor']}")).json()
        items = first["items"] + rest["items"]
        assert rest["next_cursor"] is None
        assert [(item["revision"], item["kind"]) for item in items] == [
            *[(1, "feedback"), (2, "feedback"), (3, "reset"), (4, "rollback")]
        ]
        assert [item["rows_seen"] for item in items] == [2, 4, 4, 4]
        assert [item["restored"] for item in items] == [None, None, None, 1]
        assert items[0]["loss"] is not None
        assert items[0]["initial_loss"] == items[0]["loss"]
        assert_problem(await client.get("/v1/streams/none/revisions"), 404)


@run_async
@pytest.mark.parametrize("snapshot_rows", [4, 1_000])
async def test_a_roll_back_predicts_as_then_and_goes_on_from_there(snapshot_rows: int) -> None:
    """To every revision, from snapshots or the log alone; what is learned afterwards is learned on top of it."""
    async with serving(snapshot_rows=snapshot_rows) as (client, _):
        await client.put("/v1/streams/s", json={"model": "reg"})
        past = [await predicted(client)]
        for inputs, targets in batches(9):
            await client.post("/v1/streams/s/feedback", json={"inputs": inputs, "targets": targets})
            past.append(await predicted(client))
        for count, revision in enumerate((9, 5, 0, 3, 8), start=1):
            answer = (await roll_back(client, revision=revision)).json()
            assert (answer["stream_version"], answer["restored"]) == (9 + count, revision)
            assert await predicted(client) == past[revision]
        inputs, targets = batches(9)[8]
        await client.post("/v1/streams/s/feedback", json={"inputs": inputs, "targets": targets})
        assert await predicted(client) == past[9]
        assert (await roll_back(client, revision=11)).json()["restored"] == 11
        assert await predicted(client) == past[5]


@run_async
async def test_a_roll_back_to_a_time_finds_the_last_commit_before_it() -> None:
    """Text or seconds; before the first commit it is the meta-initialization."""
    clock = Clock()

    def streams(settings: Settings, store: Store, models: dict[str, Model], _clock: Any) -> Streams:
        return Streams(settings, store, models, clock)

    async with serving(streams) as (client, _):
        await client.put("/v1/streams/s", json={"model": "reg"})
        for inputs, targets in batches(3):
            clock.now += 60
            await client.post("/v1/streams/s/feedback", json={"inputs": inputs, "targets": targets})
        assert (await roll_back(client, before=NOW + 121)).json()["restored"] == 2
        assert (await roll_back(client, before=NOW + 120)).json()["restored"] == 1
        assert (await roll_back(client, before="2023-11-14T00:00:00Z")).json()["restored"] == 0


@run_async
async def test_a_roll_back_survives_restarts_and_later_snapshots(tmp_path: Path) -> None:
    """The log leads to the same state, with the snapshot before the roll-back and with one after it."""

    def streams(settings: Settings, _store: Store, models: dict[str, Model], clock: Any) -> Streams:
        return Streams(settings, SqliteStore(tmp_path), models, clock)

    async with serving(streams, snapshot_rows=4) as (client, _):
        await teach(client, 5)
        await roll_back(client, revision=2)
        await teach(client, 1, seed=7)
        before = await predicted(client)
    for _ in range(2):
        async with serving(streams, snapshot_rows=4) as (client, _):
            assert await predicted(client) == before
            assert (await client.get("/v1/streams/s")).json()["stream_version"] == 7


@run_async
async def test_under_another_config_the_rows_are_learned_again() -> None:
    """A state of another window is none of the stream's any more; its rows still are."""
    async with serving() as (client, _):
        await teach(client, 6)
        await client.put("/v1/streams/s", json={"model": "reg", "config": {"window_rows": 6}})
        await roll_back(client, revision=4)
        await client.put("/v1/streams/t", json={"model": "reg", "config": {"window_rows": 6}})
        await teach(client, 4, stream="t")
        assert await predicted(client) == await predicted(client, "t")


@run_async
async def test_a_roll_back_that_is_taken_back_has_learned_its_rows_again() -> None:
    """Under another config the stream learns all of them, as one does that was never rolled back."""
    async with serving() as (client, _):
        for stream in ("s", "plain"):
            await teach(client, 4, stream=stream)
        for revision in (1, 4):
            (await roll_back(client, revision=revision)).raise_for_status()
        for stream in ("s", "plain"):
            body = {"model": "reg", "config": {"detector": "page_hinkley"}}
            (await client.put(f"/v1/streams/{stream}", json=body)).raise_for_status()
        assert await predicted(client) == await predicted(client, "plain")


@run_async
async def test_what_an_import_has_replaced_is_not_learned_again() -> None:
    """Under another config the stream learns what came after the file, not what the file put an end to."""
    async with serving() as (client, _):
        await teach(client, 4)
        await client.put("/v1/streams/new", json={"model": "reg"})
        file = (await client.get("/v1/streams/new/snapshot")).content
        (await client.put("/v1/streams/s/snapshot", content=file, headers=FILE)).raise_for_status()
        for stream in ("s", "new"):
            await teach(client, 2, stream=stream, seed=5)
            body = {"model": "reg", "config": {"detector": "page_hinkley"}}
            (await client.put(f"/v1/streams/{stream}", json=body)).raise_for_status()
        assert await predicted(client) == await predicted(client, "new")


@run_async
async def test_a_revision_that_is_not_there_is_refused() -> None:
    """With what there is; and nothing has changed."""
    async with serving() as (client, _):
        await teach(client, 2)
        assert "at revision 2" in assert_problem(await roll_back(client, revision=3), 422)["detail"]
        for body in ({}, {"revision": 1, "before": 5.0}, {"revision": -1}, {"revision": True}, {"before": "soon"}):
            assert_problem(await roll_back(client, **body), 422)
        assert (await client.get("/v1/streams/s")).json()["stream_version"] == 2
        assert_problem(await client.post("/v1/streams/none/rollback", json={"revision": 0}), 404)


@run_async
async def test_what_is_no_longer_kept_is_refused_by_name() -> None:
    """After the retention the log begins later, and a roll-back says where."""
    clock = Clock()

    def streams(settings: Settings, store: Store, models: dict[str, Model], _clock: Any) -> Streams:
        return Streams(settings, store, models, clock)

    async with serving(streams, snapshot_rows=4, retained_rows=4, log_days=1) as (client, made):
        await teach(client, 4)
        await saved(made)
        clock.now += 2 * 86_400
        await teach(client, 40, seed=1)  # more rows than the window has
        await saved(made)
        first = (await client.get("/v1/streams/s/revisions")).json()["items"][0]["revision"]
        assert first > 1
        assert f"begins at revision {first}" in assert_problem(await roll_back(client, revision=1), 422)["detail"]
        assert f"begins at revision {first}" in assert_problem(await roll_back(client, before=NOW), 422)["detail"]
        assert (await roll_back(client, revision=first + 1)).json()["restored"] == first + 1
        assert (await roll_back(client, revision=0)).json()["restored"] == 0  # the meta-initialization is always there


@run_async
async def test_an_exported_stream_is_the_same_elsewhere() -> None:
    """Under another name in another installation: state byte for byte, config, metadata and counts."""
    async with serving() as (client, made):
        await teach(client, 5)
        await client.put("/v1/streams/s", json={"model": "reg", "config": {"steps": 2}, "metadata": {"a": "ü"}})
        file = await client.get("/v1/streams/s/snapshot")
        assert file.headers["content-type"] == "application/octet-stream"
        there = await state_of(made, "s")
        info, answers = (await client.get("/v1/streams/s")).json(), await predicted(client)
    async with serving() as (client, made):
        put = await client.put("/v1/streams/t", json={"model": "reg"})
        assert put.status_code == 201
        for stream, status, revision in (("new", 201, 1), ("t", 200, 1), ("t", 200, 2)):
            answer = await client.put(f"/v1/streams/{stream}/snapshot", content=file.content, headers=FILE)
            assert answer.status_code == status, answer.text
            assert answer.json()["stream_version"] == revision
            assert await state_of(made, stream) == there
            assert await predicted(client, stream) == answers
        again = (await client.get("/v1/streams/new")).json()
        for name in ("config", "metadata", "rows_seen", "state", "window_rows", "loss", "model_version"):
            assert again[name] == info[name]
        revisions = (await client.get("/v1/streams/t/revisions")).json()["items"]
        assert [item["kind"] for item in revisions] == ["import", "import"]
        await teach(client, 1, stream="t", seed=3)


async def saved(streams: Streams) -> None:
    """The snapshots that are due are written."""
    while streams._hot._tasks:
        await asyncio.gather(*streams._hot._tasks)


async def state_of(streams: Streams, stream: str) -> bytes:
    """A stream's state as bytes."""
    hot = await streams._hot.acquire(stream)
    try:
        return hot.lease.engine.snapshot(hot.slot)
    finally:
        streams._hot.release(hot)


@run_async
async def test_a_file_that_is_none_is_refused_and_changes_nothing() -> None:
    """Garbage, damage, a foreign file, another model's, another version's, another media type."""
    async with serving(body_bytes_max=100_000) as (client, _):
        await teach(client, 3)
        (await client.put("/v1/streams/c", json={"model": "cls"})).raise_for_status()
        file = (await client.get("/v1/streams/s/snapshot")).content
        damaged = bytearray(file)
        damaged[-3] ^= 1
        bundle = write_bundle(small_model("regression", name="reg"))
        for data in (b"", b"garbage" * 100, bytes(damaged), file[:-10], bundle, file[:8]):
            assert_problem(await client.put("/v1/streams/u/snapshot", content=data, headers=FILE), 422)
        assert_problem(await client.put("/v1/streams/c/snapshot", content=file, headers=FILE), 409)
        assert_problem(await client.put("/v1/streams/u/snapshot", json={}), 415)
        assert_problem(await client.put("/v1/streams/u/snapshot", content=b" " * 100_001, headers=FILE), 413)
        assert_problem(await client.get("/v1/streams/u"), 404)
    model = small_model("regression", name="reg")
    other = model._replace(meta={name: value + 0.5 for name, value in model.meta.items()})

    def streams(settings: Settings, store: Store, _models: Any, clock: Any) -> Streams:
        return Streams(settings, store, {"reg": other}, clock)

    async with serving(streams) as (client, _):
        refused = await client.put("/v1/streams/u/snapshot", content=file, headers=FILE)
        assert "upload that version first" in assert_problem(refused, 409)["detail"]


@run_async
async def test_a_file_that_states_nonsense_is_refused() -> None:
    """Counts and states that no stream has; a config that the model does not take."""
    async with serving() as (client, _):
        await teach(client, 3)
        file = (await client.get("/v1/streams/s/snapshot")).content
        for name, value in (("rows_seen", -1), ("state", "fine"), ("config", {"depth": 3}), ("config", {"steps": 0})):
            data = restated(file, name, value)
            assert_problem(await client.put("/v1/streams/u/snapshot", content=data, headers=FILE), 422)
            assert_problem(await client.get("/v1/streams/u"), 404)


def restated(file: bytes, name: str, value: Any) -> bytes:
    """The file with something else stated in its header."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    kept = json.loads(header["__metadata__"]["acclimate_stream"])
    kept["stated"][name] = value
    header["__metadata__"]["acclimate_stream"] = json.dumps(kept)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + length :]
