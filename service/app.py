"""The composition root: settings in, application out. Nothing happens at import."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path

from fastapi import FastAPI

from models import BundleError, Model, read_bundle, use_threads
from service import problems
from service.allocator import keep_freed_memory
from service.config import Settings
from service.errors import ConfigurationError
from service.fleet import Fleet
from service.guard import Guard, GuardMiddleware
from service.hotpath import HotFastAPI
from service.keys import DEFAULT_TENANT, KeyRing
from service.links import Crew
from service.middleware import RequestMiddleware
from service.openapi import describe, serve_description
from service.routes import HOT_ENDPOINTS, ROUTERS, methods_at
from service.routes.context import Context
from service.shards import lay_out, lay_out_shared, read_layout
from service.store import STORES, Database, stored_tenants
from service.streams import Streams
from service.tenants import Tenants, folder_of, tenants_in
from service.tracing import Tracer, open_tracer
from service.uploading import Uploads


def create_app(
    settings: Settings,
    *,
    streams: Streams | None = None,
    clock: Callable[[], float] = time.time,
    crew: Crew | None = None,
    keys: KeyRing | None = None,
    open_streams: Callable[[str], Streams] | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        settings: Everything that can be set.
        streams: The streams to serve; made from ``settings`` if left out. They are started and closed with the
            application's lifespan either way.
        clock: Seconds since 1970.
        crew: The workers that the streams are divided among; ``None``: there is this one.
        keys: Who may ask; those of the settings and their data directory if left out.
        open_streams: Opens the streams of a tenant other than the default one; in the data directory if left out.
        tracer: Where traces go; what the settings name if left out. Closed with the application's lifespan.

    Raises:
        ConfigurationError: A model file or the data directory cannot be used, or the extra for traces is missing.
    """
    tracer = tracer or open_tracer(settings.otlp_endpoint)
    use_threads(settings.threads)
    keep_freed_memory()
    streams = make_streams(settings, clock) if streams is None else streams
    opened = open_streams or (lambda tenant: tenant_streams(settings, clock, tenant))

    def context_of(tenant: str, found: Streams) -> Context:
        if tracer is not None:
            found.trace(tracer)
        return _context(settings, found, crew, tenant)

    default = context_of(DEFAULT_TENANT, streams)
    tenants = Tenants(default, lambda tenant: context_of(tenant, opened(tenant)), settings)
    guard = Guard(settings, keys or KeyRing(settings.data_dir, settings.bootstrap))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            await tenants.start(lambda: _known_tenants(settings))
            yield
        finally:
            await tenants.close()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    app = HotFastAPI(
        tenants,
        guard,
        streams.metrics,
        HOT_ENDPOINTS,
        crew,
        tracer,
        title="acclimate",
        version=version("acclimate"),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI's own, which variables can switch on, repeats what clients have sent; ours is service.tracing.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.context = default
    app.state.tenants = tenants
    problems.register(app, methods_at)
    app.add_middleware(GuardMiddleware, guard=guard)
    app.add_middleware(RequestMiddleware, metrics=streams.metrics, tracer=tracer)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way
    serve_description(app)
    return app


def _context(settings: Settings, streams: Streams, crew: Crew | None, tenant: str) -> Context:
    """What a tenant is served."""
    context = Context(settings, streams, Uploads(settings, streams))
    if crew is not None:
        context.fleet = Fleet(streams, crew, lambda: context.ready, tenant)
        context.uploads = Uploads(settings, context.fleet)
    return context


def tenant_streams(settings: Settings, clock: Callable[[], float], tenant: str) -> Streams:
    """The streams of a tenant other than the default one, with the models that are given to all.

    Raises:
        ConfigurationError: Its folder, or a model file, cannot be used.
    """
    database = _database(settings)
    if database is None:
        store = STORES["sqlite"](folder_of(settings.data_dir, tenant))
    else:
        store = STORES["postgres"](database.of_tenant(tenant))
    try:
        models = read_models(settings.models) if settings.models else read_shipped()
        return Streams(settings, store, models, clock, activate=settings.activate, main=False)
    except BaseException:
        store.close()
        raise


def make_streams(settings: Settings, clock: Callable[[], float], *, register: bool = True) -> Streams:
    """The streams over the embedded store or a database, with the models of the settings or those that ship.

    ``register`` off leaves it at the models that the store has: files may have changed since it was given them.

    Raises:
        ConfigurationError: The data directory has several shards, each of which wants a worker of its own.
    """
    database = _database(settings)
    layout = lay_out(settings.data_dir, 1) if database is None else lay_out_shared(settings.data_dir, 1)
    models: dict[str, Model] = {}
    if register:
        models = read_models(settings.models) if settings.models else read_shipped()
    store = STORES["sqlite"](layout.directories[0]) if database is None else STORES["postgres"](database)
    if database is None and read_layout(settings.data_dir) != layout:
        store.close()
        raise ConfigurationError(f"{settings.data_dir} was divided among other shards meanwhile: start again")
    return Streams(settings, store, models, clock, activate=settings.activate)


def _database(settings: Settings) -> Database | None:
    url = settings.store_url
    return None if url is None else Database(url)


def _known_tenants(settings: Settings) -> list[str]:
    """Those that have a store already."""
    database = _database(settings)
    return tenants_in(settings.data_dir) if database is None else stored_tenants(database)


def read_models(paths: Mapping[str, Path]) -> dict[str, Model]:
    """Bundles by name.

    Raises:
        ConfigurationError: A file is not there, or is not a bundle that this version reads.
    """
    loaded = {}
    for name, path in paths.items():
        try:
            loaded[name] = read_bundle(path)
        except BundleError as error:
            raise ConfigurationError(f"model {name}: {error}") from None
    return loaded


def read_shipped() -> dict[str, Model]:
    """The models that ship with the project, each under its file's name."""
    with as_file(files("models") / "shipped") as directory:
        return read_models({path.stem: path for path in sorted(directory.glob("*.safetensors"))})
