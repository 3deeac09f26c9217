"""Two workers answer as one would, whichever of them is asked."""

from typing import Any

import orjson

from models import write_bundle
from service.lines import NDJSON
from tests.models.examples import small_model
from tests.service.crew_case import crew_of, names_of
from tests.service.http_case import assert_problem, run_async, serving
from tests.service.streams_case import PROBE, batches

STREAMS = [*names_of(0, 3), *names_of(1, 3)]
BATCHES = [{"inputs": inputs, "targets": targets} for inputs, targets in batches(3)]


@run_async
async def test_any_worker_answers_for_any_stream() -> None:
    """Every route of a stream: the same status and the same body from both, and as a worker without others says it."""
    async with crew_of() as workers, serving() as (alone, _):
        for name in STREAMS:
            for client in (workers[0].client, alone):
                assert (await client.put(f"/v1/streams/{name}", json={"model": "reg"})).status_code == 201
            for turn, batch in enumerate(BATCHES):
                expected = await alone.post(f"/v1/streams/{name}/feedback", json=batch)
                found = await workers[turn % 2].client.post(f"/v1/streams/{name}/feedback", json=batch)
                assert (found.status_code, found.json()) == (200, expected.json())
            for path in ("", "/events"):
                expected = await alone.get(f"/v1/streams/{name}{path}")
                for worker in workers:
                    assert (await worker.client.get(f"/v1/streams/{name}{path}")).json() == expected.json()
        held = await workers[0].client.post(
            f"/v1/streams/{STREAMS[5]}/predict", json={"inputs": PROBE[:1], "ids": ["p"]}
        )
        late = {"labels": [{"id": "p", "target": 1.0}]}
        assert held.status_code == 200
        assert (await workers[0].client.post(f"/v1/streams/{STREAMS[5]}/labels", json=late)).json()["accepted"] == 1
        for name in (STREAMS[0], STREAMS[5]):
            assert (await workers[1].client.post(f"/v1/streams/{name}/reset")).json()["stream_version"] >= 4
            assert (await workers[0].client.delete(f"/v1/streams/{name}")).status_code == 204
            assert_problem(await workers[1].client.get(f"/v1/streams/{name}"), 404)


@run_async
async def test_headers_and_errors_cross_over() -> None:
    """The request's id goes there and comes back; a refusal keeps its shape."""
    async with crew_of() as workers:
        for name in (names_of(0, 1)[0], names_of(1, 1)[0]):
            answer = await workers[0].client.post(
                f"/v1/streams/{name}/predict", json={"inputs": []}, headers={"X-Request-Id": "mine"}
            )
            assert_problem(answer, 422)
            assert answer.headers["x-request-id"] == "mine"
            assert_problem(await workers[0].client.request("PATCH", f"/v1/streams/{name}"), 405)
            contradicting = await workers[0].client.get(f"/v1/streams/{name}", headers={"X-Stream-Id": "other"})
            assert_problem(contradicting, 400)
        assert_problem(await workers[0].client.put("/v1/streams/a b", json={"model": "reg"}), 422)


@run_async
async def test_lists_hold_the_streams_of_all_workers() -> None:
    """In the order of ids, page by page, each once."""
    async with crew_of() as workers:
        for name in STREAMS:
            await workers[1].client.put(f"/v1/streams/{name}", json={"model": "reg"})
        for worker in workers:
            found: list[str] = []
            cursor: str | None = ""
            while cursor is not None:
                page = (await worker.client.get("/v1/streams", params={"limit": 2, "cursor": cursor})).json()
                assert len(page["items"]) <= 2
                found += [item["stream"] for item in page["items"]]
                cursor = page["next_cursor"]
            assert found == sorted(STREAMS)
            narrowed = (await worker.client.get("/v1/streams", params={"model": "cls"})).json()
            assert narrowed == {"items": [], "next_cursor": None}


@run_async
async def test_many_streams_are_asked_wherever_they_are() -> None:
    """In the order of the items, with each one's trouble in its place."""
    items: list[dict[str, Any]] = [{"stream": name, "model": "reg", **BATCHES[0]} for name in STREAMS]
    wrong = [
        {"stream": name, "inputs": [["secret", 1.0]], "targets": [1.0]}
        for name in (names_of(0, 1)[0], names_of(1, 1)[0])
    ]
    nobody = [{"stream": names_of(worker, 9)[8], **BATCHES[0]} for worker in (0, 1)]
    async with crew_of() as workers, serving() as (alone, _):
        sent = {"items": [*items, *wrong, *nobody]}
        found, expected = [
            (await client.post("/v1/feedback", json=sent)).json() for client in (workers[0].client, alone)
        ]
        assert found == expected
        asked = {"items": [{"stream": item["stream"], "inputs": PROBE} for item in items]}
        predicted = [(await worker.client.post("/v1/predict", json=asked)).json() for worker in workers]
        assert predicted[0] == predicted[1] == (await alone.post("/v1/predict", json=asked)).json()


