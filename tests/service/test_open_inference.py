"""The Open Inference Protocol over HTTP: what it answers, and that what it refuses changes nothing."""

import gzip
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from models import Model
from models.types import Feature, ModelSpec, Target
from service.app import create_app
from service.config import Settings
from service.oip.tensors import pack
from service.store import MemoryStore
from service.streams import Streams
from tests.models.examples import HEAD, untrained
from tests.service.crew_case import crew_of, names_of
from tests.service.http_case import NOW, assert_open_error, assert_problem, run_async, serving
from tests.service.streams_case import PROBE

TARGETS = [1.0, -2.0, 3.0]
SECRET = "s3cr3t"


def matrix(rows: list[list[float]], datatype: str = "FP64") -> dict[str, Any]:
    """The tensor of all features."""
    return {"name": "inputs", "shape": [len(rows), len(rows[0])], "datatype": datatype, "data": rows}


def column(name: str, values: list[Any], datatype: str = "FP64") -> dict[str, Any]:
    """A tensor of one value a row."""
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values}


def body_of(*inputs: dict[str, Any], stream: str | int | None = None, **parameters: Any) -> dict[str, Any]:
    """A request."""
    stated = parameters | ({} if stream is None else {"sequence_id": stream})
    return {"inputs": list(inputs), "parameters": stated}


