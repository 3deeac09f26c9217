"""Rows of uploads, in whatever pieces they come."""

from collections.abc import AsyncIterator, Iterable
from itertools import chain
from typing import Any

import orjson
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.errors import InvalidError, MalformedError, ServiceError, TooLargeError, UnavailableError
from service.lines import Body, Line, ndjson_lines
from tests.service.http_case import run_async

LIMIT = 10_000
ROWS = [
    {"input": [1.5, None], "target": 2},
    {"input": {"a": 1, "b": "ö"}, "target": "x", "id": "r-1", "time": "1970-01-01T00:00:10Z"},
    {"input": None, "target": 0.5, "id": "late"},
]
LINES = [
    Line(7, [1.5, None], 2),
    Line(8, {"a": 1, "b": "ö"}, "x", "r-1", 10.0),
    Line(9, None, 0.5, "late"),
]
TEXT = b"\n".join(map(orjson.dumps, ROWS))


def body_of(pieces: Iterable[bytes], limit: int = LIMIT, **given: Any) -> Body:
    """A body that comes in these pieces, each once it is asked for."""
    left = chain(pieces, [b""])

    async def receive() -> Message:
        piece = next(left)
        return {"type": "http.request", "body": piece, "more_body": piece != b""}

    return Body(receive, limit, **given)


def cut(text: bytes, size: int) -> list[bytes]:
    """A text in pieces of a size."""
    return [text[start : start + size] for start in range(0, len(text), size)]


async def gathered(blocks: AsyncIterator[list[Line]]) -> list[Line]:
    """All rows."""
    return [line async for block in blocks for line in block]


async def until_refused(blocks: AsyncIterator[list[Line]]) -> tuple[list[Line], ServiceError]:
    """The rows that come before an error, and the error."""
    found: list[Line] = []
    try:
        async for block in blocks:
            found += block
    except ServiceError as error:
        return found, error
    pytest.fail("nothing was refused")


@run_async
async def test_rows_are_the_same_in_whatever_pieces_they_come() -> None:
    """Borders of pieces fall anywhere: inside a character, between lines; the last line needs no end."""
    for text in (TEXT, TEXT + b"\n", b"\n \r\n" + TEXT.replace(b"\n", b"\r\n\r\n")):
        for size in (1, 2, 3, 7, 50, len(text)):
            assert await gathered(ndjson_lines(body_of(cut(text, size)), 7, many=False)) == LINES


@run_async
async def test_rows_come_as_soon_as_their_line_has_ended() -> None:
    """Nothing waits for what has not been sent."""
    blocks = ndjson_lines(body_of([TEXT[:20], TEXT[20:40], b"never asked for"]), 7, many=False)
    assert await anext(blocks) == LINES[:1]


@run_async
async def test_rows_of_many_streams_name_them() -> None:
    """Each line has its stream, and may have the model that it is made with."""
    text = b'{"stream":"s","model":"m","input":[1],"target":2}\n'
    assert await gathered(ndjson_lines(body_of([text]), 0, many=True)) == [Line(0, [1], 2, stream="s", model="m")]


@pytest.mark.parametrize(
    ("line", "loc"),
    [
        (b"[1]", ()),
        (b'{"input":[1],"target":1,"label":1}', ("label",)),
        (b'{"input":[1]}', ("target",)),
        (b'{"target":1}', ("input",)),
        (b'{"input":[1],"target":1,"id":"a b"}', ("id",)),
        (b'{"input":[1],"target":1,"time":"yesterday"}', ("time",)),
        (b'{"input":[1],"target":1,"stream":"s"}', ("stream",)),
    ],
)
@run_async
async def test_a_wrong_row_is_named_after_those_before_it(line: bytes, loc: tuple[str, ...]) -> None:
    """The rows before it are given first; the error says which row and which field."""
    found, error = await until_refused(ndjson_lines(body_of([TEXT + b"\n" + line]), 7, many=False))
    assert found == LINES
    assert isinstance(error, InvalidError)
    assert error.errors[0].loc == ("rows", 10, *loc)


@pytest.mark.parametrize("line", [b"{", b'{"input":[NaN],"target":1}', b'{"input":[1e999],"target":1}', b"\xff"])
@run_async
async def test_what_is_not_json_is_named(line: bytes) -> None:
    """A number that is not finite is no JSON either."""
    found, error = await until_refused(ndjson_lines(body_of([TEXT + b"\n" + line]), 7, many=False))
    assert found == LINES
    assert isinstance(error, MalformedError)
    assert error.detail.startswith("Row 10 is not JSON")


@pytest.mark.parametrize("line", [b'{"input":[1],"target":1}', b'{"stream":"s","input":[1],"target":1,"model":3}'])
@run_async
async def test_a_row_for_nobody_is_refused(line: bytes) -> None:
    """In an upload to many streams each row needs a stream, and a model is a name."""
    _, error = await until_refused(ndjson_lines(body_of([line]), 0, many=True))
    assert isinstance(error, InvalidError)


@run_async
async def test_a_line_without_end_is_refused() -> None:
    """It is not gathered beyond the limit."""
    _, error = await until_refused(ndjson_lines(body_of(iter(lambda: b"x" * 100, None)), 0, many=False))
    assert isinstance(error, TooLargeError)


@run_async
async def test_a_body_ends_with_its_client_or_its_server() -> None:
    """Both are told apart from the end of the rows."""

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await Body(gone, LIMIT).piece()
    with pytest.raises(UnavailableError):
        await body_of([TEXT], stopping=lambda: True).piece()


@run_async
async def test_the_rest_of_a_body_is_read_up_to_a_limit() -> None:
    """So that a client that has nearly written all gets to its answer, and an endless one does not go on for ever."""
    taken = []

    def endless() -> Iterable[bytes]:
        while True:
            taken.append(100)
            yield b"x" * 100

    await body_of(endless(), limit=1_000).discard()
    assert len(taken) == 10
