"""Server-sent events (the HTML standard's): an answer without an end, message by message."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response, StreamingResponse

from service.json_body import header
from service.routes.answers import OPTIONS

SSE = "text/event-stream"
LIVE: dict[str, Any] = {SSE: {"schema": {"type": "string"}}}
"""For the OpenAPI description."""
ALIVE_SECONDS = 15.0
"""Longest silence on a connection that follows something."""
ALIVE = b": alive\n\n"
RETRY = b"retry: 2000\n\n"
"""When a client that was cut off comes back, in ms."""


def follows(request: Request) -> bool:
    """Whether a client wants to hear what happens, not how things are."""
    return SSE in header(request.scope, b"accept")


def message(kind: str, value: Any, name: str | None = None) -> bytes:
    """One message; ``name`` is what the client states when it comes back."""
    stated = "" if name is None else f"id: {name}\n"
    return f"{stated}event: {kind}\ndata: {orjson.dumps(value, option=OPTIONS).decode()}\n\n".encode()


async def live(messages: AsyncIterator[bytes]) -> Response:
    """The messages as an answer. What goes wrong before the first of them is an error like any other."""
    first = await anext(messages)

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for part in messages:
            yield part

    return StreamingResponse(body(), media_type=SSE, headers={"Cache-Control": "no-cache"})
