"""What goes on, at a glance."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import ServiceError
from service.overview import SAMPLE_SECONDS
from service.routes.answers import answer
from service.routes.context import Context, Serving
from service.routes.live import LIVE, RETRY, follows, live, message
from service.types import Overview

router = APIRouter(prefix="/v1", tags=["overview"])
PAUSE_SECONDS = 1.0
"""Least time between two messages, however much happens."""


@router.get("/overview", summary="What goes on", responses={200: {"model": Overview, "content": LIVE}})
async def overview(service: Serving, request: Request) -> Response:
    """Streams by state, and what was done in each interval of the last hour.

    With `Accept: text/event-stream` the same, and then again and again with the samples that are new.
    """
    if not follows(request):
        return answer(await service.all_streams.overview())
    return await live(_follow(service))


async def _follow(service: Context) -> AsyncIterator[bytes]:
    after = 0.0
    with service.streams.bells.listening(None) as bell:
        found = await service.all_streams.overview()
        yield RETRY
        while not service.draining:
            yield message("overview", found)
            after = found.samples[-1].at if found.samples else after
            try:
                await asyncio.wait_for(bell.wait(), SAMPLE_SECONDS)
                bell.clear()
                await asyncio.sleep(0 if service.draining else PAUSE_SECONDS)
            except TimeoutError:
                pass
            try:
                found = await service.all_streams.overview(after)
            except ServiceError:  # another worker has gone, or this one is about to: the client comes back
                return
