"""Request bodies: counted as they arrive, decoded once, refused with the place where they are wrong."""

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from service.errors import InvalidError, MalformedError, ServiceError, TooLargeError, UnsupportedMediaTypeError

_NUMBER_START = b"-0123456789NIni"
"""First bytes of a number, or of a literal that other JSON writers use for one."""


async def read_json(request: Request, bytes_max: int) -> Any:
    """The decoded JSON body of a request.

    Raises:
        UnsupportedMediaTypeError: It is not declared as JSON, or is compressed.
        TooLargeError: More than ``bytes_max`` bytes were announced or have come.
        MalformedError: It is not JSON, or nested too deeply.
        InvalidError: It holds NaN, an infinity or a number that no float can hold; names the place.
    """
    require_type(request, "application/json")
    body = await read_body(request, bytes_max)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise await asyncio.to_thread(_refusal, body, error) from None


def header(scope: Scope, name: bytes) -> str:
    """The first header of this (lower-case) name; empty where there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


def declared_type(request: Request) -> str:
    """The media type of the body as the client states it, without parameters."""
    declared = header(request.scope, b"content-type")
    return declared if declared == "application/json" else declared.partition(";")[0].strip().lower()


def declared_encoding(request: Request) -> str:
    """How the body is compressed as the client states it; empty where it is not."""
    encoding = header(request.scope, b"content-encoding").strip().lower()
    return "" if encoding == "identity" else encoding


def require_type(request: Request, expected: str) -> None:
    """Refuse a body that is not declared as ``expected``."""
    if declared_type(request) != expected:
        raise UnsupportedMediaTypeError(f"This route reads {expected}: say so in the header Content-Type.")
    if declared_encoding(request):
        raise UnsupportedMediaTypeError("Compressed bodies are not read: send the body without Content-Encoding.")


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The body, refused as soon as more than ``bytes_max`` bytes are announced or have come.

    Counting here, not in Starlette's middleware, whose own answer is plain text where a route never reads the body.
    """
    refusal = TooLargeError(f"The body is larger than {bytes_max} bytes: send it in parts.")
    announced = header(request.scope, b"content-length")
    if announced.isdecimal() and int(announced) > bytes_max:
        raise refusal
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size, more = size + len(chunks[-1]), message.get("more_body", False)
        if size > bytes_max:
            raise refusal
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decode(body: bytes) -> Any:
    """A JSON document in UTF-8, all of whose numbers are finite.

    Raises:
        MalformedError: It is not JSON, or nested too deeply.
        InvalidError: It holds NaN, an infinity or a number that no float can hold; names the place.

    Example:
        >>> decode(b'{"inputs": [[1.5, null]]}')
        {'inputs': [[1.5, None]]}
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _refusal(body, error) from None


def _refusal(body: bytes, error: orjson.JSONDecodeError) -> ServiceError:
    """What to tell a client; takes as long as decoding with Python's own reader, so not on the event loop."""
    if "infinity" in error.msg or _at(body, error) in _NUMBER_START:
        loc = _first_nonfinite(body)
        if loc is not None:
            return InvalidError.at(loc, "not a finite number; send null for a missing value")
    return MalformedError(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.")


def _at(body: bytes, error: orjson.JSONDecodeError) -> bytes:
    """The byte where the decoder stopped; positions count characters, so that this is a guess beyond ASCII."""
    text = error.doc if isinstance(error.doc, str) else body.decode("utf-8", "replace")
    return text[error.pos : error.pos + 1].encode()


def _first_nonfinite(body: bytes) -> tuple[str | int, ...] | None:
    """Place of the first number that is not finite, if Python's more tolerant reader calls the body JSON."""
    try:
        return next(_nonfinite(json.loads(body), ()), None)
    except (ValueError, RecursionError):
        return None


def _nonfinite(value: Any, loc: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Places of the numbers that a 64-bit float cannot hold, in the order of the document."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _nonfinite(item, (*loc, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nonfinite(item, (*loc, index))
    elif isinstance(value, float | int) and not _is_finite(value):
        yield loc


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
