"""Bytes from anywhere: files and bodies that were right and were then cut, flipped, doubled, or never were anything.

Each reader gives what was written or refuses it with an error of its own, and nothing else. ``EXAMPLES=N``
(``make openapi``) takes more of them, four for each of an operation's. Those of the V2 tensors are in ``oip/``.
"""

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from models import BundleError, SnapshotError, read_bundle, read_stream, write_bundle, write_stream
from service.arrow import arrow_lines
from service.errors import ServiceError
from service.lines import Body, Line, ndjson_lines
from service.oip.compression import inflate
from tests.models.examples import small_model

BODY_BYTES_MAX = 4_096
FEATURES = ["a", "b"]
TIMES = max(int(os.environ.get("EXAMPLES", "15")) // 15, 1)
FUZZ = settings(max_examples=60 * TIMES, deadline=None, derandomize=True, database=None)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """What was right, after a few accidents."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(("flip", "write", "cut", "drop", "double", "insert")))
        length = draw(st.integers(1, 16))
        if kind == "flip":
            data[start : start + 1] = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in data[start : start + 1])
        elif kind == "write":
            data[start : start + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "cut":
            del data[start:]
        elif kind == "drop":
            del data[start : start + length]
        elif kind == "double":
            data[start:start] = data[start : start + length]
        else:
            data[start:start] = draw(st.binary(max_size=length))
    return bytes(data)


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The same bytes as they may arrive."""
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]


def rows_of(read: Callable[[Body], AsyncIterator[list[Line]]], pieces: Sequence[bytes]) -> list[Line] | None:
    """The rows that a body holds before its first mistake; ``None`` in the end where there is one."""
    coming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    coming.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return coming.pop(0)

    async def collect() -> list[Line] | None:
        found: list[Line] = []
        try:
            async for lines in read(Body(receive, BODY_BYTES_MAX)):
                found += lines
        except ServiceError:
            return None
        return found

    return asyncio.run(collect())


NDJSON = b"".join(
    orjson.dumps({"input": [number / 2, "x" if number % 2 else None], "target": number, "id": f"r-{number}"}) + b"\n"
    for number in range(8)
)


def ndjson(body: Body) -> AsyncIterator[list[Line]]:
    """Rows of an upload to one stream."""
    return ndjson_lines(body, 0, many=False)


@FUZZ
@given(st.binary(max_size=300) | damaged(NDJSON), st.lists(st.integers(0, 10**4), max_size=5))
def test_ndjson_is_read_or_refused_however_it_arrives(data: bytes, cuts: list[int]) -> None:
    """Where a body is cut into pieces makes no difference."""
    assert rows_of(ndjson, pieces_of(data, cuts)) == rows_of(ndjson, [data])


def arrow_of(**columns: Any) -> bytes:
    """An Arrow IPC stream."""
    out = BytesIO()
    pl.DataFrame(columns).write_ipc_stream(out, compression="uncompressed")
    return out.getvalue()


ARROWS = (
    arrow_of(a=[1.0, 2.0, None], b=[0.5, -1.0, 3.0], target=[1.0, 2.0, 3.0], id=["x", "y", None]),
    arrow_of(a=[1, 2], b=["u", "v"], target=["yes", "no"], time=[1.5e9, 1.6e9]),
)


def arrow(body: Body) -> AsyncIterator[list[Line]]:
    """Rows of a model with two features."""
    return arrow_lines(body, 0, FEATURES)


@pytest.mark.parametrize("whole", ARROWS, ids=["numbers", "texts"])
@FUZZ
@given(st.data())
def test_arrow_is_read_or_refused_however_it_arrives(whole: bytes, data: st.DataObject) -> None:
    """A stream that is damaged brings no reader down, nor makes it ask for the memory that a wrong length states."""
    body = data.draw(st.binary(max_size=300) | damaged(whole))
    cuts = data.draw(st.lists(st.integers(0, 10**4), max_size=5))
    found = rows_of(arrow, pieces_of(body, cuts))
    again = rows_of(arrow, [body])
    assert repr(found) == repr(again)  # NaN is not itself


BUNDLE = write_bundle(small_model("regression", name="m"))


@FUZZ
@given(st.binary(max_size=300) | damaged(BUNDLE))
def test_a_bundle_is_what_was_written_or_refused(data: bytes) -> None:
    """Every tensor and the header are checksummed: nothing that differs is taken."""
    if data == BUNDLE:
        return
    with pytest.raises(BundleError, match="the file"):
        read_bundle(data)


STATED = {"stream": "s", "config": {"window_rows": 10}}
SNAPSHOT = write_stream(STATED, save({"x": np.arange(5.0), "y": np.zeros((2, 3))}, {"snapshot": "kept"}))


@FUZZ
@given(st.binary(max_size=300) | damaged(SNAPSHOT))
def test_a_stream_s_file_gives_its_state_or_is_refused(data: bytes) -> None:
    """The state is checksummed; what the file states beside it is looked at when the stream is made."""
    try:
        stated, state = read_stream(data)
    except SnapshotError:
        return
    assert isinstance(stated, dict)
    assert state == read_stream(SNAPSHOT)[1]


COMPRESSED = zlib.compress(bytes(range(256)) * 8)


@FUZZ
@given(st.sampled_from(["gzip", "deflate", "br", ""]), st.binary(max_size=300) | damaged(COMPRESSED))
def test_what_is_inflated_stays_below_the_limit(encoding: str, data: bytes) -> None:
    """Or is refused, however small it was."""
    with suppress(ServiceError):
        assert len(inflate(data, encoding, BODY_BYTES_MAX)) <= BODY_BYTES_MAX
