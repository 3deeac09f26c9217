"""Every error on every route has the one shape, echoes nothing, and leaves the state as it was."""

import io
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import orjson
import pytest
import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute

from models import Engine, Feedback, Tick
from service.errors import SaturatedError, StoreFullError, UnavailableError
from service.logs import configure_logs
from service.problems import ERRORS, is_open
from service.routes import ROUTERS
from service.store import Append, Done, MemoryStore, Operation, Refusal
from service.streams import Streams
from tests.service.http_case import JSON, assert_problem, assert_refused, own_logs, run_async, serving

SECRET = "s3cr3t"
GOOD = {"inputs": [[1.0, 2.0]], "targets": [1.0]}
OPERATIONS = sorted(
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
)
JSON_ENDS = ("/predict", "/feedback", "/labels", "/rollback", "/activate", "/infer", "/learn", "{stream}")
WITH_BODY = [(m, p) for m, p in OPERATIONS if m in {"PUT", "POST"} and p.endswith(JSON_ENDS)]
BAD_FEEDBACK: dict[str, tuple[str, list[Any]]] = {
    "wrong width": ('{"inputs": [[1, 2], [1, 2, 3]], "targets": [1, 2]}', ["inputs", 1]),
    "unknown feature": ('{"inputs": [{"a": 1, "b": 2, "z": 3}], "targets": [1]}', ["inputs", 0, "z"]),
    "missing feature": ('{"inputs": [{"a": 1}], "targets": [1]}', ["inputs", 0, "b"]),
    "null": ('{"inputs": [[1, null]], "targets": [1]}', ["inputs", 0, "b"]),
    "text for a number": ('{"inputs": [[1, "s3cr3t"]], "targets": [1]}', ["inputs", 0, "b"]),
    "boolean for a number": ('{"inputs": [[1, true]], "targets": [1]}', ["inputs", 0, "b"]),
    "list for a number": ('{"inputs": [[1, [2]]], "targets": [1]}', ["inputs", 0, "b"]),
    "row is a number": ('{"inputs": [1], "targets": [1]}', ["inputs", 0]),
    "row is text": ('{"inputs": ["s3cr3t"], "targets": [1]}', ["inputs", 0]),
    "NaN": ('{"inputs": [[1, 2], [NaN, 2]], "targets": [1, 2]}', ["inputs", 1, 0]),
    "Infinity": ('{"inputs": [[1, -Infinity]], "targets": [1]}', ["inputs", 0, 1]),
    "1e400": ('{"inputs": [[1, 1e400]], "targets": [1]}', ["inputs", 0, 1]),
    "NaN target": ('{"inputs": [[1, 2]], "targets": [NaN]}', ["targets", 0]),
    "target is text": ('{"inputs": [[1, 2]], "targets": ["s3cr3t"]}', ["targets", 0]),
    "target is null": ('{"inputs": [[1, 2]], "targets": [null]}', ["targets", 0]),
    "two outputs": ('{"inputs": [[1, 2]], "targets": [[1, 2]]}', ["targets", 0]),
    "empty batch": ('{"inputs": [], "targets": []}', ["inputs"]),
    "no targets": ('{"inputs": [[1, 2]]}', ["targets"]),
    "fewer targets": ('{"inputs": [[1, 2], [3, 4]], "targets": [1]}', ["targets"]),
    "fewer ids": ('{"inputs": [[1, 2], [3, 4]], "targets": [1, 2], "ids": ["x"]}', ["ids"]),
    "bad id": ('{"inputs": [[1, 2]], "targets": [1], "ids": ["a b"]}', ["ids", 0]),
    "bad time": ('{"inputs": [[1, 2]], "targets": [1], "times": ["s3cr3t"]}', ["times", 0]),
    "unknown field": ('{"inputs": [[1, 2]], "targets": [1], "extra": "s3cr3t"}', ["extra"]),
    "not an object": ('["s3cr3t"]', []),
    "over the limit": (f'{{"inputs": {[[1, 2]] * 21}, "targets": {[1] * 21}}}', ["inputs"]),
}


