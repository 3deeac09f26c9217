"""The routes over the real streams, in memory: what they answer when all is well."""

from typing import Any

import numpy as np
import pytest

from service.streams import Streams
from tests.service.http_case import run_async, serving

ROWS = [[0.5, -1.0], [1.5, 2.0]]


@run_async
async def test_put_creates_confirms_and_reconfigures_a_stream() -> None:
    """201 when new, 200 when it was there, and a new config is applied."""
    async with serving() as (client, _):
        first = await client.put("/v1/streams/s1", json={"model": "reg", "metadata": {"shop": 7}})
        assert first.status_code == 201
        state = first.json()
        assert (state["stream"], state["model"], state["stream_version"]) == ("s1", "reg", 0)
        assert (state["rows_seen"], state["state"], state["last_drift"]) == (0, "new", None)
        assert state["metadata"] == {"shop": 7}
        again = await client.put("/v1/streams/s1", json={"model": "reg", "config": {"alarms_per_1000": 1.0}})
        assert again.status_code == 200
        assert again.json()["config"] == {"alarms_per_1000": 1.0}
        assert (await client.put("/v1/streams/s1", json={"model": "cls"})).status_code == 409
        assert (await client.get("/v1/streams/s1")).json() == again.json()


@run_async
async def test_feedback_answers_what_was_learned() -> None:
    """Counters, losses and state are there, the predictions only on request."""
    async with serving() as (client, _):
        await client.put("/v1/streams/s1", json={"model": "reg"})
        body = {"inputs": ROWS, "targets": [1.0, 2.0], "ids": ["r1", "r2"], "times": ["2024-01-01T00:00:00Z", 1.7e9]}
        answer = await client.post("/v1/streams/s1/feedback", json=body, headers={"X-Stream-Id": "s1"})
        assert answer.status_code == 200, answer.text
        learned = answer.json()
        assert (learned["accepted"], learned["duplicates"], learned["rows_seen"]) == (2, 0, 2)
        assert learned["stream_version"] == 1
        assert set(learned) == {
            *("stream", "accepted", "duplicates", "rows_seen", "model_version", "stream_version"),
            *("loss", "score", "initial_loss", "initial_score", "drift", "state"),
        }
        repeated = (await client.post("/v1/streams/s1/feedback?return=predictions", json=body)).json()
        assert (repeated["accepted"], repeated["duplicates"], repeated["stream_version"]) == (0, 2, 1)
        body["ids"] = ["r3", "r4"]
        shown = (await client.post("/v1/streams/s1/feedback?return=predictions", json=body)).json()
        assert len(shown["predictions"]) == len(shown["std"]) == 2


@run_async
async def test_predict_answers_the_fields_of_the_task() -> None:
    """Regression has std and intervals, classification has probabilities and classes."""
    async with serving() as (client, _):
        await client.put("/v1/streams/r", json={"model": "reg"})
        await client.put("/v1/streams/c", json={"model": "cls"})
        number = (await client.post("/v1/streams/r/predict", json={"inputs": ROWS, "interval": 0.9})).json()
        assert set(number) == {
            *("stream", "model", "model_version", "stream_version"),
            *("predictions", "std", "intervals"),
        }
        low, high = number["intervals"][0]
        assert low < number["predictions"][0] < high
        label = (await client.post("/v1/streams/c/predict", json={"inputs": [{"a": 1, "b": 2.5}]})).json()
        assert label["predictions"][0] in label["classes"] == ["no", "yes"]
        assert sum(label["probabilities"][0]) == pytest.approx(1.0)
        assert "std" not in label


@run_async
async def test_the_frozen_start_answers_as_a_fresh_stream_does() -> None:
    """A stream without rows predicts what its model's frozen start predicts."""
    async with serving() as (client, _):
        await client.put("/v1/streams/s1", json={"model": "reg"})
        stream = (await client.post("/v1/streams/s1/predict", json={"inputs": ROWS})).json()
        start = (await client.post("/v1/models/reg/predict", json={"inputs": ROWS})).json()
        assert stream["predictions"] == start["predictions"]
        assert (start["model"], start["model_version"], start["stream_version"]) == ("reg", 1, 0)


