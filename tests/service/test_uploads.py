"""Uploads over HTTP: what is learned, what is answered, and what a cut leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from io import BytesIO
from typing import Any

import httpx
import orjson
import polars as pl
import pytest
from starlette.types import Message

from service.app import create_app
from service.config import Settings
from service.lines import NDJSON
from service.routes import upload
from service.store import MemoryStore
from service.streams import Streams
from tests.service.http_case import assert_problem, run_async, serving
from tests.service.streams_case import PROBE, WaitingStore, batches, opened

ARROW = "application/vnd.apache.arrow.stream"
ROWS = [
    {"input": row, "target": target}
    for inputs, targets in batches(20, rows=5)
    for row, target in zip(inputs, targets, strict=True)
]
"""100 rows of one line."""


def text_of(rows: Sequence[dict[str, Any]]) -> bytes:
    """As NDJSON."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


async def put(client: httpx.AsyncClient, *names: str) -> None:
    """Create streams of the regression model."""
    for name in names:
        assert (await client.put(f"/v1/streams/{name}", json={"model": "reg"})).status_code == 201


async def send(
    client: httpx.AsyncClient, path: str, content: bytes | AsyncIterator[bytes], kind: str = NDJSON, **headers: str
) -> httpx.Response:
    """One upload; header names are written with underscores."""
    stated = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(path, content=content, headers={"content-type": kind, **stated})


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The lines of an answer."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == NDJSON
    return [orjson.loads(line) for line in answer.text.splitlines()]


async def said(client: httpx.AsyncClient, stream: str) -> Any:
    """What a stream predicts, and what it has seen."""
    answer = (await client.post(f"/v1/streams/{stream}/predict", json={"inputs": PROBE})).json()
    return answer["predictions"], answer["stream_version"]


async def rows_seen(client: httpx.AsyncClient, stream: str) -> int:
    """Rows that a stream has learned."""
    return int((await client.get(f"/v1/streams/{stream}")).json()["rows_seen"])


@run_async
async def test_an_upload_is_learned_as_its_batches_would_be() -> None:
    """As NDJSON, as Arrow and as requests of as many rows: the same revisions and predictions."""
    frame = pl.DataFrame({"a": [row["input"][0] for row in ROWS], "b": [row["input"][1] for row in ROWS]})
    table = BytesIO()
    frame.with_columns(target=pl.Series([row["target"] for row in ROWS])).write_ipc_stream(table)
    async with serving() as (client, _):
        await put(client, "one", "two", "three")
        for start in range(0, 100, 32):
            part = ROWS[start : start + 32]
            body = {"inputs": [row["input"] for row in part], "targets": [row["target"] for row in part]}
            last = (await client.post("/v1/streams/one/feedback", json=body)).json()
        lines = lines_of(await send(client, "/v1/streams/two/feedback?batch=32", text_of(ROWS)))
        lines_of(await send(client, "/v1/streams/three/feedback", table.getvalue(), ARROW))
        assert await said(client, "one") == await said(client, "two") == await said(client, "three")
    assert [line["offset"] for line in lines] == [32, 64, 96, 100, 100]
    assert [line["accepted"] for line in lines] == [32, 32, 32, 4, 100]
    assert [line["stream_version"] for line in lines[:-1]] == [1, 2, 3, 4]
    assert lines[-2]["loss"] == last["loss"]
    mean = sum(line["score"] * line["accepted"] for line in lines[:-1]) / 100
    assert lines[-1] == {
        "done": True,
        "offset": 100,
        "batches": 4,
        "accepted": 100,
        "duplicates": 0,
        "loss": pytest.approx(sum(line["loss"] * line["accepted"] for line in lines[:-1]) / 100),
        "score": pytest.approx(mean),
        "drift": None,
    }


