"""The Open Inference Protocol over HTTP: it answers what version 1 answers."""

import gzip
import json
from typing import Any

import numpy as np
import orjson
import pytest

from models.types import Target
from service.oip.tensors import pack
from tests.service.crew_case import crew_of, names_of
from tests.service.http_case import assert_open_error, assert_problem, run_async, serving
from tests.service.open_case import body_of, column, data_of, matrix, post, serving_shop
from tests.service.streams_case import PROBE

TARGETS = [1.0, -2.0, 3.0]


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


@pytest.mark.parametrize(("classes", "datatype"), [((3, 1, 2), "INT64"), ((False, True), "BOOL"), (("a", 1), "BYTES")])
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


@run_async
async def test_a_large_request_is_answered_as_small_ones_are() -> None:
    """It is decoded in a thread, and learned from there too."""
    rows = np.random.default_rng(0).normal(size=(9_000, 2)).round(3)
    head = orjson.dumps(
        {"inputs": [matrix(rows.tolist()) | {"data": None, "parameters": {"binary_data_size": rows.nbytes}}]}
    )
    headers = {"Inference-Header-Content-Length": str(len(head))}
    async with serving() as (client, _):
        answer = await client.post("/v2/models/reg/infer", content=head + rows.tobytes(), headers=headers)
        few = await post(client, "reg/infer", body_of(matrix(rows[-3:].tolist())))
        assert data_of(answer.json(), "std")[-3:] == pytest.approx(data_of(few, "std"))
        batch = (matrix(rows.tolist()), column("targets", rows[:, 0].tolist()))
        assert (await post(client, "reg/learn", body_of(*batch, stream="s")))["parameters"]["accepted"] == 9_000
