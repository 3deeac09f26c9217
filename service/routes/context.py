"""What every route works with, and the parameters that several of them share."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Protocol, cast

from fastapi import Depends, Header, Path, Query, Request
from starlette.types import Scope

from service.config import Settings
from service.errors import InvalidError, MalformedError
from service.fleet import Door, Fleet, Post, Shelf
from service.keys import DEFAULT_TENANT
from service.schemas import ID_PATTERN, ID_RULE, is_id
from service.streams import Streams
from service.uploading import Uploads

TENANT = "acclimate.tenant"
"""In the scope of a request that a key was admitted to: whose it is."""
PAGE_ITEMS = 100
"""Items of a page whose limit is left out."""


@dataclass
class Context:
    """The running service, as one tenant has it.

    Attributes:
        settings: What it was started with.
        streams: The streams that it serves.
        uploads: Uploads to them, and to those of other workers, that run.
        fleet: The streams of all workers; ``None`` where there is one.
        draining: Whether it was told to stop: it still answers, but is no longer ready.
        inflating: Held while a compressed body is inflated: one at a time, since few bytes may keep a core busy.
    """

    settings: Settings
    streams: Streams
    uploads: Uploads
    fleet: Fleet | None = None
    draining: bool = False
    inflating: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def all_streams(self) -> Door:
        """What is asked of several streams at once, whichever worker has them."""
        return self.fleet or self.streams

    @property
    def shelf(self) -> Shelf:
        """What is done with models, on all workers."""
        return self.fleet or self.streams.catalogue

    @property
    def post(self) -> Post:
        """What is done with webhooks, on all workers."""
        return self.fleet.webhooks if self.fleet else self.streams.webhooks

    @property
    def ready(self) -> bool:
        """Whether this worker takes requests."""
        return self.streams.ready and not self.draining

    async def all_ready(self) -> bool:
        """Whether new clients may be sent here: wherever their streams are, they are served."""
        return self.ready and (self.fleet is None or await self.fleet.ready())


class Residents(Protocol):
    """All tenants; ``service.tenants.Tenants``."""

    @property
    def contexts(self) -> dict[str, Context]:
        """What is served to those that are open."""
        ...

    async def context(self, tenant: str) -> Context:
        """What is served to one of them."""
        ...


def tenant_of(scope: Scope) -> str:
    """Whose request this is."""
    found: str = scope.get(TENANT, DEFAULT_TENANT)
    return found


def residents(request: Request) -> Residents:
    """All tenants."""
    return cast("Residents", request.app.state.tenants)


async def _context(request: Request) -> Context:
    return await residents(request).context(tenant_of(request.scope))


async def _stream_id(
    stream: Annotated[str, Path(description="Id of the stream.", json_schema_extra={"pattern": ID_PATTERN})],
    x_stream_id: Annotated[str | None, Header(description="May repeat the stream, for routers.")] = None,
) -> str:
    return check_stream(stream, x_stream_id)


def check_stream(stream: str, header: str | None) -> str:
    """The stream of a request.

    Raises:
        InvalidError: It is no id.
        MalformedError: The header X-Stream-Id names another one.
    """
    if not is_id(stream):
        raise InvalidError.at(("path", "stream"), ID_RULE)
    if header is not None and header != stream:
        raise MalformedError("The header X-Stream-Id names another stream than the request: send the same or none.")
    return stream


Serving = Annotated[Context, Depends(_context)]


async def _limit(
    service: Serving,
    limit: Annotated[int | None, Query(ge=1, description="Most items of the page, 100 if left out.")] = None,
) -> int:
    most = service.settings.page_items_max
    if limit is not None and limit > most:
        raise InvalidError.at(("query", "limit"), f"a page has at most {most} items")
    return min(PAGE_ITEMS, most) if limit is None else limit


StreamId = Annotated[str, Depends(_stream_id)]
UploadKey = Annotated[str, Path(pattern=ID_PATTERN, description="The client's name for an upload.")]
ModelName = Annotated[str, Path(pattern=ID_PATTERN, description="Name of a served model.")]
Limit = Annotated[int, Depends(_limit)]