@run_async
async def test_the_first_bad_row_ends_an_upload() -> None:
    """Its batch is not taken, earlier ones stay; a bad row before any commit is refused as a request would be."""
    bad = [*ROWS[:70], {"input": [1.0, "high"], "target": 1.0}, *ROWS[71:]]
    async with serving() as (client, _):
        await put(client, "s")
        lines = lines_of(await send(client, "/v1/streams/s/feedback?batch=32", text_of(bad)))
        assert (lines[-1]["done"], lines[-1]["offset"], lines[-1]["accepted"]) == (False, 64, 64)
        assert lines[-1]["error"]["status"] == 422
        assert lines[-1]["error"]["errors"][0]["loc"] == ["rows", 70, "input", "b"]
        assert "high" not in orjson.dumps(lines[-1]).decode()
        broken = text_of(ROWS[:40]) + b"{\n" + text_of(ROWS)
        lines = lines_of(await send(client, "/v1/streams/s/feedback?batch=32", broken))
        assert lines[-1]["error"]["detail"].startswith("Row 40 is not JSON")
        assert await rows_seen(client, "s") == 96
        assert_problem(await send(client, "/v1/streams/s/feedback?batch=32", b"{\n" + text_of(ROWS)), 400)
        problem = assert_problem(await send(client, "/v1/streams/s/feedback", text_of(bad[65:])), 422, "high")
        assert problem["errors"][0]["loc"] == ["rows", 5, "input", "b"]
        assert_problem(await send(client, "/v1/streams/nobody/feedback", text_of(ROWS)), 404)
        assert await rows_seen(client, "s") == 96


@run_async
async def test_an_upload_to_many_streams_is_learned_as_uploads_to_each() -> None:
    """Streams are created where their model is stated; what is left of a stream at the end is its last batch."""
    rows = [{"stream": f"m{number % 7}", "model": "reg", **row} for number, row in enumerate(ROWS)]
    async with serving() as (client, _):
        lines = lines_of(await send(client, "/v1/feedback?batch=4", text_of(rows), upload_id="u"))
        assert (lines[-1]["done"], lines[-1]["offset"], lines[-1]["accepted"], lines[-1]["batches"]) == (
            True,
            100,
            100,
            28,
        )
        assert {line["stream"] for line in lines[:-1]} == {f"m{number}" for number in range(7)}
        await put(client, "own")
        await send(client, "/v1/streams/own/feedback?batch=4", text_of(ROWS[3::7]))
        assert await said(client, "own") == await said(client, "m3")
        assert (await client.get("/v1/uploads/u")).json() == {"upload": "u", "offset": 100}
        lines = lines_of(await send(client, "/v1/feedback?batch=4", text_of(rows), upload_id="u"))
        assert lines[-1]["accepted"] == 0
        wrong = [*rows, {"stream": "nobody", "input": [1.0, 2.0], "target": 1.0}]
        lines = lines_of(await send(client, "/v1/feedback?batch=4", text_of(wrong)))
        assert lines[-1]["error"]["status"] == 404


@run_async
async def test_streams_know_how_far_an_upload_to_many_has_got() -> None:
    """Where the service ended before it was kept, a second sending of all of it teaches what is missing alone."""
    rows = [{"stream": f"m{number % 3}", "model": "reg", **row} for number, row in enumerate(ROWS)]
    store = MemoryStore()
    async with serving(store=store) as (client, _):
        await send(client, "/v1/feedback?batch=4", text_of(rows[:60]), upload_id="u")
        store._uploads.clear()
        lines = lines_of(await send(client, "/v1/feedback?batch=4", text_of(rows), upload_id="u"))
        assert (lines[-1]["done"], lines[-1]["offset"], lines[-1]["accepted"]) == (True, 100, 40)
        assert [await rows_seen(client, f"m{number}") for number in range(3)] == [34, 33, 33]


