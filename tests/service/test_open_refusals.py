"""What the Open Inference Protocol's routes refuse is told in one sentence, and changes nothing."""

import gzip
import json
from typing import Any

import orjson
import pytest
import structlog

from service.errors import SaturatedError, StoreFullError, UnavailableError
from service.oip.tensors import pack
from service.streams import Streams
from tests.service.http_case import assert_open_error, assert_problem, run_async, serving
from tests.service.open_case import body_of, column, matrix, post
from tests.service.streams_case import PROBE

TARGETS = [1.0, -2.0, 3.0]


SECRET = "s3cr3t"


REFUSED: list[dict[str, Any]] = [
    body_of(matrix(PROBE), column("targets", [*TARGETS[:2], "s3cr3t"], "BYTES")),
    body_of(matrix(PROBE), column("targets", TARGETS, "BOOL")),
    body_of(matrix(PROBE), column("targets", TARGETS[:2])),
    body_of(matrix(PROBE), column("targets", [*TARGETS[:2], None])),
    body_of(matrix(PROBE), column("targets", ["a", "b", "c"], "BYTES")),
    body_of(matrix(PROBE), matrix(PROBE), column("targets", TARGETS)),
    body_of(matrix(PROBE), column("a", TARGETS), column("targets", TARGETS)),
    body_of(matrix(PROBE)),
    body_of(column("targets", TARGETS)),
    body_of(matrix([[1.0], [2.0], [3.0]]), column("targets", TARGETS)),
    body_of(matrix(PROBE) | {"shape": [6]}, column("targets", TARGETS)),
    body_of(matrix(PROBE) | {"shape": [2, 3]}, column("targets", TARGETS)),
    body_of(matrix(PROBE) | {"shape": [2**62, 2]}, column("targets", TARGETS)),
    body_of(matrix(PROBE) | {"shape": [0, 2], "data": []}, column("targets", [])),
    body_of(matrix([[1.0, 2.0]] * 21), column("targets", [1.0] * 21)),
    body_of(column("a", TARGETS), column("targets", TARGETS)),
    body_of(column("a", TARGETS), column("a", TARGETS), column("targets", TARGETS)),
    body_of(column("a", TARGETS), column("b", TARGETS[:2]), column("targets", TARGETS)),
    body_of(column("a", TARGETS), column(SECRET, TARGETS), column("targets", TARGETS)),
    body_of(column("a", TARGETS), column("b", [1.0, None, 2.0]), column("targets", TARGETS)),
    body_of(column("a", TARGETS), column("b", ["s3cr3t"] * 3, "BYTES"), column("targets", TARGETS)),
    body_of(matrix(PROBE), column("targets", TARGETS)) | {"outputs": [{"name": SECRET}]},
]


@pytest.mark.parametrize("reset", [False, True])
@run_async
async def test_what_is_refused_changes_nothing(reset: bool) -> None:
    """A bad tensor, label or output is a 400 in one sentence, and the stream is as before, asked for a reset or not."""
    parameters = {"sequence_id": "s", "sequence_start": reset}
    async with serving(batch_rows_max=20) as (client, _):
        await post(client, "reg/learn", body_of(matrix(PROBE), column("targets", TARGETS), stream="s"))
        before = [(await client.get("/v1/streams/s")).json(), (await client.get("/v1/streams/s/events")).json()]
        for body in REFUSED:
            answer = await client.post("/v2/models/reg/learn", json=body | {"parameters": parameters})
            assert_open_error(answer, 400, SECRET)
        rows = [tensor for tensor in REFUSED[9]["inputs"] if tensor["name"] == "inputs"]
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
async def test_a_refused_first_learn_leaves_no_stream() -> None:
    """Nothing is created for rows that are not learned; by version 1 neither."""
    bad = body_of(matrix(PROBE), column("targets", ["a", "b", "c"], "BYTES"))
    item = {"stream": "new", "model": "reg", "inputs": PROBE, "targets": [1.0, "a", 2.0]}
    async with serving() as (client, _):
        for start in (False, True):
            sent = bad | {"parameters": {"sequence_id": "new", "sequence_start": start}}
            assert_open_error(await client.post("/v2/models/reg/learn", json=sent), 400)
        (refused,) = (await client.post("/v1/feedback", json={"items": [item]})).json()["results"]
        assert refused["error"]["errors"][0]["loc"] == ["targets", 1]
        assert_problem(await client.get("/v1/streams/new"), 404)


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
async def test_failures_inside_keep_their_status() -> None:
    """429, 503 and 507 as raised, anything unforeseen a 500 that says nothing; the log has the stream."""
    async with serving(Failing) as (client, _):
        with structlog.testing.capture_logs() as logs:
            for stream, status in (("saturated", 429), ("unavailable", 503), ("full", 507), ("broken", 500)):
                answer = await client.post("/v2/models/reg/infer", json=body_of(matrix(PROBE), stream=stream))
                assert_open_error(answer, status, SECRET, "ValueError")
        told = [(entry["stream"], entry["route"]) for entry in logs if entry["event"] == "request"]
        assert told == [(name, "/v2/models/{model}/infer") for name in ("saturated", "unavailable", "full", "broken")]