def good(path: str) -> dict[str, Any]:
    """A body that the route takes."""
    if path.endswith("/labels"):
        return {"labels": [{"id": "x", "target": 1.0}]}
    if path.endswith("/rollback"):
        return {"revision": 0}
    if path.endswith("/activate"):
        return {"version": 1}
    if path.startswith("/v2/"):
        return {"inputs": [{"name": "inputs", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}]}
    return GOOD if path.endswith("/feedback") else {"inputs": GOOD["inputs"]}


def concrete(path: str) -> str:
    """A path with its parameters filled in."""
    found = path.replace("{stream}", "s1").replace("{model}", "reg").replace("{webhook}", "w")
    return found.replace("{upload}", "u").replace("{version}", "1")


async def prepare(client: httpx.AsyncClient) -> None:
    """A stream that has learned a little."""
    await client.put("/v1/streams/s1", json={"model": "reg"})
    await client.post("/v1/streams/s1/feedback", json={"inputs": [[1.0, 2.0], [0.0, 1.0]], "targets": [1.0, 2.0]})


async def state_of(client: httpx.AsyncClient, streams: Streams) -> tuple[Any, ...]:
    """All that a client can see of stream s1, and its learned state to the byte."""
    state = (await client.get("/v1/streams/s1")).json()
    events = (await client.get("/v1/streams/s1/events")).json()
    made = (await client.post("/v1/streams/s1/predict", json={"inputs": [[0.3, -0.7]]})).json()
    hot = streams._hot.peek("s1")
    assert hot is not None
    streams._hot.release(hot)
    return state, events, made, hot.lease.engine.snapshot(hot.slot)


@run_async
async def test_bad_feedback_is_named_and_changes_nothing() -> None:
    """Each kind of bad input is a 422 at its place, and the stream answers afterwards as before."""
    async with serving(batch_rows_max=20) as (client, streams):
        await prepare(client)
        before = await state_of(client, streams)
        for name, (body, loc) in BAD_FEEDBACK.items():
            answer = await client.post("/v1/streams/s1/feedback", content=body, headers=JSON)
            problem = assert_problem(answer, 422, SECRET)
            assert problem["errors"][0]["loc"] == loc, name
        assert await state_of(client, streams) == before


@run_async
async def test_bad_rows_are_named_by_predict_too() -> None:
    """What feedback refuses of inputs, both predict routes refuse at the same place."""
    async with serving(batch_rows_max=20) as (client, _):
        await prepare(client)
        for name, (body, loc) in BAD_FEEDBACK.items():
            if loc[:1] != ["inputs"]:
                continue
            inputs = body.split(', "targets"')[0] + "}"
            for path in ("/v1/streams/s1/predict", "/v1/models/reg/predict"):
                answer = await client.post(path, content=inputs, headers=JSON)
                assert assert_problem(answer, 422, SECRET)["errors"][0]["loc"] == loc, name


@run_async
async def test_unknown_classes_are_named() -> None:
    """A label outside the model's classes is refused, whatever its type."""
    async with serving() as (client, _):
        await client.put("/v1/streams/c", json={"model": "cls"})
        for label in (SECRET, 1, True, None, 0.5, ["yes"]):
            body = {"inputs": [[1, 2], [1, 2]], "targets": ["yes", label]}
            answer = await client.post("/v1/streams/c/feedback", json=body)
            assert assert_problem(answer, 422, SECRET)["errors"][0]["loc"] == ["targets", 1]
        assert (await client.get("/v1/streams/c")).json()["rows_seen"] == 0


@run_async
async def test_bad_configs_are_named() -> None:
    """A field that the model's experts lack, or a value out of bounds, is a 422 and creates nothing."""
    async with serving() as (client, _):
        for config in ({"steps": 3}, {"detector": "nosuch"}, {"alarms_per_1000": -1}, {"window_rows": 0}, {"what": 1}):
            answer = await client.put("/v1/streams/s1", json={"model": "reg", "config": config})
            assert assert_problem(answer, 422)["errors"][0]["loc"] == ["config", *config]
        assert_problem(await client.get("/v1/streams/s1"), 404)


