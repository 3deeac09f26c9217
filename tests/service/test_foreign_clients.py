"""Clients of other projects, unchanged, against a server on a socket."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import numpy.typing as npt
import orjson
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
import tritonclient.http.aio as triton_aio  # type: ignore[import-untyped]

from tests.service.http_case import run_async, serving
from tests.service.socket_case import listening
from tests.service.streams_case import PROBE

TARGETS = np.array([1.0, -2.0, 3.0])


def tensor(name: str, values: npt.NDArray[Any], *, binary: bool = True) -> Any:
    """An input of Triton's client, of the datatype that NumPy's kind has there."""
    datatype = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL", "object": "BYTES"}
    made = triton.InferInput(name, list(values.shape), datatype[values.dtype.name])
    return made.set_data_from_numpy(values, binary_data=binary)


async def with_triton(use: Callable[[Any], None]) -> None:
    """Run ``use`` with a client of Triton's, in a thread of its own as it waits for answers."""

    def run(address: str) -> None:
        client = triton.InferenceServerClient(address)
        try:
            use(client)
        finally:
            client.close()

    async with serving() as (client, _):
        await client.post("/v1/feedback", json={"items": [stream("s1", "reg", [1.0, -2.0, 3.0])]})
        await client.post("/v1/feedback", json={"items": [stream("c1", "cls", ["yes", "no", "yes"])]})
        assert isinstance(client._transport, httpx.ASGITransport)
        async with listening(client._transport.app) as address:
            await asyncio.to_thread(run, address)


def stream(name: str, model: str, targets: list[Any]) -> dict[str, Any]:
    """One batch of a stream."""
    return {"stream": name, "model": model, "inputs": PROBE, "targets": targets}


@run_async
async def test_triton_s_client_reads_what_there_is() -> None:
    """Health, metadata, the index and statistics; an unknown model is not ready and has a message."""

    def use(client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("reg")
        assert client.is_model_ready("reg", "1")
        assert not client.is_model_ready("nosuch")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        assert client.get_model_metadata("reg", "1") == client.get_model_metadata("reg")
        assert [one["name"] for one in client.get_model_repository_index()] == ["cls", "reg"]
        client.infer("reg", [tensor("inputs", np.array(PROBE))])
        assert client.get_inference_statistics("reg")["model_stats"][0]["inference_count"] == 3
        assert len(client.get_inference_statistics()["model_stats"]) == 2
        with pytest.raises(triton.InferenceServerException, match="known models: cls, reg"):
            client.get_model_metadata("nosuch")

    await with_triton(use)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
@run_async
async def test_triton_s_client_asks_a_stream(binary: bool, packing: str | None) -> None:
    """In either form, compressed or not, by the name of the stream; without one the frozen start answers."""
    rows = np.array(PROBE, dtype=np.float32)

    def use(client: Any) -> None:
        def ask(*inputs: Any, **more: Any) -> Any:
            return client.infer("reg", list(inputs), request_compression_algorithm=packing, **more)

        question = tensor("inputs", rows, binary=binary)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("std", "predictions")]
        adapted = ask(
            question, sequence_id="s1", outputs=wanted, request_id="7", response_compression_algorithm=packing
        )
        assert adapted.get_response()["parameters"]["adapted"] is True
        assert adapted.get_response()["id"] == "7"
        assert adapted.as_numpy("predictions").shape == (3,)
        everything = ask(question, sequence_id="s1")
        assert (everything.as_numpy("std") == adapted.as_numpy("std")).all()
        by_name = ask(
            *(tensor(name, rows[:, place], binary=binary) for place, name in enumerate("ab")), sequence_id="s1"
        )
        assert (by_name.as_numpy("predictions") == adapted.as_numpy("predictions")).all()
        frozen = ask(question)
        assert frozen.get_response()["parameters"]["adapted"] is False
        assert (frozen.as_numpy("predictions") != adapted.as_numpy("predictions")).any()

    await with_triton(use)


@run_async
async def test_triton_s_client_builds_a_request_from_the_metadata_alone() -> None:
    """Names, datatypes and shapes of inputs and outputs are those that work; classes come as bytes."""

    def use(client: Any) -> None:
        for model, kind in (("reg", np.float64), ("cls", np.object_)):
            described = client.get_model_metadata(model)
            (one,) = described["inputs"]
            shape = [4 if size == -1 else size for size in one["shape"]]
            given = triton.InferInput(one["name"], shape, one["datatype"])
            given.set_data_from_numpy(np.ones(shape, triton_dtype(one["datatype"])))
            answer = client.infer(model, [given], sequence_id="c1" if model == "cls" else "s1")
            for output in described["outputs"]:
                found = answer.as_numpy(output["name"])
                assert answer.get_output(output["name"])["datatype"] == output["datatype"]
                assert [-1, *found.shape[1:]] == output["shape"]
                assert len(found) == 4
            assert answer.as_numpy("predictions").dtype == kind
        assert set(answer.as_numpy("predictions")) <= {b"yes", b"no"}

    await with_triton(use)


