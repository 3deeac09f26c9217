"""What the client that blocks and the one that does not have in common."""

from collections.abc import Callable, Generator, Iterator, Mapping
from random import Random
from typing import Any, TypeVar

import httpx

from service.client import requests
from service.client.calls import Call, Reply, Seen, Step, attempts
from service.client.data import chunked
from service.client.errors import ApiError, UnreachableError, error_of
from service.client.following import EventReader
from service.client.replies import Uploaded

T = TypeVar("T")
PART_ROWS = 10_000
"""Most rows of one request of an upload: a client that reads only after it has written would block beyond."""
RETRIES = 5
TIMEOUT_SECONDS = 30.0
SILENCE_SECONDS = 60.0
"""A connection that follows events is alive every 15 seconds."""
Progress = Callable[[int, int | None], None]
"""Told how many rows are learned, and how many there are, if that is known."""
UploadPlan = Generator[Call[Any], Any, Uploaded]


class Base:
    """What both clients keep."""

    def __init__(self, url: str, key: str | None, timeout_seconds: float, retries: int, draw: Random | None) -> None:
        self._retries = retries
        self._draw = draw or Random()  # noqa: S311 - it spreads waits
        headers = {"User-Agent": "acclimate"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._given: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout_seconds}

    def _steps(self, call: Call[T]) -> Generator[Step, Seen, T]:
        return attempts(call, self._retries, self._draw)


def upload_parts(
    stream: str | None, rows: Iterator[Mapping[str, Any]], key: str, batch: int, told: Progress, of: int | None
) -> UploadPlan:
    """Part after part; each is sent again as a whole if it was cut, and skipped as far as it was learned."""
    total, start = Uploaded(key), 0
    for part in chunked(rows, PART_ROWS):
        last = yield requests.upload_part(stream, part, key, start, batch)
        start += len(part)
        counts = {name: getattr(total, name) + last[name] for name in ("batches", "accepted", "duplicates")}
        total = Uploaded(key, start, **counts)
        told(start, of)
    return total


def length_of(rows: Any) -> int | None:
    """How many rows there are, where that can be known before they have gone by."""
    return len(rows) if hasattr(rows, "__len__") else None


def untold(_rows: int, _of: int | None) -> None:
    """Nobody asked for progress."""


def failed(error: httpx.TransportError) -> UnreachableError:
    """What became of a request that got no answer."""
    return UnreachableError(f"{type(error).__name__}: {error}")


def following(reader: EventReader) -> dict[str, Any]:
    """How events are asked for from where a reader is."""
    headers = {"Accept": "text/event-stream"}
    if reader.last_id is not None:
        headers["Last-Event-ID"] = reader.last_id
    return {"headers": headers, "timeout": httpx.Timeout(TIMEOUT_SECONDS, read=SILENCE_SECONDS)}


def refused(answer: httpx.Response) -> ApiError:
    """The error that an answer, read to its end, tells."""
    return error_of(answer.status_code, Reply(answer.status_code, answer.headers, answer.content).json())
