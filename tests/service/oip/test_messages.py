"""Requests are taken apart as they were put together, and garbage is refused with one sentence."""

import gzip
import math
import zlib
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidError, MalformedError, TooLargeError, UnsupportedMediaTypeError
from service.oip import Reply, inflate, read_request, write_reply
from service.oip.messages import Output, Wanted, parse_index
from service.oip.tensors import pack, values_of

EXAMPLES = settings(deadline=None, derandomize=True)
ONE = {"name": "x", "shape": [1], "datatype": "FP64", "data": [2.5]}
PACKED = {"name": "y", "shape": [2], "datatype": "INT16", "parameters": {"binary_data_size": 4}}


def request_of(*inputs: Any, tail: bytes = b"", **more: Any) -> tuple[bytes, int]:
    """A body and the length of its JSON part."""
    head = orjson.dumps({"inputs": inputs, **more})
    return head + tail, len(head)


def test_binary_data_is_dealt_out_in_the_order_of_the_tensors() -> None:
    """Tensors with JSON data may stand between."""
    tail = pack("INT16", [1, 2]) + pack("INT16", [3, 4])
    asked = read_request(*request_of(PACKED, ONE, PACKED | {"name": "z"}, tail=tail))
    assert [values_of(tensor, ()) for tensor in asked.inputs] == [[1, 2], [2.5], [3, 4]]


@pytest.mark.parametrize(
    ("given_id", "stream"),
    [(None, None), ("", None), (0, None), (7, "7"), (-7, "-7"), ("lab-1", "lab-1"), (2**64 - 1, str(2**64 - 1))],
)
def test_the_sequence_is_the_stream(given_id: Any, stream: str | None) -> None:
    """Integers by their digits; 0 and the empty string are none."""
    parameters = {} if given_id is None else {"sequence_id": given_id}
    assert read_request(*request_of(ONE, parameters=parameters)).stream == stream


BAD: list[tuple[dict[str, Any], str]] = [
    ({"inputs": None}, "inputs"),
    ({"inputs": []}, "inputs"),
    ({"inputs": [3]}, "inputs[0]"),
    ({"inputs": [ONE | {"name": 3}]}, "inputs[0].name"),
    ({"inputs": [ONE | {"datatype": "FP8"}]}, "inputs[0].datatype"),
    ({"inputs": [ONE | {"datatype": ["FP64"]}]}, "inputs[0].datatype"),
    ({"inputs": [ONE | {"shape": 1}]}, "inputs[0].shape"),
    ({"inputs": [ONE | {"data": 2.5}]}, "inputs[0].data"),
    ({"inputs": [ONE | {"parameters": []}]}, "inputs[0].parameters"),
    ({"inputs": [ONE | {"parameters": {"shared_memory_region": "r"}}]}, "inputs[0].parameters"),
    ({"inputs": [ONE | {"parameters": {"binary_data_size": 0}}]}, "inputs[0].data"),
    ({"inputs": [PACKED]}, "inputs[0].parameters.binary_data_size"),
    ({"inputs": [PACKED | {"parameters": {"binary_data_size": -1}}]}, "inputs[0].parameters.binary_data_size"),
    ({"inputs": [PACKED | {"parameters": {"binary_data_size": True}}]}, "inputs[0].parameters.binary_data_size"),
    ({"inputs": [ONE], "id": 3}, "id"),
    ({"inputs": [ONE], "parameters": {"a": [1]}}, "parameters"),
    ({"inputs": [ONE], "parameters": {"a": None}}, "parameters"),
    ({"inputs": [ONE], "parameters": {"sequence_id": "a b"}}, "parameters.sequence_id"),
    ({"inputs": [ONE], "parameters": {"sequence_id": 1.5}}, "parameters.sequence_id"),
    ({"inputs": [ONE], "parameters": {"sequence_id": True}}, "parameters.sequence_id"),
    ({"inputs": [ONE], "parameters": {"sequence_id": "s", "sequence_start": 1}}, "parameters.sequence_start"),
    ({"inputs": [ONE], "parameters": {"sequence_start": True}}, "parameters.sequence_start"),
    ({"inputs": [ONE], "parameters": {"binary_data_output": "yes"}}, "parameters.binary_data_output"),
    ({"inputs": [ONE], "outputs": {"name": "p"}}, "outputs"),
    ({"inputs": [ONE], "outputs": ["p"]}, "outputs[0].name"),
    ({"inputs": [ONE], "outputs": [{"name": "p"}, {"name": "p"}]}, "outputs[1].name"),
    ({"inputs": [ONE], "outputs": [{"name": "p", "parameters": {"binary_data": 1}}]}, "outputs[0].parameters"),
    ({"inputs": [ONE], "outputs": [{"name": "p", "parameters": {"classification": 2}}]}, "outputs[0].parameters"),
]


