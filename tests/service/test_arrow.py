"""Rows of Arrow uploads."""

import random
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import polars as pl
import pytest

from service.arrow import SLICE_ROWS, arrow_lines
from service.errors import InvalidError, MalformedError, ServiceError, TooLargeError
from service.lines import Line
from tests.service.http_case import run_async
from tests.service.test_lines import body_of, cut, gathered, until_refused

FEATURES = ["a", "b"]
TABLE: dict[str, Any] = {"b": ["x", None, "y"], "a": [1.5, 2.0, None], "target": [1, 0, 1]}
LINES = [Line(4, [1.5, "x"], 1), Line(5, [2.0, None], 0), Line(6, [None, "y"], 1)]


def ipc(frame: pl.DataFrame, **given: Any) -> bytes:
    """A table as an Arrow IPC stream."""
    out = BytesIO()
    frame.write_ipc_stream(out, **given)
    return out.getvalue()


@run_async
async def test_rows_are_the_same_in_whatever_pieces_they_come() -> None:
    """Columns are found by name, in any order; missing values are null."""
    data = ipc(pl.DataFrame(TABLE))
    for size in (1, 3, 8, 100, len(data)):
        assert await gathered(arrow_lines(body_of(cut(data, size)), 4, FEATURES)) == LINES


@run_async
async def test_dictionaries_ids_and_times_are_read() -> None:
    """Categories come as text, times as seconds, whatever their unit."""
    at = datetime(1970, 1, 1, 0, 0, 10, tzinfo=UTC)
    frame = pl.DataFrame(TABLE).with_columns(
        pl.col("b").cast(pl.Categorical),
        id=pl.Series(["r0", None, "r2"]),
        time=pl.Series([at, None, at]).dt.cast_time_unit("ms"),
    )
    found = await gathered(arrow_lines(body_of([ipc(frame)]), 4, FEATURES))
    assert found == [LINES[0]._replace(id="r0", time=10.0), LINES[1], LINES[2]._replace(id="r2", time=10.0)]


@run_async
async def test_a_column_that_is_left_out_is_left_out_of_its_rows() -> None:
    """It is then a missing value, for the model to take or to refuse."""
    found = await gathered(arrow_lines(body_of([ipc(pl.DataFrame(TABLE).drop("b"))]), 4, FEATURES))
    assert [line.input for line in found] == [{"a": 1.5}, {"a": 2.0}, {"a": None}]


@run_async
async def test_a_large_record_batch_comes_in_slices() -> None:
    """It does not become Python objects all at once."""
    frame = pl.DataFrame({"a": range(2 * SLICE_ROWS + 1), "target": 1})
    sizes = [len(block) async for block in arrow_lines(body_of([ipc(frame)], limit=2**20), 0, ["a"])]
    assert sizes == [SLICE_ROWS, SLICE_ROWS, 1]


@pytest.mark.parametrize(
    ("frame", "error", "text"),
    [
        (pl.DataFrame(TABLE).drop("target"), InvalidError, "columns.target: missing"),
        (pl.DataFrame(TABLE | {"c": [1, 2, 3]}), InvalidError, "columns.c: unknown column"),
        (pl.DataFrame(TABLE | {"id": ["a b", "c", "d"]}), InvalidError, r"rows\[4\].id"),
        (pl.DataFrame(TABLE | {"time": ["x", "y", "z"]}), InvalidError, r"rows\[4\].time"),
        (pl.DataFrame(TABLE | {"a": range(3)}).select(pl.all().repeat_by(2_000).explode()), TooLargeError, "larger"),
    ],
)
@run_async
async def test_a_wrong_column_is_named(frame: pl.DataFrame, error: type[ServiceError], text: str) -> None:
    """With what is wrong about it."""
    _, raised = await until_refused(arrow_lines(body_of([ipc(frame)]), 4, FEATURES))
    assert isinstance(raised, error)
    with pytest.raises(error, match=text):
        raise raised


@pytest.mark.parametrize("data", [b"a,b,target\n1,2,3\n", b"\xff" * 64, ipc(pl.DataFrame(TABLE))[:-40]])
@run_async
async def test_what_is_no_stream_is_refused(data: bytes) -> None:
    """A CSV, rubbish, and a stream that was cut short."""
    _, error = await until_refused(arrow_lines(body_of([data]), 0, FEATURES))
    assert isinstance(error, MalformedError)


@run_async
async def test_compressed_batches_are_refused() -> None:
    """They may become larger than any limit when they are opened."""
    _, error = await until_refused(arrow_lines(body_of([ipc(pl.DataFrame(TABLE), compression="zstd")]), 0, FEATURES))
    assert "without compression" in error.detail


@run_async
async def test_altered_bytes_never_do_more_than_be_refused() -> None:
    """Every byte of a stream may be anything."""
    draw, data = random.Random(0), ipc(pl.DataFrame(TABLE | {"time": [1, 2, 3]}))
    for _ in range(400):
        altered = bytearray(data)
        altered[draw.randrange(len(data))] = draw.randrange(256)
        with suppress(MalformedError, InvalidError, TooLargeError):
            await gathered(arrow_lines(body_of(cut(bytes(altered), 300)), 0, FEATURES))