@run_async
async def test_pending_rows_are_labelled_by_an_upload() -> None:
    """A row without input has the id of one that waits; a batch has all its inputs or none."""
    async with serving() as (client, _):
        await put(client, "s")
        await client.post("/v1/streams/s/predict", json={"inputs": PROBE, "ids": ["p0", "p1", "p2"]})
        late = [{"id": f"p{number}", "target": 1.0} for number in range(3)]
        mixed = await send(client, "/v1/streams/s/feedback", text_of([*ROWS[:2], *late]))
        assert assert_problem(mixed, 422)["errors"][0]["loc"] == ["rows", 2, "input"]
        lines = lines_of(await send(client, "/v1/streams/s/feedback", text_of(late)))
        assert lines[0]["accepted"] == 3
        lines = lines_of(await send(client, "/v1/streams/s/feedback", text_of(late)))
        assert (lines[0]["accepted"], lines[0]["duplicates"], lines[-1]["loss"]) == (0, 3, None)


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?batch=0", {}, 422),
        ("?batch=many", {}, 422),
        ("?batch=10001", {}, 422),
        ("?return=predictions", {}, 422),
        ("", {"upload_offset": "3"}, 422),
        ("", {"upload_id": "a b"}, 422),
        ("", {"upload_id": "a", "upload_offset": "-1"}, 422),
        ("", {"content_encoding": "gzip"}, 415),
    ],
)
@run_async
async def test_wrong_parameters_are_refused(query: str, headers: dict[str, str], status: int) -> None:
    """Before a row is read."""
    async with serving() as (client, _):
        await put(client, "s")
        assert_problem(await send(client, f"/v1/streams/s/feedback{query}", text_of(ROWS), **headers), status)
        assert_problem(await send(client, "/v1/feedback", text_of(ROWS), ARROW), 415)
        assert await rows_seen(client, "s") == 0


class Talk:
    """A request and its answer, piece by piece; ``None`` is a cut."""

    def __init__(self, app: Any, path: str, pieces: Callable[[int], bytes | None], **headers: str) -> None:
        self.asked = 0
        self.sent: list[Message] = []
        self.reads = asyncio.Event()
        self.reads.set()
        stated = {"content-type": NDJSON, **headers}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"batch=5",
            "headers": [(name.encode(), value.encode()) for name, value in stated.items()],
        }

        async def receive() -> Message:
            piece = pieces(self.asked)
            self.asked += 1
            if piece is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": piece, "more_body": piece != b""}

        async def send(message: Message) -> None:
            await self.reads.wait()
            self.sent.append(message)

        self.task = asyncio.create_task(app(scope, receive, send))

    def lines(self) -> list[dict[str, Any]]:
        """What was answered so far."""
        bodies = b"".join(message.get("body", b"") for message in self.sent)
        return [orjson.loads(line) for line in bodies.splitlines()]


async def until(true: Callable[[], bool]) -> None:
    """Let everything go on until something is so."""
    while not true():  # noqa: ASYNC110 - what is waited for happens in many places
        await asyncio.sleep(0)


async def settle() -> None:
    """Let everything happen that needs no more than turns of the loop and the threads behind it."""
    for _ in range(50):
        await asyncio.sleep(0)
    await asyncio.to_thread(lambda: None)


@run_async
async def test_a_cut_upload_is_resumed_without_learning_twice() -> None:
    """What was committed before the cut is skipped, whether the client sends from there or from the start."""
    async with serving() as (client, streams):
        await put(client, "whole", "cut")
        path = "/v1/streams/cut/feedback?batch=5"
        await send(client, "/v1/streams/whole/feedback?batch=5", text_of(ROWS))
        assert_problem(await client.get("/v1/streams/cut/uploads/u"), 404)
        pieces = [text_of(ROWS[:72]), None]
        await Talk(
            create_app(Settings(), streams=streams),
            "/v1/streams/cut/feedback",
            pieces.__getitem__,
            **{"upload-id": "u"},
        ).task
        assert (await client.get("/v1/streams/cut/uploads/u")).json() == {"upload": "u", "offset": 70}
        gap = await send(client, path, text_of(ROWS[80:]), upload_id="u", upload_offset="80")
        assert "Upload-Offset: 70" in assert_problem(gap, 409)["detail"]
        again = await send(client, path, text_of(ROWS[60:]), upload_id="u", upload_offset="60")
        assert [line["offset"] for line in lines_of(again)] == [75, 80, 85, 90, 95, 100, 100]
        assert await said(client, "cut") == await said(client, "whole")
        lines = lines_of(await send(client, path, text_of(ROWS), upload_id="u"))
        assert [(line["done"], line["offset"], line["accepted"]) for line in lines] == [(True, 100, 0)]
        assert await rows_seen(client, "cut") == 100