@run_async
async def test_bad_late_labels_are_named_and_change_nothing() -> None:
    """Wrong ids are a 422 or a 409, a wrong label is named by its place, and the kept rows wait as before."""
    async with serving(batch_rows_max=20) as (client, streams):
        await prepare(client)
        await client.post("/v1/streams/s1/predict", json={"inputs": [[1, 2]], "ids": ["x"]})
        before = await state_of(client, streams)
        one = '{"id": "x", "target": 1}'
        bad: list[tuple[str, str, list[Any]]] = [
            ("labels", "{}", ["labels"]),
            ("labels", '{"labels": []}', ["labels"]),
            ("labels", f'{{"labels": [{", ".join([one] * 21)}]}}', ["labels"]),
            ("labels", f'{{"labels": [{one}, {{"id": "x"}}]}}', ["labels", 1]),
            ("labels", f'{{"labels": [{one}, {{"id": "s3cr3t!", "target": 1}}]}}', ["labels", 1, "id"]),
            ("labels", f'{{"labels": [{one}, {{"id": "y", "target": "s3cr3t"}}]}}', ["labels", 1, "target"]),
            ("labels", f'{{"labels": [{one}, {{"id": "y", "target": NaN}}]}}', ["labels", 1, "target"]),
            ("feedback", '{"targets": [1, 2], "ids": ["x", "y"]}', ["ids", 1]),
            ("feedback", '{"targets": [1, 2], "ids": ["x"]}', ["ids"]),
            ("feedback", '{"targets": [1]}', ["inputs"]),
            ("predict", '{"inputs": [[1, 2]], "ids": ["a", "b"]}', ["ids"]),
            ("predict", '{"inputs": [[1, 2], [1, 2]], "ids": ["a", "a"]}', ["ids", 1]),
            ("predict", '{"inputs": [[1, 2]], "ids": ["s3cr3t!"]}', ["ids", 0]),
        ]
        for route, body, loc in bad:
            answer = await client.post(f"/v1/streams/s1/{route}", content=body, headers=JSON)
            assert assert_problem(answer, 422, SECRET)["errors"][0]["loc"] == loc, body
        other = await client.post("/v1/streams/s1/predict", json={"inputs": [[1, 3]], "ids": ["x"]})
        assert "Id x" in assert_problem(other, 409)["detail"]
        frozen = await client.post("/v1/models/reg/predict", json={"inputs": [[1, 2]], "ids": ["x"]})
        assert assert_problem(frozen, 422)["errors"][0]["loc"] == ["ids"]
        assert await state_of(client, streams) == before
        taken = (await client.post("/v1/streams/s1/labels", json=good("/labels"))).json()
        assert taken["accepted"] == 1