def triton_dtype(datatype: str) -> npt.DTypeLike:
    """NumPy's kind of a datatype, as the client itself has it."""
    found: npt.DTypeLike = triton.triton_to_np_dtype(datatype)
    return found


@run_async
async def test_triton_s_client_makes_the_body_of_learn() -> None:
    """Any HTTP client sends it, and the client reads the answer; then the stream answers otherwise."""

    def use(client: Any) -> None:
        question = [tensor("inputs", np.array(PROBE))]
        before = client.infer("reg", question, sequence_id=11)
        assert before.get_response()["parameters"]["adapted"] is False
        body, length = client.generate_request_body([*question, tensor("targets", TARGETS)], sequence_id=11)
        url = f"http://{client._parsed_url.netloc}/v2/models/reg/learn"
        answer = httpx.post(url, content=body, headers={"Inference-Header-Content-Length": str(length)})
        answer.raise_for_status()
        learned = client.parse_response_body(
            answer.content, header_length=int(answer.headers["Inference-Header-Content-Length"])
        )
        assert (learned.as_numpy("predictions") == before.as_numpy("predictions")).all()
        assert learned.get_response()["parameters"]["accepted"] == 3
        after = client.infer("reg", question, sequence_id="11")
        assert (after.as_numpy("predictions") != before.as_numpy("predictions")).any()

    await with_triton(use)


@run_async
async def test_triton_s_client_hears_what_is_wrong() -> None:
    """The sentence and the status of a refusal are in its exception."""

    def use(client: Any) -> None:
        for model, given, words, status in (
            ("nosuch", tensor("inputs", np.array(PROBE)), "no model", "404"),
            ("cls", tensor("inputs", np.array(PROBE)), "bound to model reg", "409"),
            ("reg", tensor("z", np.ones(2)), "unknown tensor", "400"),
            ("reg", tensor("inputs", np.array([[np.nan, 1.0]])), "not a finite number", "400"),
        ):
            with pytest.raises(triton.InferenceServerException, match=words) as raised:
                client.infer(model, [given], sequence_id="s1")
            assert raised.value.status() == status

    await with_triton(use)


@run_async
async def test_triton_s_asynchronous_client_asks_a_stream() -> None:
    """It sends the same with other headers, since it stands on another HTTP library."""
    async with serving() as (client, _):
        await client.post("/v1/feedback", json={"items": [stream("s1", "reg", [1.0, -2.0, 3.0])]})
        expected = (await client.post("/v1/streams/s1/predict", json={"inputs": PROBE})).json()
        assert isinstance(client._transport, httpx.ASGITransport)
        async with listening(client._transport.app) as address, triton_aio.InferenceServerClient(address) as asked:
            assert await asked.is_server_ready()
            for binary in (True, False):
                answer = await asked.infer("reg", [tensor("inputs", np.array(PROBE), binary=binary)], sequence_id="s1")
                assert answer.as_numpy("predictions").tolist() == expected["predictions"]


@pytest.mark.parametrize("binary", [False, True])
@run_async
async def test_what_kserve_s_client_sends_is_answered_as_it_reads(binary: bool) -> None:
    """The requests of ``InferenceRESTClient``: always an id, the model's name in the body, and a type for each form."""
    rows = np.array(PROBE, dtype=np.float32)
    given: dict[str, Any] = {"name": "inputs", "shape": [3, 2], "datatype": "FP32"}
    given |= {"parameters": {"binary_data_size": rows.nbytes}} if binary else {"data": rows.ravel().tolist()}
    asked = {
        "id": str(uuid4()),
        "model_name": "reg",
        "inputs": [given],
        "parameters": {"sequence_id": "s1", "binary_data_output": binary},
    }
    head = orjson.dumps(asked)
    headers = {"content-type": "application/json"}
    if binary:
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    async with serving() as (client, _):
        await client.post("/v1/feedback", json={"items": [stream("s1", "reg", [1.0, -2.0, 3.0])]})
        expected = (await client.post("/v1/streams/s1/predict", json={"inputs": PROBE})).json()
        sent = head + rows.tobytes() if binary else head
        answer = await client.post("/v2/models/reg/infer", content=sent, headers=headers)
        length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
        reply = orjson.loads(answer.content[:length])
        assert {"model_name", "id", "outputs", "parameters"} <= set(reply)
        assert reply["id"] == asked["id"]
        packed = np.frombuffer(answer.content[length : length + 24] if binary else b"")
        found = packed.tolist() or reply["outputs"][0]["data"]
        assert found == pytest.approx(expected["predictions"], rel=1e-5)
        assert (await client.get("/v2/health/live")).json()["live"] is True
        assert (await client.get("/v2/health/ready")).json()["ready"] is True