@run_async
async def test_an_endless_upload_waits_for_the_store() -> None:
    """What has been read and not learned is bounded; more is not asked of the client."""
    store = WaitingStore()
    async with opened(store, batch_rows_max=50) as streams:
        app = create_app(Settings(batch_rows_max=50), streams=streams)
        await streams.put("s", "reg")
        store.begun.clear()
        store.gate.clear()
        talk = Talk(app, "/v1/streams/s/feedback", lambda _: text_of(ROWS[:10]))
        assert await asyncio.to_thread(store.begun.wait, 30)
        await settle()
        before = talk.asked
        await settle()
        assert talk.asked == before <= 7
        assert talk.sent == []
        store.gate.set()
        await until(lambda: len(talk.lines()) >= 20)
        assert talk.asked > before
        app.state.context.draining = True
        await talk.task
    assert talk.lines()[-1]["error"]["status"] == 503
    assert [line["offset"] for line in talk.lines()[:20]] == list(range(5, 105, 5))


@run_async
async def test_a_client_that_does_not_read_holds_nothing_up() -> None:
    """Its lines become one, which says as much; of a drift the latest is told."""
    count = upload.LINES_MAX + 30
    async with opened() as streams:
        app = create_app(Settings(), streams=streams)
        await streams.put("s", "reg")
        talk = Talk(app, "/v1/streams/s/feedback", lambda number: text_of(ROWS[:5]) if number < count else b"")
        talk.reads.clear()
        while (await streams.get("s")).rows_seen < 5 * count:
            await settle()
        talk.reads.set()
        await talk.task
    lines = talk.lines()
    assert len(lines) <= upload.LINES_MAX + 1
    assert sum(line["batches"] for line in lines[:-1]) == lines[-1]["batches"] == count
    assert sum(line["accepted"] for line in lines[:-1]) == lines[-1]["accepted"] == 5 * count
    assert max(line["batches"] for line in lines[:-1]) > 1
    assert lines[-2]["stream_version"] == count
    mean = sum(line["loss"] * line["accepted"] for line in lines[:-1]) / (5 * count)
    assert lines[-1]["loss"] == pytest.approx(mean)


@run_async
async def test_an_upload_runs_once_at_a_time() -> None:
    """A second request under its name is refused while the first goes on."""
    async with opened(batch_rows_max=50) as streams:
        app = create_app(Settings(batch_rows_max=50), streams=streams)
        await streams.put("s", "reg")
        stop = False
        first = Talk(
            app,
            "/v1/streams/s/feedback",
            lambda _: b"" if stop else text_of(ROWS[:5]),
            **{"upload-id": "u"},
        )
        await until(lambda: len(first.lines()) > 0)
        second = Talk(app, "/v1/streams/s/feedback", lambda _: text_of(ROWS[:5]), **{"upload-id": "u"})
        await second.task
        stop = True
        await first.task
    assert second.lines()[0]["status"] == 409
    assert first.lines()[-1]["done"]


@run_async
async def test_a_full_queue_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload takes what room there is, and loses nothing where there is none."""
    monkeypatch.setattr("service.uploading.FULL_SECONDS", 0.0)
    rows = [{"stream": f"m{number}", "model": "reg", **row} for number, row in enumerate(ROWS[:20])]
    async with serving(queue_items_max=2, tick_items_max=4) as (client, _):
        lines = lines_of(await send(client, "/v1/feedback?batch=1", text_of(rows)))
    assert (lines[-1]["done"], lines[-1]["accepted"]) == (True, 20)


class Broken(Streams):
    """Streams whose learning fails on our side."""

    async def feedback(self, *given: Any, **named: Any) -> Any:
        """Fail."""
        del given, named
        raise RuntimeError("broken")


@run_async
async def test_a_failure_inside_is_no_end_without_a_word() -> None:
    """Before the first commit it is a 500."""
    async with serving(Broken) as (client, _):
        await put(client, "s")
        assert_problem(await send(client, "/v1/streams/s/feedback", text_of(ROWS)), 500, "broken")