@pytest.mark.parametrize(("method", "path"), [each for each in OPERATIONS if each[0] != "HEAD"])
@run_async
async def test_every_route_answers_problems(method: str, path: str) -> None:
    """Wrong method, unknown names, bad ids and a contradicting header have the one shape on each route."""
    async with serving() as (client, _):
        refused = await client.request("PATCH", concrete(path))
        assert_refused(refused, 405)
        assert set(refused.headers["allow"].split(", ")) == {m for m, p in OPERATIONS if p == path}
        if "{stream}" in path:
            bad = concrete(path.replace("{stream}", "a b"))
            assert assert_problem(await client.request(method, bad), 422)["errors"][0]["loc"] == ["path", "stream"]
            contradicting = {"X-Stream-Id": "other"}
            assert_problem(await client.request(method, concrete(path), headers=contradicting), 400)
        if "{" in path and method != "PUT" and not path.endswith("/versions"):  # which make what is not there
            body = good(path)
            unknown = concrete(re.sub("{(stream|model|upload|webhook)}", "nosuch", path))
            kwargs: dict[str, Any] = {"json": body} if (method, path) in WITH_BODY else {}
            assert_refused(await client.request(method, unknown, **kwargs), 404)


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
@run_async
async def test_every_body_is_checked(method: str, path: str) -> None:
    """Wrong types, broken JSON, a depth bomb and an oversized body are refused on each route that reads one."""
    async with serving(body_bytes_max=2_000_000) as (client, streams):
        await prepare(client)
        before = await state_of(client, streams)
        url = concrete(path)
        untyped = await client.request(method, url, content=SECRET)
        assert_refused(untyped, 400 if is_open(path) else 415, SECRET)  # clients of the protocol state no type
        for declared in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
            answer = await client.request(method, url, content="{}", headers={"Content-Type": declared})
            assert_refused(answer, 415)
        for packing in ("br", "gzip") if not is_open(path) else ("br",):
            packed = await client.request(method, url, content="{}", headers=JSON | {"Content-Encoding": packing})
            assert_refused(packed, 415)
        for body in ("", "{", f"[{SECRET}]", f'{{"inputs": {SECRET}}}', "[" * 1_000_000, '{"a":' * 300_000):
            assert_refused(await client.request(method, url, content=body, headers=JSON), 400, SECRET)
        assert_refused(await client.request(method, url, content=b" " * 2_000_001, headers=JSON), 413)
        assert_refused(await client.request(method, url, content=_endless(), headers=JSON), 413)
        assert_refused(await client.request(method, url, content="[]", headers=JSON), 400 if is_open(path) else 422)
        assert await state_of(client, streams) == before


async def _endless() -> AsyncIterator[bytes]:
    """A body without a Content-Length that would never end by itself."""
    while True:
        yield b" " * 100_000


@pytest.mark.parametrize(
    "path",
    [
        *("/v1", "/v1/", "/v1/streams/", "/v1/streams/s1/nosuch", "/v1/streams/a/b/c", "/nosuch?x=1", "/%00"),
        *("/v2/", "/v2/nosuch", "/v2/models/reg/config", "/v2/models/reg/versions/1/learn", "/v20"),
    ],
)
@run_async
async def test_unknown_paths_are_problems(path: str) -> None:
    """404 in the one shape, for trailing slashes too."""
    async with serving() as (client, _):
        for method in ("GET", "POST", "DELETE"):
            assert_refused(await client.request(method, path), 404)


@run_async
async def test_bad_parameters_are_named() -> None:
    """Query parameters are checked and named like fields."""
    async with serving(page_items_max=50) as (client, _):
        await prepare(client)
        for path, name in (
            ("/v1/streams?limit=0", "limit"),
            ("/v1/streams?limit=51", "limit"),
            ("/v1/streams?limit=s3cr3t", "limit"),
            ("/v1/streams/s1/events?after=s3cr3t", "after"),
            ("/v1/streams/s1/events?limit=51", "limit"),
        ):
            problem = assert_problem(await client.get(path), 422, SECRET)
            assert problem["errors"][0]["loc"] == ["query", name]
        answer = await client.post("/v1/streams/s1/feedback?return=s3cr3t", json=GOOD)
        assert assert_problem(answer, 422, SECRET)["errors"][0]["loc"] == ["query", "return"]


class Failing(Streams):
    """Streams whose predictions fail in every way, by the name of the stream."""

    async def predict(self, stream: str, *_: Any) -> Any:
        """Raise what the name asks for."""
        failures: dict[str, Exception] = {
            "saturated": SaturatedError("Too many requests wait: try again.", retry_after_s=3),
            "unavailable": UnavailableError("The store does not answer."),
            "full": StoreFullError("The disk is full."),
            "broken": ValueError(SECRET),
        }
        raise failures[stream]


@run_async
async def test_failures_inside_are_problems_that_say_nothing_about_the_inside() -> None:
    """429, 503 and 507 as raised; anything unforeseen is a 500 whose cause only the log has, without its message."""
    async with serving(Failing) as (client, _):
        with structlog.testing.capture_logs() as logs:
            for stream, status in (("saturated", 429), ("unavailable", 503), ("full", 507), ("broken", 500)):
                answer = await client.post(f"/v1/streams/{stream}/predict", json={"inputs": [[1, 2]]})
                problem = assert_problem(answer, status, SECRET, "ValueError")
        assert problem["title"] == "Internal error"
        assert [entry["status"] for entry in logs if entry["event"] == "request"] == [429, 503, 507, 500]
        assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["failed"]
        told = [entry["detail"] for entry in logs if entry["log_level"] == "warning"]
        assert told == ["The store does not answer.", "The disk is full."]


