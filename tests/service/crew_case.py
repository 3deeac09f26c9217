"""Helpers of the tests of several workers: two of them in one process, each behind a socket of its own."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI

from service.app import create_app
from service.config import Settings
from service.keys import KeyRing
from service.links import Crew, Peer, listen
from service.routes.context import Context
from service.shards import shard_of
from service.store import MemoryStore
from service.streams import Streams
from service.working import Door
from tests.service.http_case import NOW, small_models


class Worker(NamedTuple):
    """One worker: a client of its own port, its application, its streams."""

    client: httpx.AsyncClient
    app: FastAPI
    streams: Streams

    @property
    def context(self) -> Context:
        """The running service."""
        found: Context = self.app.state.context
        return found


def names_of(worker: int, count: int, workers: int = 2) -> list[str]:
    """Streams of one of the workers."""
    found = (name for number in range(1_000) if shard_of(name := f"s{number}", workers) == worker)
    return [next(found) for _ in range(count)]


@asynccontextmanager
async def crew_of(
    count: int = 2, *, keys: KeyRing | None = None, store: MemoryStore | None = None, **given: Any
) -> AsyncIterator[list[Worker]]:
    """Workers over memory stores, started, each with a client that talks to it without a network.

    Each has a store of its own, unless one is given that they share.
    """
    settings = Settings(data_dir=Path("unused"), **given)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crew-")))
        paths = [folder / f"{number}.sock" for number in range(count)]
        workers = []
        for number, path in enumerate(paths):
            streams = Streams(settings, store or MemoryStore(), small_models(), lambda: NOW)
            crew = Crew(number, tuple(map(Peer, paths)))
            app = create_app(
                settings,
                streams=streams,
                crew=crew,
                keys=keys,
                open_streams=lambda _: Streams(settings, MemoryStore(), small_models(), lambda: NOW, main=False),
            )
            await stack.enter_async_context(app.router.lifespan_context(app))
            stack.callback(crew.close)
            door = Door(app, app.state.tenants)
            server = await listen(path, door.converse)
            stack.callback(server.close)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))
            workers.append(Worker(client, app, streams))
        yield workers
