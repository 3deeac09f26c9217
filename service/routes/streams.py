"""Streams: create, look at, list, reset, delete."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.errors import NotFoundError
from service.json_body import read_json
from service.routes.answers import answer, page
from service.routes.context import Context, Limit, Serving, StreamId
from service.routes.describe import body_of, page_of
from service.routes.live import ALIVE, ALIVE_SECONDS, LIVE, RETRY, follows, live, message
from service.schemas import StreamBody, parse_stream
from service.types import StreamInfo

router = APIRouter(prefix="/v1/streams", tags=["streams"])
LOOK_SECONDS = 1.0
"""How often a stream that is followed is looked at; what is in memory is not read from disk."""


@router.get("", summary="List streams", responses=page_of(StreamInfo))
async def list_streams(
    service: Serving,
    limit: Limit,
    prefix: Annotated[str, Query(max_length=128, description="Only streams whose id starts so.")] = "",
    model: Annotated[str | None, Query(max_length=128, description="Only streams of this model.")] = None,
    cursor: Annotated[str | None, Query(max_length=512, description="next_cursor of the page before.")] = None,
) -> Response:
    """By id; follow ``next_cursor`` until it is null."""
    return page(*await service.all_streams.list(prefix, model, limit, cursor))


@router.put(
    "/{stream}",
    summary="Create a stream, or confirm it",
    status_code=201,
    responses={200: {"model": StreamInfo, "description": "It was there already"}, 201: {"model": StreamInfo}},
    openapi_extra=body_of(StreamBody),
)
async def put_stream(service: Serving, stream: StreamId, request: Request) -> Response:
    """201 when it is new, 200 when it was there; a new config is applied, another model is refused with 409."""
    body = await read_json(request, service.settings.body_bytes_max)
    asked = parse_stream(body, service.settings.metadata_bytes_max)
    config = None if asked.config is None else asked.config.model_dump(exclude_none=True)
    info, created = await service.streams.put(stream, asked.model, config, asked.metadata)
    return answer(info, 201 if created else 200)


@router.get("/{stream}", summary="Where a stream stands", responses={200: {"model": StreamInfo, "content": LIVE}})
async def get_stream(service: Serving, stream: StreamId, request: Request) -> Response:
    """Its model, revision, rows, rolling loss and score, drift state and times.

    With `Accept: text/event-stream` the same, and then again whenever it has changed, at most once a second.
    """
    if follows(request):
        return await live(_follow(service, stream))
    return answer(await service.streams.get(stream))


async def _follow(service: Context, stream: str) -> AsyncIterator[bytes]:
    with service.streams.bells.listening(stream) as bell:
        info, silent = await service.streams.get(stream), 0.0
        yield RETRY
        yield message("stream", info)
        while not service.draining:
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), LOOK_SECONDS)
                bell.clear()
            before, silent = info, silent + LOOK_SECONDS
            try:
                info = await service.streams.get(stream)
            except NotFoundError:
                yield message("deleted", {"stream": stream})
                return
            if info != before:
                yield message("stream", info)
                silent = 0.0
            elif silent >= ALIVE_SECONDS:
                yield ALIVE
                silent = 0.0


@router.delete("/{stream}", summary="Delete a stream", status_code=204, response_class=Response)
async def delete_stream(service: Serving, stream: StreamId) -> Response:
    """Gone from memory and disk, with its rows and events."""
    await service.streams.delete(stream)
    return Response(status_code=204)


@router.post("/{stream}/reset", summary="Back to the meta-initialization", responses={200: {"model": StreamInfo}})
async def reset(service: Serving, stream: StreamId) -> Response:
    """Forget what was learned; counters and lagged labels stay, the revision grows by one."""
    return answer(await service.streams.reset(stream))