class BrokenEngine(Engine):
    """An engine that cannot learn."""

    def step(self, items: Sequence[Feedback], interval: float | None = None) -> Tick:
        """Fail."""
        raise ValueError(f"{SECRET} in {len(items)} rows, {interval}")


class BrokenStore(MemoryStore):
    """A store whose log cannot be written, for a reason that nobody foresaw."""

    def write(self, operations: Sequence[Operation]) -> list[Done | Refusal]:
        """Fail on what adds to a log."""
        if any(isinstance(operation, Append) for operation in operations):
            raise ValueError(SECRET)
        return super().write(operations)


@pytest.mark.parametrize("broken", ["engine", "store"])
@run_async
async def test_a_failure_of_learning_says_nothing_about_the_inside(broken: str) -> None:
    """500 with a general sentence; the log has the cause's type and place, and nothing of what it says."""
    store = BrokenStore() if broken == "store" else MemoryStore()
    async with serving(store=store) as (client, streams):
        await client.put("/v1/streams/s1", json={"model": "reg"})
        hot = await streams._hot.acquire("s1")
        if broken == "engine":
            hot.lease = hot.lease._replace(engine=BrokenEngine(hot.lease.engine.model))
            hot.slot = hot.lease.engine.create()
        written = io.StringIO()
        with own_logs():
            configure_logs("info", written)
            answer = await client.post("/v1/streams/s1/feedback", json=GOOD)
        streams._hot.release(hot)
        problem = assert_problem(answer, 500, SECRET, "ValueError")
        assert "nothing of the request was taken" in problem["detail"]
        told = [line for line in map(orjson.loads, written.getvalue().splitlines()) if line.get("error")]
        assert [line["error"] for line in told] == ["ValueError"]
        assert told[0]["request_id"] == answer.headers["x-request-id"]
        assert SECRET not in written.getvalue()
        assert (await client.get("/v1/streams/s1")).json()["stream_version"] == 0


@run_async
async def test_the_description_documents_every_error() -> None:
    """Each operation's errors are problem+json, below /v2 those of its protocol; a type leads to its description."""
    async with serving() as (client, _):
        document = (await client.get("/openapi.json")).json()
        described = document["components"]["responses"]
        shared = described.pop("OpenInference")
        assert shared["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/OpenError"}
        assert len(described) == len(ERRORS)
        for response in described.values():
            assert list(response["content"]) == ["application/problem+json"]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert operation["summary"], path
                errors = {status: r for status, r in operation["responses"].items() if int(status) >= 400}
                assert "500" in errors
                names = {r["$ref"].removeprefix("#/components/responses/") for r in errors.values()}
                assert names == {"OpenInference"} if is_open(path) else names <= set(described)
                if method in {"put", "post"} and not path.endswith("/reset"):
                    assert {"400", "413", "415", "422"} - ({"422"} if is_open(path) else set()) <= set(errors), path
        kind = (await client.get("/nosuch")).json()["type"].removeprefix("/openapi.json#/components/responses/")
        assert kind in described


@run_async
async def test_the_description_has_no_dangling_reference() -> None:
    """Every $ref leads somewhere, and nothing of FastAPI's own error shape is left."""
    async with serving() as (client, _):
        document = (await client.get("/openapi.json")).json()
        text = (await client.get("/openapi.json")).text
        assert "HTTPValidationError" not in text
        for reference in {part.split('"')[0] for part in text.split('"$ref":"#/')[1:]}:
            node: Any = document
            for step in reference.split("/"):
                node = node[step]
        assert isinstance(client._transport, httpx.ASGITransport)
        assert isinstance(client._transport.app, FastAPI)
        assert (await client.get("/docs")).status_code == 200
