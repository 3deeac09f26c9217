"""One process that serves: a socket, uvicorn on it, and an orderly end."""

import asyncio
import gc
import math
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager, nullcontext
from types import FrameType
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI

from service.config import Settings
from service.errors import ConfigurationError
from service.logs import configure_logs
from service.patience import patient
from service.tenants import Tenants

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that it is never the server that closes one under a new request."""
BACKLOG = 2_048
FILES_BESIDE = 512
"""Files that are open beside the clients' connections."""
GC_OBJECTS = 20_000
"""New objects between two collections."""
_log = structlog.get_logger("acclimate.server")


class _Server(uvicorn.Server):
    """uvicorn, told to stop by us: its own handling raises the signal again afterwards, and the exit code with it."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell."""
        await super().startup(sockets)
        self._started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(
    app: FastAPI,
    *,
    announce: Callable[[str], None] = lambda _url: None,
    worker: int | None = None,
    beside: AbstractAsyncContextManager[None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then return.

    The process's logs become JSON lines on standard error. On SIGTERM readiness turns 503 at once, the port closes
    after the drain time, running requests finish within the grace period, and everything is committed. A second signal
    skips the waiting.

    Args:
        app: What ``create_app`` built.
        announce: Called with the base URL once requests are answered.
        worker: Which of several processes this is; they share the port.
        beside: Entered when the streams are there, left when the last request was answered.

    Raises:
        ConfigurationError: The address cannot be listened on.
    """
    tenants: Tenants = app.state.tenants
    settings = tenants.settings
    configure_logs(settings.log_level, worker=worker)
    allow_connections(settings.connections_max)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", patient(settings)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_seconds),
    )
    with (
        closing(listen(settings, shared=worker is not None)) as sock,
        asyncio.Runner(loop_factory=config.get_loop_factory()) as runner,
    ):
        server = _Server(config, lambda: announce(base_url(sock)))
        runner.run(_serve(app, server, sock, nullcontext() if beside is None else beside))


async def _serve(app: FastAPI, server: _Server, sock: socket.socket, beside: AbstractAsyncContextManager[None]) -> None:
    """Startup errors come out of here as they are, since the lifespan is entered by us and not by uvicorn."""
    with _stopping(app.state.tenants, server):
        async with app.router.lifespan_context(app), beside:
            spare_collector()
            _log.info("serving", url=base_url(sock))
            await server.serve(sockets=[sock])
        _log.info("stopped")


def allow_connections(count: int) -> None:
    """Raise the process's limit of open files to what so many connections need, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + FILES_BESIDE
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def spare_collector() -> None:
    """Let the garbage collector look at what requests leave behind, seldom, and no more at what the start has built.

    Of a few hundred thousand objects that live as long as the process, a collection takes as long as a thousand
    requests; requests make few cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, *gc.get_threshold()[1:])


@contextmanager
def _stopping(tenants: Tenants, server: _Server) -> Iterator[None]:
    """Within, SIGTERM drains and then stops, SIGINT stops at once, and a second signal does not wait."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    def handle(number: int, _frame: FrameType | None) -> None:
        if tenants.draining:
            server.should_exit = server.force_exit = True
            return
        tenants.drain()
        loop.call_soon_threadsafe(tenants.ring)
        delay_seconds = tenants.settings.drain_seconds if number == signal.SIGTERM else 0.0
        loop.call_soon_threadsafe(loop.call_later, delay_seconds, stop)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(settings: Settings, *, shared: bool = False) -> socket.socket:
    """A bound socket on the address of the settings; if ``shared``, other processes may listen there, too.

    Raises:
        ConfigurationError: The name is unknown, or the port is taken or not allowed.
    """
    where = f"{settings.host} port {settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {where}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise ConfigurationError(f"cannot listen on {where}: {error.strerror}; choose another --port") from None
    return sock


def base_url(sock: socket.socket) -> str:
    """The URL under which a listening socket is reached from this machine.

    Example:
        >>> with socket.socket() as sock:
        ...     sock.bind(("127.0.0.1", 0))
        ...     base_url(sock).startswith("http://127.0.0.1:")
        True
    """
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