@pytest.mark.parametrize(("message", "place"), BAD)
def test_what_is_wrong_is_named(message: dict[str, Any], place: str) -> None:
    """The sentence begins with the place."""
    with pytest.raises(InvalidError) as raised:
        read_request(orjson.dumps(message), None)
    assert raised.value.detail.startswith(place)


def test_lengths_that_do_not_add_up_are_refused() -> None:
    """A header beyond the body, and data that belongs to no tensor."""
    body, length = request_of(PACKED, tail=bytes(4))
    assert read_request(body, length).inputs[0].content == bytes(4)
    for wrong, at in ((body, len(body) + 1), (body + b"\0", length), (body, None), (body, 0), (body, length - 1)):
        with pytest.raises(MalformedError):
            read_request(wrong, at)
    with pytest.raises(InvalidError, match="3 bytes of binary data are left"):
        read_request(body[:-1], length)


@EXAMPLES
@given(st.binary(max_size=200), st.none() | st.integers(0, 200))
def test_garbage_is_refused(body: bytes, json_bytes: int | None) -> None:
    """Bytes without any form: never another error."""
    with pytest.raises((MalformedError, InvalidError)):
        read_request(body, json_bytes)


@EXAMPLES
@given(st.data())
def test_a_damaged_request_is_read_or_refused(data: st.DataObject) -> None:
    """One byte of a good request is another one, or its length is."""
    body, length = request_of(PACKED, ONE, tail=pack("INT16", [1, -2]), parameters={"sequence_id": "s"})
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
    with suppress(MalformedError, InvalidError):
        for index, tensor in enumerate(read_request(damaged, length + data.draw(st.integers(-2, 2))).inputs):
            assert len(values_of(tensor, ("inputs", index))) == math.prod(tensor.shape)


def test_a_reply_has_the_outputs_that_were_asked_for() -> None:
    """In their order, each in JSON or as binary data; the id comes back."""
    outputs = [Output("a", "FP64", (2,), [1.5, 2.5]), Output("b", "BYTES", (1,), ["x"], {"classes": "[]"})]
    reply = Reply("m", 3, {"adapted": False}, outputs)
    asked = read_request(*request_of(ONE, id="7"))
    body, length = write_reply(asked, reply)
    assert length is None
    message = orjson.loads(body)
    assert (message["id"], message["model_name"], message["model_version"]) == ("7", "m", "3")
    assert [output["data"] for output in message["outputs"]] == [[1.5, 2.5], ["x"]]
    chosen = asked._replace(outputs=(Wanted("b", None), Wanted("a", binary=True)))
    body, length = write_reply(chosen, reply)
    assert length is not None
    message = orjson.loads(body[:length])
    assert message["outputs"][0] == {
        "name": "b",
        "datatype": "BYTES",
        "shape": [1],
        "data": ["x"],
        "parameters": {"classes": "[]"},
    }
    assert message["outputs"][1]["parameters"] == {"binary_data_size": 16}
    assert body[length:] == pack("FP64", [1.5, 2.5])
    everything, length = write_reply(asked._replace(binary=True), reply)
    assert everything[length:] == pack("FP64", [1.5, 2.5]) + pack("BYTES", ["x"])


def test_the_index_takes_an_empty_body() -> None:
    """Or an object whose ``ready`` is true or false."""
    assert (parse_index(b""), parse_index(b"{}"), parse_index(b'{"ready": true}')) == (False, False, True)
    for body in (b"[]", b'{"ready": 1}'):
        with pytest.raises(InvalidError):
            parse_index(body)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_is_read_as_far_as_a_body_may_be_long(encoding: str) -> None:
    """A bomb is not unpacked, and what is cut short or followed by something is refused."""
    packed = (gzip.compress if encoding == "gzip" else zlib.compress)(b"a" * 1_000)
    assert inflate(packed, encoding, 1_000) == b"a" * 1_000
    with pytest.raises(TooLargeError):
        inflate(packed, encoding, 999)
    for wrong in (b"", packed[:-1], packed + b"x", b"plain"):
        with pytest.raises(MalformedError):
            inflate(wrong, encoding, 1_000)
    with pytest.raises(UnsupportedMediaTypeError):
        inflate(packed, "br", 1_000)
