"""Several worker processes behind one port: started, told what to do, started again when they die, stopped together."""

import asyncio
import math
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import structlog

from service.config import Settings
from service.logs import configure_logs
from service.server import base_url, listen
from service.shards import Layout, lay_out, lay_out_shared
from service.types import FeatureInfo, ModelInfo

SOCKET_PATH_BYTES_MAX = 100
"""Of a Unix socket's path; Linux takes 107."""
BACKOFF_SECONDS, BACKOFF_SECONDS_MAX = 0.1, 5.0
"""Before a worker that has died is started again; doubled each time it dies young."""
OLD_SECONDS = 60.0
KILL_SECONDS = 5.0
"""How much longer than its own grace period a worker is waited for."""
_log = structlog.get_logger("acclimate.supervisor")
READY_BYTES_MAX = 2**24
"""Of what a worker says of its models."""


def supervise(settings: Settings, announce: Callable[[str, list[ModelInfo]], None]) -> int:
    """Serve with ``settings.workers`` processes until SIGTERM or SIGINT, then return.

    Args:
        settings: What all of them serve with.
        announce: Called with the base URL and the models when all answer.

    Returns:
        The exit code: 0 if all workers ended in order; that of the first that could not start.

    Raises:
        ConfigurationError: The address cannot be listened on, or the directory has another number of shards.
    """
    configure_logs(settings.log_level)
    shared = settings.store_url is not None
    layout = (lay_out_shared if shared else lay_out)(settings.data_dir, settings.workers)
    listen(settings).close()  # a socket that shares its port does not notice another service there
    with ExitStack() as stack:
        held = stack.enter_context(listen(settings, shared=True))  # keeps the port, and answers nobody
        sockets = stack.enter_context(_socket_paths(settings))
        crew = _Crew(settings, layout, held, sockets, announce)
        return asyncio.run(crew.run())


@contextmanager
def _socket_paths(settings: Settings) -> Iterator[list[Path]]:
    """Where the workers listen for each other: in the data directory, or in one of its own.

    The latter where the path is too deep, or where the streams are in a database: then nobody locks the directory, and
    another service may use its keys.
    """
    own = settings.data_dir.resolve() / "workers"
    with ExitStack() as stack:
        if settings.store_url is not None or len(bytes(own)) > SOCKET_PATH_BYTES_MAX - len("/999.sock"):
            own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="acclimate-")))
        own.mkdir(mode=0o700, exist_ok=True)
        own.chmod(0o700)
        yield [own / f"{number}.sock" for number in range(settings.workers)]


class _Crew:
    """The worker processes of one service."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        held: socket.socket,
        sockets: list[Path],
        announce: Callable[[str, list[ModelInfo]], None],
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._held = held
        self._sockets = sockets
        self._announce = announce
        self._processes: dict[int, Process] = {}
        self._begun: set[int] = set()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Start all, the first alone, so that what is wrong with the settings is said once; then watch them."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal, number)
        models = await self._start(0)
        if models is None:
            return await self._processes[0].wait()
        found = await asyncio.gather(*(self._start(number) for number in range(1, self._settings.workers)))
        if any(each is None for each in found):
            self._signal(signal.SIGTERM)
        if not self._stop.is_set():
            self._announce(base_url(self._held), models)
        codes = await asyncio.gather(*(self._watch(number) for number in list(self._processes)))
        _log.info("all_stopped", codes=codes)
        return max(codes)

    def _signal(self, number: int) -> None:
        """Tell all; a second signal does not let them wait."""
        self._stop.set()
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _start(self, number: int) -> list[ModelInfo] | None:
        """Start a worker and wait until it answers; its models, ``None`` where it ended before."""
        if self._stop.is_set():
            return None
        settings = self._settings.model_copy(
            update={"data_dir": self._layout.directories[number], "port": self._held.getsockname()[1]}
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service.worker",
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
            limit=READY_BYTES_MAX,
        )
        self._processes[number] = process
        if process.stdin is None or process.stdout is None:
            raise TypeError("a worker has pipes")
        task = {
            "settings": settings.model_dump(mode="json"),
            "root": str(self._settings.data_dir),
            "generation": self._layout.generation,
            "register": number not in self._begun,
            "number": number,
            "sockets": [str(path) for path in self._sockets],
        }
        with suppress(ConnectionError):
            process.stdin.write(orjson.dumps(task) + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if self._stop.is_set():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        if line:
            self._begun.add(number)
        return [_model_of(model) for model in orjson.loads(line)] if line else None

    async def _watch(self, number: int) -> int:
        """Start a worker again whenever it dies; its exit code once all are to stop."""
        backoff = BACKOFF_SECONDS
        while True:
            began = time.monotonic()
            code = await self._end_of(self._processes[number])
            if not self._stop.is_set():
                _log.error("worker_died", worker=number, code=code, restart_seconds=backoff)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), backoff)
            if self._stop.is_set():
                return code
            old = time.monotonic() - began > OLD_SECONDS
            backoff = BACKOFF_SECONDS if old else min(2 * backoff, BACKOFF_SECONDS_MAX)
            await self._start(number)

    async def _end_of(self, process: Process) -> int:
        """A worker's exit code; it is killed where it outlives its grace period."""
        end = asyncio.create_task(process.wait())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([end, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not end.done():
            grace = self._settings.drain_seconds + math.ceil(self._settings.shutdown_grace_seconds) + KILL_SECONDS
            await asyncio.wait([end], timeout=grace)
            if not end.done():
                _log.error("worker_killed", pid=process.pid)
                process.kill()
        return await end


def _model_of(stated: dict[str, Any]) -> ModelInfo:
    return ModelInfo(**{**stated, "features": [FeatureInfo(**feature) for feature in stated["features"]]})