@run_async
async def test_an_upload_reaches_the_streams_of_all_workers() -> None:
    """It is learned as without others, and resumed at another worker without learning twice."""
    rows = [
        {"stream": STREAMS[number % 6], "model": "reg", "input": [0.1 * number, 1.0], "target": float(number % 3)}
        for number in range(60)
    ]
    text = b"\n".join(map(orjson.dumps, rows))
    headers = {"content-type": NDJSON, "upload-id": "u"}
    async with crew_of() as workers, serving() as (alone, _):
        answer = await workers[0].client.post("/v1/feedback?batch=4", content=text, headers=headers)
        assert orjson.loads(answer.text.splitlines()[-1])["accepted"] == 60
        await alone.post("/v1/feedback?batch=4", content=text, headers=headers)
        for name in STREAMS:
            expected = await alone.post(f"/v1/streams/{name}/predict", json={"inputs": PROBE})
            found = await workers[1].client.post(f"/v1/streams/{name}/predict", json={"inputs": PROBE})
            assert found.json() == expected.json()
        for worker in workers:
            assert (await worker.client.get("/v1/uploads/u")).json() == {"upload": "u", "offset": 60}
            again = await worker.client.post("/v1/feedback?batch=4", content=text, headers=headers)
            assert orjson.loads(again.text.splitlines()[-1])["accepted"] == 0
        for worker in workers:
            worker.streams._store._uploads.clear()  # type: ignore[attr-defined]  # the memory store's
        again = await workers[1].client.post("/v1/feedback?batch=4", content=text, headers=headers)
        assert orjson.loads(again.text.splitlines()[-1]) == {
            "done": True,
            "offset": 60,
            "batches": 0,
            "accepted": 0,
            "duplicates": 0,
            "loss": None,
            "score": None,
            "drift": None,
        }


@run_async
async def test_the_service_is_ready_when_all_workers_are() -> None:
    """Each says so of all."""
    async with crew_of() as workers:
        for worker in workers:
            assert (await worker.client.get("/readyz")).status_code == 200
        workers[1].context.draining = True
        for worker in workers:
            assert_problem(await worker.client.get("/readyz"), 503)
            assert (await worker.client.get("/livez")).status_code == 200


@run_async
async def test_models_come_and_go_on_all_workers() -> None:
    """A version has one number everywhere, becomes active everywhere, and goes when no worker has a stream of it."""
    async with crew_of() as workers:
        model = small_model("regression", name="reg")
        bundle = write_bundle(model._replace(meta={name: value + 0.25 for name, value in model.meta.items()}))
        headers = {"Content-Type": "application/octet-stream"}
        for worker in workers:
            added = await worker.client.post("/v1/models/new/versions", content=bundle, headers=headers)
            assert added.json() == {"name": "new", "version": 1}
        refused = await workers[1].client.post("/v1/models/new/versions", content=b"garbage", headers=headers)
        assert_problem(refused, 422)
        (await workers[1].client.post("/v1/models/new/activate", json={"version": 1})).raise_for_status()
        for worker, name in zip(workers, (STREAMS[0], STREAMS[5]), strict=True):
            assert (await worker.client.get("/v1/models/new")).json()["active_version"] == 1
            assert (await worker.client.put(f"/v1/streams/{name}", json={"model": "new"})).status_code == 201
        for name in (STREAMS[0], STREAMS[5]):
            assert_problem(await workers[0].client.delete("/v1/models/new"), 409)
            await workers[0].client.delete(f"/v1/streams/{name}")
        assert (await workers[0].client.delete("/v1/models/new")).status_code == 204
        for worker in workers:
            assert_problem(await worker.client.get("/v1/models/new"), 404)


@run_async
async def test_a_key_is_honoured_wherever_the_stream_is() -> None:
    """A repeat at another worker gets the first answer; also of a request to many."""
    async with crew_of() as workers:
        for name in (STREAMS[0], STREAMS[5]):
            await workers[0].client.put(f"/v1/streams/{name}", json={"model": "reg"})
        items = {"items": [{"stream": name, **BATCHES[0]} for name in (STREAMS[0], STREAMS[5])]}
        key = {"Idempotency-Key": "k"}
        for path, body in ((f"/v1/streams/{STREAMS[5]}/feedback", BATCHES[1]), ("/v1/feedback", items)):
            first = await workers[0].client.post(path, json=body, headers=key)
            again = await workers[1].client.post(path, json=body, headers=key)
            assert again.json() == first.raise_for_status().json()
            assert again.headers["idempotent-replayed"] == "true"
