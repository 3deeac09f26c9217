"""What happened to a stream."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from service.routes.answers import page
from service.routes.context import Limit, Serving, StreamId
from service.routes.describe import page_of
from service.types import Event

router = APIRouter(prefix="/v1/streams/{stream}/events", tags=["streams"])


@router.get("", summary="List a stream's events", responses=page_of(Event))
async def list_events(
    service: Serving,
    stream: StreamId,
    limit: Limit,
    after: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="Only events after this id; next_cursor is one.")
    ] = None,
) -> Response:
    """Oldest first."""
    return page(*await service.streams.events(stream, after, limit))