@run_async
async def test_reset_goes_back_to_the_start_and_is_an_event() -> None:
    """After a reset the stream predicts like the frozen start, its revision has grown, and the log says so."""
    async with serving() as (client, _):
        await client.put("/v1/streams/s1", json={"model": "reg"})
        for _ in range(3):
            await client.post("/v1/streams/s1/feedback", json={"inputs": ROWS, "targets": [9.0, -9.0]})
        start = (await client.post("/v1/models/reg/predict", json={"inputs": ROWS})).json()["predictions"]
        adapted = (await client.post("/v1/streams/s1/predict", json={"inputs": ROWS})).json()["predictions"]
        assert adapted != pytest.approx(start)
        state = (await client.post("/v1/streams/s1/reset")).json()
        assert state["stream_version"] == 4
        after = (await client.post("/v1/streams/s1/predict", json={"inputs": ROWS})).json()["predictions"]
        assert after == pytest.approx(start)
        events = (await client.get("/v1/streams/s1/events")).json()
        assert [event["kind"] for event in events["items"]][-1] == "reset"
        newest = events["items"][-1]["id"]
        assert (await client.get(f"/v1/streams/s1/events?after={newest}")).json()["items"] == []


@run_async
async def test_late_labels_are_learned_from_kept_rows() -> None:
    """Predict with ids, label later: the reply is feedback's with the ids that wait for nothing."""
    async with serving() as (client, _):
        await client.put("/v1/streams/s1", json={"model": "reg"})
        asked = {"inputs": ROWS, "ids": ["r1", "r2"], "interval": 0.9}
        kept = await client.post("/v1/streams/s1/predict", json=asked)
        assert kept.status_code == 200, kept.text
        assert kept.json()["stream_version"] == 0
        assert (await client.post("/v1/streams/s1/predict", json=asked)).content == kept.content
        labels = [{"id": "r2", "target": 2.0}, {"id": "nosuch", "target": 1.0}, {"id": "r2", "target": 3.0}]
        answer = await client.post("/v1/streams/s1/labels", json={"labels": labels})
        assert answer.status_code == 200, answer.text
        learned = answer.json()
        assert set(learned) == {
            *("stream", "accepted", "duplicates", "unknown", "rows_seen", "model_version", "stream_version"),
            *("loss", "score", "initial_loss", "initial_score", "drift", "state"),
        }
        assert (learned["accepted"], learned["duplicates"], learned["unknown"]) == (1, 1, ["nosuch"])
        assert learned["score"] == pytest.approx(abs(kept.json()["predictions"][1] - 2.0))
        body = {"targets": [1.0, 2.0], "ids": ["r1", "r2"]}
        rest = (await client.post("/v1/streams/s1/feedback?return=predictions", json=body)).json()
        assert (rest["accepted"], rest["duplicates"], rest["stream_version"]) == (1, 1, 2)
        assert rest["predictions"] == [kept.json()["predictions"][0], None]
        assert "unknown" not in rest


