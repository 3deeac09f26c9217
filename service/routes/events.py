"""What happened to a stream: page by page, or as it happens."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.errors import InvalidError
from service.json_body import header
from service.routes.answers import page
from service.routes.context import Context, Limit, Serving, StreamId
from service.routes.describe import page_of
from service.routes.live import ALIVE, ALIVE_SECONDS, LIVE, RETRY, follows, live, message
from service.types import Event

router = APIRouter(prefix="/v1/streams/{stream}/events", tags=["streams"])
_LAST = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
    "description": "Of a client that comes back: only events after this id.",
}
_ID_DIGITS = 18


@router.get(
    "",
    summary="List or follow a stream's events",
    responses=page_of(Event, LIVE),
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
    if not follows(request):
        return page(*await service.streams.events(stream, after, limit))
    last = header(request.scope, b"last-event-id") or after or "0"
    if not last.isdecimal() or len(last) > _ID_DIGITS:
        raise InvalidError.at(("header", "Last-Event-ID"), "expected the id of an event")
    return await live(_follow(service, stream, last))


async def _follow(service: Context, stream: str, last: str) -> AsyncIterator[bytes]:
    """Events after an id as they are committed, and signs of life between them, until the service stops."""
    streams = service.streams
    with streams.bells.listening(stream) as bell:
        events, more = await streams.events(stream, last, service.settings.page_items_max)
        yield RETRY
        while not service.draining:
            for event in events:
                yield message(event.kind, event, event.id)
                last = event.id
            if more is None:
                try:
                    await asyncio.wait_for(bell.wait(), ALIVE_SECONDS)
                except TimeoutError:
                    yield ALIVE
            bell.clear()
            events, more = await streams.events(stream, last, service.settings.page_items_max)
