"""Labelled rows as they come in an upload of any length: read in pieces, never held whole."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.errors import InvalidError, MalformedError, ServiceError, TooLargeError, UnavailableError
from service.schemas import ID_RULE, is_id, seconds
from service.types import Row

NDJSON = "application/x-ndjson"
DISCARD_SECONDS = 5.0
"""How long the rest of a refused upload is read."""
FIELDS = frozenset({"input", "target", "id", "time"})
MANY_FIELDS = FIELDS | {"stream", "model"}


class Line(NamedTuple):
    """One labelled row of an upload.

    Attributes:
        number: Its place, counted from 0 over the whole upload.
        input: Its input; ``None`` where it was predicted and kept under ``id``.
        target: Its label.
        id: The client's name for it.
        time: Epoch seconds.
        stream: The stream that learns it, in an upload to many.
        model: What that stream is bound to, or made with.
    """

    number: int
    input: Row | None
    target: Any
    id: str | None = None
    time: float | None = None
    stream: str | None = None
    model: str | None = None


class Body:
    """The pieces of a request's body, taken only when they are asked for: the client waits meanwhile.

    Args:
        receive: Of the request.
        piece_bytes_max: Most bytes that may lie between two ends of rows.
        stopping: Whether the service is about to end.
    """

    def __init__(self, receive: Receive, piece_bytes_max: int, stopping: Callable[[], bool] = lambda: False) -> None:
        self._receive = receive
        self._stopping = stopping
        self.piece_bytes_max = piece_bytes_max
        self.ended = False

    async def piece(self) -> bytes | None:
        """The next bytes; ``None`` at the end.

        Raises:
            ClientDisconnect: The client went away before.
            UnavailableError: The service is about to end.
        """
        while not self.ended:
            if self._stopping():
                raise UnavailableError("The service is stopping: resume the upload on another server, or later.")
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self.ended = not message.get("more_body", False)
            if message.get("body"):
                return bytes(message["body"])
        return None

    async def discard(self) -> None:
        """Read on for a while without looking, so that a client that writes all before it reads gets its answer."""
        bytes_left = self.piece_bytes_max
        with suppress(TimeoutError, ClientDisconnect, ServiceError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while bytes_left > 0 and (piece := await self.piece()) is not None:
                    bytes_left -= len(piece)

    def too_long(self) -> TooLargeError:
        """What a client hears whose rows never end."""
        return TooLargeError(f"A row or record batch is larger than {self.piece_bytes_max} bytes: send smaller ones.")


async def ndjson_lines(body: Body, first: int, *, many: bool) -> AsyncIterator[list[Line]]:
    """Rows of an NDJSON body, as many at a time as have come. Blank lines are passed over.

    Args:
        body: UTF-8 text, one JSON object a line.
        first: Number of its first row.
        many: Whether each line names its stream.

    Raises:
        MalformedError, InvalidError: A line is no row; names it. The rows before it have been given.
        TooLargeError: A line without end.
    """
    rest, number, ended = b"", first, False
    while not ended:
        piece = await body.piece()
        ended = piece is None
        text = rest + (piece or b"")
        whole, _, rest = (text, b"", b"") if ended else text.rpartition(b"\n")
        if len(rest) > body.piece_bytes_max:
            raise body.too_long()
        lines: list[Line] = []
        try:
            for line in whole.split(b"\n"):
                if line and not line.isspace():
                    lines.append(_line(number + len(lines), _decoded(line, number + len(lines)), many=many))
        except ServiceError:
            if lines:
                yield lines
            raise
        number += len(lines)
        if lines:
            yield lines


def _decoded(text: bytes, number: int) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedError(
            f"Row {number} is not JSON ({error.msg}, column {error.colno}): send one object a line, finite numbers."
        ) from None


def _line(number: int, value: Any, *, many: bool) -> Line:
    if not isinstance(value, dict):
        raise InvalidError.at(("rows", number), 'expected an object {"input": …, "target": …}')
    known = MANY_FIELDS if many else FIELDS
    if not value.keys() <= known:
        unknown = next(name for name in value if name not in known)
        raise InvalidError.at(("rows", number, unknown[:64]), f"unknown field; a row has {', '.join(sorted(known))}")
    if "target" not in value:
        raise InvalidError.at(("rows", number, "target"), "missing; send the row's label")
    name, time = value.get("id"), value.get("time")
    if value.get("input") is None and name is None:
        raise InvalidError.at(
            ("rows", number, "input"), "missing; send it, or the id of a row that waits for its label"
        )
    if name is not None and (not isinstance(name, str) or not is_id(name)):
        raise InvalidError.at(("rows", number, "id"), ID_RULE)
    moment = None if time is None else seconds(("rows", number, "time"), time)
    if not many:
        return Line(number, value.get("input"), value["target"], name, moment)
    stream, model = value.get("stream"), value.get("model")
    if not isinstance(stream, str) or not is_id(stream):
        raise InvalidError.at(("rows", number, "stream"), ID_RULE)
    if model is not None and not isinstance(model, str):
        raise InvalidError.at(("rows", number, "model"), "expected the name of a model")
    return Line(number, value.get("input"), value["target"], name, moment, stream, model)