@run_async
async def test_lists_come_in_pages() -> None:
    """Following next_cursor visits each stream once, by id, within prefix and model."""
    async with serving() as (client, _):
        for name in ("b2", "a1", "b1", "b3"):
            await client.put(f"/v1/streams/{name}", json={"model": "reg"})
        await client.put("/v1/streams/b0", json={"model": "cls"})
        seen: list[str] = []
        parameters: dict[str, Any] = {"prefix": "b", "model": "reg", "limit": 2}
        while True:
            page = (await client.get("/v1/streams", params=parameters)).json()
            assert len(page["items"]) <= 2
            seen += [item["stream"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            parameters["cursor"] = page["next_cursor"]
        assert seen == ["b1", "b2", "b3"]


@run_async
async def test_a_deleted_stream_is_gone() -> None:
    """204 without a body, then 404, and the id can be used afresh."""
    async with serving() as (client, _):
        await client.put("/v1/streams/s1", json={"model": "reg"})
        await client.post("/v1/streams/s1/feedback", json={"inputs": ROWS, "targets": [1, 2]})
        gone = await client.delete("/v1/streams/s1")
        assert (gone.status_code, gone.content) == (204, b"")
        assert (await client.get("/v1/streams/s1")).status_code == 404
        assert (await client.put("/v1/streams/s1", json={"model": "cls"})).json()["rows_seen"] == 0


@run_async
async def test_models_are_described() -> None:
    """Name, versions, task, features, classes, experts and detector are there."""
    async with serving() as (client, _):
        listed = (await client.get("/v1/models")).json()
        assert [model["name"] for model in listed["items"]] == ["cls", "reg"]
        one = (await client.get("/v1/models/cls")).json()
        assert one == listed["items"][0]
        assert (one["task"], one["classes"], one["versions"], one["active_version"]) == (
            "classification",
            ["no", "yes"],
            [1],
            1,
        )
        assert [feature["name"] for feature in one["features"]] == ["a", "b"]
        assert {feature["kind"] for feature in one["features"]} == {"numeric"}


@run_async
async def test_limits_are_those_in_force() -> None:
    """A changed setting shows."""
    async with serving(batch_rows_max=7) as (client, _):
        limits = (await client.get("/v1/limits")).json()
        assert limits["batch_rows_max"] == 7
        assert limits["body_bytes_max"] == 8 * 1024 * 1024


@run_async
async def test_health_is_ready_until_draining() -> None:
    """Live always; not ready once the service was told to stop, while requests are still answered."""
    async with serving() as (client, _):
        assert (await client.get("/readyz")).json() == {"ready": True}
        client._transport.app.state.context.draining = True  # type: ignore[attr-defined]  # what SIGTERM sets
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).json() == {"live": True}
        assert (await client.get("/v1/models")).status_code == 200


@run_async
async def test_a_request_id_is_kept_or_made() -> None:
    """The client's X-Request-Id comes back if it is one, else a new one."""
    async with serving() as (client, _):
        kept = await client.get("/livez", headers={"X-Request-Id": "abc-1"})
        assert kept.headers["x-request-id"] == "abc-1"
        made = await client.get("/livez", headers={"X-Request-Id": "two words"})
        assert len(made.headers["x-request-id"]) == 32


@run_async
async def test_no_stream_is_ready_before_its_service_started() -> None:
    """Readiness follows the streams."""

    class NeverReady(Streams):
        @property
        def ready(self) -> bool:
            return False

    async with serving(NeverReady) as (client, _):
        assert (await client.get("/readyz")).status_code == 503


@run_async
async def test_inputs_that_move_show_in_state_and_events_without_a_label() -> None:
    """Predicted under ids, never labelled: the stream warns, and its event names the feature and how far it moved."""
    drawn = np.random.default_rng(0).normal(size=(8, 50, 2))
    drawn[6:, :, 0] -= 3.0
    async with serving() as (client, _):
        await client.put("/v1/streams/s1", json={"model": "reg"})
        for number, rows in enumerate(drawn.tolist()):
            body = {"inputs": rows, "ids": [f"{number}-{row}" for row in range(50)]}
            assert (await client.post("/v1/streams/s1/predict", json=body)).status_code == 200
        state = (await client.get("/v1/streams/s1")).json()
        assert (state["state"], state["stream_version"], state["rows_seen"]) == ("warning", 0, 0)
        (event,) = (await client.get("/v1/streams/s1/events")).json()["items"]
        assert (event["kind"], event["detector"], event["feature"], event["action"]) == ("warning", "inputs", "a", None)
        assert event["shift"] == pytest.approx(-3.0, abs=1.2)
