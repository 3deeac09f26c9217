"""Labelled rows out of an Arrow IPC stream, one record batch at a time.

The libraries read such a stream from a file to its end. Here its bytes come when the client sends them, so its messages
are told apart by hand, and each record batch is decoded by Polars together with the schema before it.

Reference:
    Apache Arrow columnar format, "Encapsulated message format" and "IPC Streaming Format"; Message.fbs.
"""

import struct
from collections.abc import AsyncIterator, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import polars as pl
from polars.exceptions import PanicException, PolarsError

from service.errors import InvalidError, MalformedError
from service.lines import Body, Line
from service.schemas import ID_RULE, is_id, seconds

ARROW = "application/vnd.apache.arrow.stream"
SLICE_ROWS = 4_096
"""Rows of a record batch that become Python objects at once."""
_CONTINUATION = b"\xff\xff\xff\xff"
_END = _CONTINUATION + bytes(4)
_ALIGNMENT = 8
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
"""Values of MessageHeader."""
_OURS = ("target", "id", "time")
_FOREIGN = "The body is no Arrow IPC stream"


async def arrow_lines(body: Body, first: int, features: Sequence[str]) -> AsyncIterator[list[Line]]:
    """Rows of an Arrow IPC stream.

    Args:
        body: A schema, then record batches (and dictionaries), not compressed.
        first: Number of its first row.
        features: Columns of the model's inputs, in its order; beside them ``target`` and perhaps ``id`` and ``time``.

    Raises:
        MalformedError, InvalidError: It is no such stream, or a column or a row is wrong; names it.
        TooLargeError: A record batch above the limit.
    """
    head, number = b"", first
    async for message in _messages(body):
        if message.kind != _BATCH:
            head += message.whole
            if len(head) > body.piece_bytes_max:
                raise body.too_long()
            continue
        try:
            frame = pl.read_ipc_stream(BytesIO(head + message.whole + _END))
            _check_columns(frame.columns, features)
            for part in frame.iter_slices(SLICE_ROWS):
                lines = _lines(part, number, features)
                number += len(lines)
                yield lines
        except (PolarsError, PanicException, ValueError, OverflowError, OSError) as error:
            raise MalformedError(
                f"The record batch from row {number} on cannot be read ({type(error).__name__})."
            ) from None


def _check_columns(columns: Sequence[str], features: Sequence[str]) -> None:
    for name in columns:
        if name not in features and name not in _OURS:
            known = ", ".join((*features, *_OURS))
            raise InvalidError.at(("columns", name[:64]), f"unknown column; this model takes {known}")
    if "target" not in columns:
        raise InvalidError.at(("columns", "target"), "missing; send the labels")


def _lines(frame: pl.DataFrame, number: int, features: Sequence[str]) -> list[Line]:
    there = [name for name in features if name in frame.columns]
    whole = len(there) == len(features)
    inputs: list[Any] = [list(row) for row in frame.select(there).rows()] if whole else frame.select(there).to_dicts()
    names = frame["id"].to_list() if "id" in frame.columns else [None] * len(frame)
    times = _times(frame["time"], number) if "time" in frame.columns else [None] * len(frame)
    for row, name in enumerate(names):
        if name is not None and (not isinstance(name, str) or not is_id(name)):
            raise InvalidError.at(("rows", number + row, "id"), ID_RULE)
    columns = zip(inputs, frame["target"].to_list(), names, times, strict=True)
    return [Line(number + row, *values) for row, values in enumerate(columns)]


def _times(column: pl.Series, number: int) -> list[float | None]:
    if column.dtype.is_temporal():
        column = column.dt.epoch("us") / 1e6
    return [
        None if value is None else seconds(("rows", number + row, "time"), value)
        for row, value in enumerate(column.to_list())
    ]


class _Message(NamedTuple):
    kind: int
    whole: bytes


async def _messages(body: Body) -> AsyncIterator[_Message]:
    """Each message of an Arrow IPC stream, up to its end."""
    buffer = _Buffer(body)
    while True:
        prefix = await buffer.take(4, end=True)
        if prefix == _CONTINUATION:
            prefix += await buffer.take(4)
        size = struct.unpack("<i", prefix[-4:])[0] if prefix else 0
        if size == 0:
            return
        if not 0 < size <= body.piece_bytes_max or (len(prefix) + size) % _ALIGNMENT:
            raise MalformedError(f"{_FOREIGN}: a message has an impossible length.")
        metadata = await buffer.take(size)
        kind, length = _header(metadata)
        if not 0 <= length <= body.piece_bytes_max:
            raise body.too_long()
        yield _Message(kind, prefix + metadata + await buffer.take(length))


def _header(metadata: bytes) -> tuple[int, int]:
    """Kind of a message and bytes of its body, from the flatbuffer that describes it."""
    try:
        message = struct.unpack_from("<I", metadata, 0)[0]
        kind_at, header_at, length_at = (_field(metadata, message, place) for place in (1, 2, 3))
        kind = metadata[kind_at] if kind_at else 0
        length = struct.unpack_from("<q", metadata, length_at)[0] if length_at else 0
        batch = _follow(metadata, header_at) if kind in {_DICTIONARY, _BATCH} else 0
        if kind == _DICTIONARY:
            batch = _follow(metadata, _field(metadata, batch, 1))
        compressed = bool(batch and _field(metadata, batch, 3))
    except (struct.error, IndexError) as error:
        raise MalformedError(f"{_FOREIGN}: a message's header cannot be read.") from error
    if kind not in {_SCHEMA, _DICTIONARY, _BATCH}:
        raise MalformedError(f"The body holds an Arrow message of kind {kind}: send record batches.")
    if compressed:
        raise MalformedError("Compressed record batches are not read: write them without compression.")
    return kind, length


def _field(buffer: bytes, table: int, place: int) -> int:
    """Where a field of a flatbuffer's table stands; 0 where it is left out."""
    fields = table - int(struct.unpack_from("<i", buffer, table)[0])
    if 4 + 2 * place >= struct.unpack_from("<H", buffer, fields)[0]:
        return 0
    offset = int(struct.unpack_from("<H", buffer, fields + 4 + 2 * place)[0])
    return table + offset if offset else 0


def _follow(buffer: bytes, at: int) -> int:
    """The table that the reference at ``at`` leads to."""
    return at + int(struct.unpack_from("<I", buffer, at)[0])


class _Buffer:
    """Bytes of a body in lengths that are asked for."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._kept = bytearray()

    async def take(self, size: int, *, end: bool = False) -> bytes:
        """That many bytes; none where the body ends before the first of them and ``end`` allows it."""
        while len(self._kept) < size:
            piece = await self._body.piece()
            if piece is None:
                if end and not self._kept:
                    return b""
                raise MalformedError("The Arrow IPC stream ends in the middle of a message: send it whole.")
            self._kept += piece
        taken = bytes(self._kept[:size])
        del self._kept[:size]
        return taken
