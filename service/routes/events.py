"""What happened to a stream: page by page, or as it happens."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from service.errors import InvalidError
from service.json_body import header
from service.routes.answers import OPTIONS, page
from service.routes.context import Context, Limit, Serving, StreamId
from service.routes.describe import page_of
from service.types import Event

router = APIRouter(prefix="/v1/streams/{stream}/events", tags=["streams"])
SSE = "text/event-stream"
ALIVE_SECONDS = 15.0
"""Longest silence on a connection that follows events."""
RETRY_MS = 2_000
"""When a client that was cut off comes back."""
_LAST = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
    "description": "Of a client that comes back: only events after this id.",
}
_LIVE = {SSE: {"schema": {"type": "string"}}}
_ID_DIGITS = 18


@router.get(
    "",
    summary="List or follow a stream's events",
    responses=page_of(Event, _LIVE),
    openapi_extra={"parameters": [_LAST]},
)
async def list_events(
    service: Serving,
    stream: StreamId,
    limit: Limit,
    request: Request,
    after: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="Only events after this id; next_cursor is one.")
    ] = None,
) -> Response:
    """Oldest first. With `Accept: text/event-stream` the same and then each as it is committed, without an end."""
    if SSE not in header(request.scope, b"accept"):
        return page(*await service.streams.events(stream, after, limit))
    last = header(request.scope, b"last-event-id") or after or "0"
    if not last.isdecimal() or len(last) > _ID_DIGITS:
        raise InvalidError.at(("header", "Last-Event-ID"), "expected the id of an event")
    followed = _follow(service, stream, last)
    first = await anext(followed)  # refused here, where it can be
    return StreamingResponse(_after(first, followed), media_type=SSE, headers={"Cache-Control": "no-cache"})


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def _follow(service: Context, stream: str, last: str) -> AsyncIterator[bytes]:
    """Events after an id as they are committed, and signs of life between them, until the service stops."""
    streams = service.streams
    with streams.bells.listening(stream) as bell:
        events, more = await streams.events(stream, last, service.settings.page_items_max)
        yield f"retry: {RETRY_MS}\n\n".encode()
        while not service.draining:
            for event in events:
                text = orjson.dumps(event, option=OPTIONS).decode()
                yield f"id: {event.id}\nevent: {event.kind}\ndata: {text}\n\n".encode()
                last = event.id
            if more is None:
                try:
                    await asyncio.wait_for(bell.wait(), ALIVE_SECONDS)
                except TimeoutError:
                    yield b": alive\n\n"
            bell.clear()
            events, more = await streams.events(stream, last, service.settings.page_items_max)