async def post(client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> Any:
    """The answer to a request that is taken."""
    answer = await client.post(f"/v2/models/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def data_of(reply: Any, name: str) -> Any:
    """An output's data."""
    return next(output["data"] for output in reply["outputs"] if output["name"] == name)


@run_async
async def test_streams_answer_as_by_version_one() -> None:
    """Frozen before the first learn, which creates the stream; afterwards adapted, to the same numbers."""
    async with serving() as (client, _):
        start = (await client.post("/v1/models/reg/predict", json={"inputs": PROBE})).json()
        for stream in (None, "s1"):
            reply = await post(client, "reg/infer", body_of(matrix(PROBE), stream=stream))
            assert data_of(reply, "predictions") == start["predictions"]
            assert data_of(reply, "std") == start["std"]
            assert reply["parameters"] == {"stream_version": 0, "adapted": False, "drift_state": "new"}
            assert (reply["model_name"], reply["model_version"]) == ("reg", "1")
            assert "id" not in reply
        assert_problem(await client.get("/v1/streams/s1"), 404)
        taught = await post(client, "reg/learn", body_of(matrix(PROBE), column("targets", TARGETS), stream="s1"))
        assert data_of(taught, "predictions") == start["predictions"]
        stated = taught["parameters"]
        assert (stated["stream_version"], stated["adapted"], stated["accepted"], stated["rows_seen"]) == (1, True, 3, 3)
        await client.put("/v1/streams/other", json={"model": "reg"})
        alike = (await client.post("/v1/streams/other/feedback", json={"inputs": PROBE, "targets": TARGETS})).json()
        told = ("loss", "score", "initial_loss", "initial_score", "state")
        assert [stated[name.replace("state", "drift_state")] for name in told] == [alike[name] for name in told]
        adapted = (await client.post("/v1/streams/other/predict", json={"inputs": PROBE})).json()
        reply = await post(client, "reg/infer", body_of(matrix(PROBE), stream="s1"))
        assert data_of(reply, "predictions") == adapted["predictions"] != start["predictions"]
        assert data_of(reply, "std") == adapted["std"]
        assert reply["parameters"] == {"stream_version": 1, "adapted": True, "drift_state": alike["state"]}
        assert "state" not in adapted


@run_async
async def test_every_form_of_the_rows_is_the_same() -> None:
    """Flat or nested, FP32 or integers, one tensor or one a feature, binary, compressed, an integer as the stream."""
    rows = [[1.0, 2.0], [-3.0, 4.0]]
    flat = [value for row in rows for value in row]
    a, b = ([row[place] for row in rows] for place in (0, 1))
    async with serving() as (client, _):
        await post(client, "reg/learn", body_of(matrix(rows), column("targets", [1.0, 2.0]), stream=7))
        expected = await post(client, "reg/infer", body_of(matrix(rows), stream="7"))
        tall = [column("a", a) | {"shape": [2, 1]}, column("b", [[value] for value in b]) | {"shape": [2, 1]}]
        for inputs in (
            [matrix(rows, "FP32")],
            [matrix(rows) | {"data": flat}],
            [matrix([[1, 2], [-3, 4]], "INT8")],
            [column("b", b), column("a", [1, -3], "INT64")],
            tall,
        ):
            assert await post(client, "reg/infer", body_of(*inputs, stream=7)) == expected
        head = orjson.dumps(body_of(matrix(rows) | {"data": None, "parameters": {"binary_data_size": 32}}, stream=7))
        content = head + pack("FP64", flat)
        length = {"Inference-Header-Content-Length": str(len(head))}
        packed = {"Content-Encoding": "gzip", "Content-Type": "application/octet-stream"} | length
        for sent, headers in ((content, length), (gzip.compress(content), packed)):
            answer = await client.post("/v2/models/reg/infer", content=sent, headers=headers)
            assert answer.json() == expected


@run_async
async def test_outputs_are_those_that_were_asked_for() -> None:
    """One of them in binary form, whose length the header tells; the id comes back."""
    wanted = [{"name": "std", "parameters": {"binary_data": True}}, {"name": "predictions"}]
    async with serving() as (client, _):
        expected = await post(client, "reg/infer", body_of(matrix(PROBE)))
        sent = body_of(matrix(PROBE)) | {"outputs": wanted, "id": "mine"}
        answer = await client.post("/v2/models/reg/infer", json=sent)
        assert answer.headers["content-type"] == "application/octet-stream"
        length = int(answer.headers["inference-header-content-length"])
        reply = json.loads(answer.content[:length])
        assert [output["name"] for output in reply["outputs"]] == ["std", "predictions"]
        assert reply["outputs"][0]["parameters"] == {"binary_data_size": 24}
        assert answer.content[length:] == pack("FP64", data_of(expected, "std"))
        assert reply["outputs"][1]["data"] == data_of(expected, "predictions")
        assert reply["id"] == "mine"


@run_async
async def test_classes_are_answered_as_they_are() -> None:
    """BYTES for strings, beside probabilities whose order is told; labels are learned from BYTES."""
    labels = ["yes", "no", "yes"]
    async with serving() as (client, _):
        await post(client, "cls/learn", body_of(matrix(PROBE), column("targets", labels, "BYTES"), stream="c"))
        reply = await post(client, "cls/infer", body_of(matrix(PROBE), stream="c"))
        alike = (await client.post("/v1/streams/c/predict", json={"inputs": PROBE})).json()
        predictions, probabilities = reply["outputs"]
        assert (predictions["datatype"], predictions["data"]) == ("BYTES", alike["predictions"])
        assert probabilities["shape"] == [3, 2]
        assert probabilities["data"] == [value for row in alike["probabilities"] for value in row]
        assert json.loads(probabilities["parameters"]["classes"]) == ["no", "yes"]
        assert "parameters" not in predictions


def shop_model(target: Target, **more: Any) -> Model:
    """A model with a value that may be missing and a category."""
    features = (Feature("a", missing=True), Feature("kind", "categorical", categories=("x", "y", "True", "3")))
    task: Any = "classification" if target.classes or target.ways else "regression"
    return untrained(ModelSpec("shop", task, features, target, (HEAD,), **more))


@asynccontextmanager
async def serving_shop(
    target: Target, store: MemoryStore | None = None, *, name: str = "shop"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that has a shop model."""
    settings = Settings(data_dir=Path("unused"))
    made = Streams(settings, store or MemoryStore(), {name: shop_model(target)}, lambda: NOW)
    app = create_app(settings, streams=made)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


@run_async
async def test_metadata_lists_what_a_request_is_made_of() -> None:
    """A matrix of numbers, or a tensor a feature where some are categories; outputs by the task."""
    async with serving() as (client, _):
        found = (await client.get("/v2/models/cls")).json()
        assert found == (await client.get("/v2/models/cls/versions/1")).json()
        assert found == {
            "name": "cls",
            "versions": ["1"],
            "platform": "acclimate",
            "inputs": [{"name": "inputs", "datatype": "FP64", "shape": [-1, 2]}],
            "outputs": [
                {"name": "predictions", "datatype": "BYTES", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]},
            ],
        }
        names = [output["name"] for output in (await client.get("/v2/models/reg")).json()["outputs"]]
        assert names == ["predictions", "std"]
    async with serving_shop(Target("y", (0.0, 0.0), (1.0, 1.0))) as client:
        found = (await client.get("/v2/models/shop")).json()
        assert found["inputs"] == [
            {"name": "a", "datatype": "FP64", "shape": [-1]},
            {"name": "kind", "datatype": "BYTES", "shape": [-1]},
        ]
        assert [output["shape"] for output in found["outputs"]] == [[-1, 2], [-1, 2]]


@run_async
async def test_labels_of_several_numbers_are_a_matrix() -> None:
    """Learned from one, and answered as one."""
    async with serving_shop(Target("y", (0.0, 0.0), (1.0, 1.0))) as client:
        rows = [column("a", [1.0, 2.0]), column("kind", ["x", "y"], "BYTES")]
        targets = {"name": "targets", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]}
        taught = await post(client, "shop/learn", body_of(*rows, targets, stream="s"))
        assert [output["shape"] for output in taught["outputs"]] == [[2, 2], [2, 2]]
        wrong = await client.post("/v2/models/shop/learn", json=body_of(*rows, column("targets", [1, 2]), stream="s"))
        assert_open_error(wrong, 400)


@run_async
async def test_categories_come_as_text_integers_or_booleans_and_values_may_be_missing() -> None:
    """The same rows as objects of version 1: null, and a tensor that is left out, are missing values."""
    async with serving_shop(Target("y")) as client:
        for tensors, rows in (
            ([column("kind", ["x", "?"], "BYTES")], [{"kind": "x"}, {"kind": "?"}]),
            ([column("a", [None, 1.0]), column("kind", [3, 4], "UINT8")], [{"kind": 3}, {"a": 1.0, "kind": 4}]),
            ([column("kind", [True, False], "BOOL")], [{"kind": True}, {"kind": False}]),
        ):
            reply = await post(client, "shop/infer", body_of(*tensors))
            alike = (await client.post("/v1/models/shop/predict", json={"inputs": rows})).json()
            assert data_of(reply, "predictions") == alike["predictions"]
            assert data_of(reply, "std") == alike["std"]
        for wrong in ([column("a", [1.0])], [column("kind", [1.5])], [column("kind", [None], "BYTES")]):
            assert_open_error(await client.post("/v2/models/shop/infer", json=body_of(*wrong)), 400)


@pytest.mark.parametrize(
    ("classes", "datatype"), [((3, 1, 2), "INT64"), ((False, True), "BOOL"), (("a", 1), "BYTES"), ((0.5, 1.5), "FP64")]
)
@run_async
async def test_predictions_have_the_datatype_of_the_classes(classes: tuple[Any, ...], datatype: str) -> None:
    """Where the classes are of one kind; otherwise they are text."""
    async with serving_shop(Target("y", classes=classes)) as client:
        assert (await client.get("/v2/models/shop")).json()["outputs"][0]["datatype"] == datatype
        reply = await post(client, "shop/infer", body_of(column("kind", ["x"], "BYTES")))
        (label,) = data_of(reply, "predictions")
        assert label in (classes if datatype != "BYTES" else list(map(str, classes)))
        assert json.loads(reply["outputs"][1]["parameters"]["classes"]) == list(classes)


@run_async
async def test_a_stream_names_its_classes_by_learning() -> None:
    """Open classes: the empty text before the first label, then text, also of labels that are none."""
    async with serving_shop(Target("y", ways=3)) as client:
        kind = column("kind", ["x"], "BYTES")
        assert (await client.get("/v2/models/shop")).json()["outputs"][1]["shape"] == [-1, -1]
        for stream in (None, "s"):
            labels, probabilities = (await post(client, "shop/infer", body_of(kind, stream=stream)))["outputs"]
            assert (labels["data"], probabilities["shape"], probabilities["data"]) == ([""], [1, 0], [])
        await post(client, "shop/learn", body_of(kind, column("targets", [7], "INT16"), stream="s"))
        labels, probabilities = (await post(client, "shop/infer", body_of(kind, stream="s")))["outputs"]
        assert (labels["data"], probabilities["shape"]) == (["7"], [1, 1])
        assert probabilities["parameters"]["classes"] == "[7]"


@run_async
async def test_a_sequence_start_resets_the_stream() -> None:
    """A new revision that answers like the frozen start, and from there it learns; nothing where there is no stream."""
    async with serving() as (client, _):
        start = await post(client, "reg/infer", body_of(matrix(PROBE), stream="s", sequence_start=True))
        assert start["parameters"]["adapted"] is False
        assert_problem(await client.get("/v1/streams/s"), 404)
        batch = (matrix(PROBE), column("targets", TARGETS))
        first = await post(client, "reg/learn", body_of(*batch, stream="s", sequence_start=True))
        assert first["parameters"]["stream_version"] == 1
        again = await post(client, "reg/infer", body_of(matrix(PROBE), stream="s", sequence_start=True))
        for name in ("predictions", "std"):
            assert data_of(again, name) == pytest.approx(data_of(start, name), rel=1e-4)
        assert again["parameters"] == {"stream_version": 2, "adapted": True, "drift_state": "new"}
        once_more = await post(client, "reg/learn", body_of(*batch, stream="s", sequence_start=True))
        assert data_of(once_more, "predictions") == pytest.approx(data_of(first, "predictions"))
        assert once_more["parameters"]["stream_version"] == 4
        kept = await post(client, "reg/infer", body_of(matrix(PROBE), stream="s", sequence_end=True))
        assert kept["parameters"]["stream_version"] == 4


REFUSED: list[tuple[dict[str, Any], int]] = [
    (body_of(matrix(PROBE), column("targets", [*TARGETS[:2], "s3cr3t"], "BYTES")), 400),
    (body_of(matrix(PROBE), column("targets", TARGETS, "BOOL")), 400),
    (body_of(matrix(PROBE), column("targets", TARGETS[:2])), 400),
    (body_of(matrix(PROBE), column("targets", [*TARGETS[:2], None])), 400),
    (body_of(matrix(PROBE), column("targets", ["a", "b", "c"], "BYTES")), 400),
    (body_of(matrix(PROBE), matrix(PROBE), column("targets", TARGETS)), 400),
    (body_of(matrix(PROBE), column("a", TARGETS), column("targets", TARGETS)), 400),
    (body_of(matrix(PROBE)), 400),
    (body_of(column("targets", TARGETS)), 400),
    (body_of(matrix([[1.0], [2.0], [3.0]]), column("targets", TARGETS)), 400),
    (body_of(matrix(PROBE) | {"shape": [6]}, column("targets", TARGETS)), 400),
    (body_of(matrix(PROBE) | {"shape": [2, 3]}, column("targets", TARGETS)), 400),
    (body_of(matrix(PROBE) | {"shape": [2**62, 2]}, column("targets", TARGETS)), 400),
    (body_of(matrix(PROBE) | {"shape": [0, 2], "data": []}, column("targets", [])), 400),
    (body_of(matrix([[1.0, 2.0]] * 21), column("targets", [1.0] * 21)), 400),
    (body_of(column("a", TARGETS), column("targets", TARGETS)), 400),
    (body_of(column("a", TARGETS), column("a", TARGETS), column("targets", TARGETS)), 400),
    (body_of(column("a", TARGETS), column("b", TARGETS[:2]), column("targets", TARGETS)), 400),
    (body_of(column("a", TARGETS), column(SECRET, TARGETS), column("targets", TARGETS)), 400),
    (body_of(column("a", TARGETS), column("b", [1.0, None, 2.0]), column("targets", TARGETS)), 400),
    (body_of(column("a", TARGETS), column("b", ["s3cr3t"] * 3, "BYTES"), column("targets", TARGETS)), 400),
    (body_of(matrix(PROBE), column("targets", TARGETS)) | {"outputs": [{"name": SECRET}]}, 400),
]


@pytest.mark.parametrize("reset", [False, True])
@run_async
async def test_what_is_refused_changes_nothing(reset: bool) -> None:
    """A bad tensor, label or output is a 400 in one sentence, and the stream is as before, asked for a reset or not."""
    parameters = {"sequence_id": "s", "sequence_start": reset}
    async with serving(batch_rows_max=20) as (client, _):
        await post(client, "reg/learn", body_of(matrix(PROBE), column("targets", TARGETS), stream="s"))
        before = [(await client.get("/v1/streams/s")).json(), (await client.get("/v1/streams/s/events")).json()]
        for body, status in REFUSED:
            answer = await client.post("/v2/models/reg/learn", json=body | {"parameters": parameters})
            assert_open_error(answer, status, SECRET)
        rows = [tensor for tensor in REFUSED[9][0]["inputs"] if tensor["name"] == "inputs"]
        sent = {"inputs": rows, "parameters": parameters}
        assert_open_error(await client.post("/v2/models/reg/infer", json=sent), 400)
        foreign = body_of(matrix(PROBE), column("targets", ["yes"] * 3, "BYTES"))
        for path, inputs in (("infer", foreign["inputs"][:1]), ("learn", foreign["inputs"])):
            sent = {"inputs": inputs, "parameters": parameters}
            assert_open_error(await client.post(f"/v2/models/cls/{path}", json=sent), 409)
        after = [(await client.get("/v1/streams/s")).json(), (await client.get("/v1/streams/s/events")).json()]
        assert after == before
        unnamed = body_of(matrix(PROBE), column("targets", TARGETS))
        assert "sequence_id" in assert_open_error(await client.post("/v2/models/reg/learn", json=unnamed), 400)


@run_async
async def test_numbers_that_are_not_finite_are_refused() -> None:
    """NaN and infinities, in binary form and in JSON."""
    async with serving() as (client, _):
        for name, shape in (("inputs", [1, 2]), ("a", [2])):
            for wrong in (float("nan"), float("inf")):
                head = orjson.dumps(
                    {
                        "inputs": [
                            {"name": name, "shape": shape, "datatype": "FP64", "parameters": {"binary_data_size": 16}}
                        ]
                    }
                )
                sent = head + pack("FP64", [1.0, wrong])
                headers = {"Inference-Header-Content-Length": str(len(head))}
                assert_open_error(await client.post("/v2/models/reg/infer", content=sent, headers=headers), 400)
        text = json.dumps(body_of(matrix([[1.0, float("nan")]])))
        assert "inputs[0].data[0][1]" in assert_open_error(await client.post("/v2/models/reg/infer", content=text), 400)


@run_async
async def test_headers_that_contradict_are_refused() -> None:
    """Another stream, a length that is none or beyond the body, and an unpacked body above the limit."""
    async with serving(body_bytes_max=10_000) as (client, _):
        sent = orjson.dumps(body_of(matrix(PROBE), stream="s"))
        for headers, status in (
            ({"X-Stream-Id": "s"}, 200),
            ({"X-Stream-Id": "other"}, 400),
            ({"Inference-Header-Content-Length": "-1"}, 400),
            ({"Inference-Header-Content-Length": "x"}, 400),
            ({"Inference-Header-Content-Length": str(len(sent) + 1)}, 400),
            ({"Inference-Header-Content-Length": "9" * 5_000}, 400),
            ({"Content-Encoding": "gzip"}, 400),
            ({"Content-Encoding": "identity"}, 200),
        ):
            answer = await client.post("/v2/models/reg/infer", content=sent, headers=headers)
            assert answer.status_code == status, headers
            if status != 200:
                assert_open_error(answer, status)
        bomb = gzip.compress(b" " * 1_000_000)
        answer = await client.post("/v2/models/reg/infer", content=bomb, headers={"Content-Encoding": "gzip"})
        assert_open_error(answer, 413)


@run_async
async def test_a_version_answers_itself() -> None:
    """The start of each version, by its own tensors; a stream only by the version that it is bound to."""
    store = MemoryStore()
    async with serving_shop(Target("y"), store):
        pass
    async with serving_shop(Target("y", classes=("n", "p")), store) as client:
        versions = [(await client.get(f"/v2/models/shop/versions/{number}")).json() for number in (1, 2)]
        assert [found["versions"] for found in versions] == [["1", "2"], ["1", "2"]]
        assert [found["outputs"][1]["name"] for found in versions] == ["std", "probabilities"]
        assert (await client.get("/v2/models/shop")).json() == versions[0]
        kind = column("kind", ["x"], "BYTES")
        for number, output in ((1, "std"), (2, "probabilities")):
            reply = await post(client, f"shop/versions/{number}/infer", body_of(kind))
            assert (reply["model_version"], reply["outputs"][1]["name"]) == (str(number), output)
            assert reply["parameters"]["adapted"] is False
        await post(client, "shop/learn", body_of(kind, column("targets", [1.0]), stream="s"))
        bound = await post(client, "shop/versions/1/infer", body_of(kind, stream="s"))
        assert bound["parameters"]["adapted"] is True
        other = await client.post("/v2/models/shop/versions/2/infer", json=body_of(kind, stream="s"))
        assert "version 1" in assert_open_error(other, 409)
        listed = (await client.post("/v2/repository/index", json={"ready": True})).json()
        assert [(one["name"], one["version"], one["state"]) for one in listed] == [
            ("shop", "1", "READY"),
            ("shop", "2", "READY"),
        ]
        for path in ("", "/ready", "/stats", "/infer"):
            for unknown in ("3", "0", "x", "²", "1" * 50):
                url = f"/v2/models/shop/versions/{unknown}{path}"
                answer = await (client.post(url, json=body_of(kind)) if path == "/infer" else client.get(url))
                assert_open_error(answer, 404)


@run_async
async def test_statistics_count_what_was_asked() -> None:
    """Rows, computations and requests, by whatever route; durations that fit each other; failures by themselves."""
    async with serving() as (client, _):
        (untouched,) = (await client.get("/v2/models/reg/stats")).json()["model_stats"]
        assert (untouched["last_inference"], untouched["inference_count"]) == (0, 0)
        for _ in range(2):
            await post(client, "reg/infer", body_of(matrix(PROBE)))
        await client.post("/v1/models/reg/predict", json={"inputs": PROBE[:1]})
        await client.post("/v2/models/reg/infer", json=body_of(matrix([[1.0, None]])))  # type: ignore[list-item]
        await post(client, "reg/learn", body_of(matrix(PROBE), column("targets", TARGETS), stream="s"))
        (found,) = (await client.get("/v2/models/reg/versions/1/stats")).json()["model_stats"]
        assert (found["name"], found["version"], found["last_inference"]) == ("reg", "1", int(NOW * 1e3))
        assert (found["inference_count"], found["execution_count"]) == (7, 3)
        spent = found["inference_stats"]
        stages = [spent[name] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
        assert {stage["count"] for stage in (*stages, spent["success"])} == {3}
        assert all(stage["ns"] > 0 for stage in stages)
        assert sum(stage["ns"] for stage in stages) <= spent["success"]["ns"]
        assert spent["fail"]["count"] == 1
        assert spent["fail"]["ns"] > 0
        everything = (await client.get("/v2/models/stats")).json()["model_stats"]
        assert [one["name"] for one in everything] == ["cls", "reg"]
        assert everything[1] == found


@run_async
async def test_health_is_that_of_the_service() -> None:
    """Live always; not ready once the service was told to stop, and its models neither."""
    async with serving() as (client, _):
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        assert (await client.get("/v2/models/reg/versions/1/ready")).json() == {"name": "reg", "ready": True}
        client._transport.app.state.context.draining = True  # type: ignore[attr-defined]  # what SIGTERM sets
        for path in ("health/ready", "models/reg/ready", "models/reg/versions/1/ready"):
            assert_open_error(await client.get(f"/v2/{path}"), 503)
        assert (await client.get("/v2/health/live")).status_code == 200


@run_async
async def test_any_worker_answers_for_any_stream() -> None:
    """Whichever is asked: the streams of others too, their resets and their statistics."""
    streams = [names_of(0, 1)[0], names_of(1, 1)[0]]
    batch = (matrix(PROBE), column("targets", TARGETS))
    async with crew_of() as workers, serving() as (alone, _):
        for name in streams:
            for path, tensors, more in (
                ("learn", batch, {}),
                ("infer", batch[:1], {}),
                ("infer", batch[:1], {"sequence_start": True}),
                ("learn", batch, {"sequence_start": True}),
                ("infer", batch[:1], {}),
            ):
                sent = body_of(*tensors, stream=name, **more)
                expected = await post(alone, f"reg/{path}", sent)
                assert await post(workers[0].client, f"reg/{path}", sent) == expected
            wrong = body_of(matrix([[1.0, None]]), stream=name)  # type: ignore[list-item]
            answers = [await client.post("/v2/models/reg/infer", json=wrong) for client in (workers[0].client, alone)]
            assert len({assert_open_error(answer, 400) for answer in answers}) == 1
        counts = [
            (await client.get("/v2/models/reg/stats")).json()["model_stats"][0]["inference_count"]
            for client in (workers[0].client, workers[1].client, alone)
        ]
        assert counts[0] == counts[1] == counts[2] > 0
