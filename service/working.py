"""What a worker process does: it serves the streams of its shard, on the port that all share, and to the others."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI

from models import ModelsError
from service.app import create_app, make_streams
from service.config import Settings
from service.errors import ConfigurationError
from service.forwarding import take_over
from service.keys import KeyRing
from service.links import Crew, Frame, Kind, Link, LostError, Peer, listen
from service.routes.context import Context
from service.server import run
from service.shards import check_shards, read_layout
from service.tenants import Tenants


def main() -> int:
    """Serve as the first line of standard input says, until told to stop or until that input ends.

    Returns:
        The exit code: 1 where the settings cannot be served with; the reason is on standard error.
    """
    task: dict[str, Any] = orjson.loads(sys.stdin.buffer.readline())
    settings = Settings(**task["settings"])
    crew = Crew(task["number"], tuple(Peer(Path(path)) for path in task["sockets"]))
    root, generation = Path(task["root"]), task["generation"]
    try:
        shards = settings.store_url is None
        if shards:
            _check(root, generation)
        streams = make_streams(settings, time.time, register=task["register"])
        if shards:
            _check(root, generation)  # again, now that nobody else can change it
        app = create_app(settings, streams=streams, crew=crew, keys=KeyRing(root, settings.bootstrap))
        context: Context = app.state.context
        models = orjson.dumps(context.streams.models())

        def announce(_url: str) -> None:
            sys.stdout.buffer.write(models + b"\n")
            sys.stdout.buffer.flush()

        run(app, announce=announce, worker=crew.own, beside=beside(app, Path(task["sockets"][crew.own]), crew))
    except (ConfigurationError, ModelsError) as error:
        sys.stderr.write(f"acclimate: {error}\n")
        return 1
    return 0


def _check(root: Path, generation: int) -> None:
    """Refuse a shard that is missing, or that was divided anew since the service was started."""
    layout = read_layout(root)
    if layout.generation != generation:
        raise ConfigurationError(f"{root} was divided among other shards meanwhile: start the service again")
    check_shards(root, layout)


@asynccontextmanager
async def beside(app: FastAPI, path: Path, crew: Crew) -> AsyncIterator[None]:
    """Within, other workers are answered; at the end, once what they have asked for is done."""
    door = Door(app, app.state.tenants)
    server = await listen(path, door.converse)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), _end_with_supervisor)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin.fileno())
        server.close()
        await door.empty()
        crew.close()


def _end_with_supervisor() -> None:
    """Nobody would restart or stop this process any more: stop it."""
    if not os.read(sys.stdin.fileno(), 1):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        os.kill(os.getpid(), signal.SIGTERM)


class Door:
    """Answers what other workers ask."""

    def __init__(self, app: FastAPI, tenants: Tenants) -> None:
        self._app = app
        self._tenants = tenants
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def converse(self, link: Link, frame: Frame) -> None:
        """One conversation. Raises LostError where the other gives up."""
        self._busy += 1
        self._idle.clear()
        try:
            if frame.kind is Kind.CALL:
                tenant, name, arguments = orjson.loads(frame.content)
                context = await self._tenants.context(tenant)
                if context.fleet is None:
                    raise LostError(name)
                await context.fleet.answer(link, name, arguments)
            else:
                await take_over(self._app, link, frame)
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def empty(self) -> None:
        """Wait until no conversation goes on."""
        await self._idle.wait()
