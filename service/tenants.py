"""Tenants: each has streams, models, webhooks and a store of its own, in one process, and nothing of another's."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from service.config import Settings
from service.errors import ConfigurationError, ServiceError, UnavailableError
from service.keys import DEFAULT_TENANT
from service.routes.context import Context

FOLDER = "tenants"
"""In a data directory, or a shard of one: a folder for each tenant but the default one."""
Make = Callable[[str], Context]
"""Opens what a tenant has; runs in a thread."""
_log = structlog.get_logger("acclimate.tenants")


def folder_of(data_dir: Path, tenant: str) -> Path:
    """Where a tenant's store is."""
    return data_dir if tenant == DEFAULT_TENANT else data_dir / FOLDER / tenant


def tenants_in(data_dir: Path) -> list[str]:
    """Those that a data directory, or a shard of one, has a folder of, by name; the default one is not among them."""
    with suppress(OSError):
        return sorted(folder.name for folder in (data_dir / FOLDER).iterdir() if folder.is_dir())
    return []


class Tenants:
    """What is served to each tenant, opened when a key of it first asks. Belongs to the event loop.

    Attributes:
        settings: What the service was started with.

    Args:
        default: The default tenant's, which is there from the start.
        make: Opens that of another.
        settings: At most ``tenants_max`` are open.
    """

    def __init__(self, default: Context, make: Make, settings: Settings) -> None:
        self._make = make
        self.settings = settings
        self._open: dict[str, Context] = {DEFAULT_TENANT: default}
        self._opening: dict[str, asyncio.Task[Context]] = {}
        self._draining = False

    @property
    def contexts(self) -> dict[str, Context]:
        """Those that are open, by tenant."""
        return dict(self._open)

    def peek(self, tenant: str) -> Context | None:
        """What a tenant has, if it is open."""
        return self._open.get(tenant)

    async def context(self, tenant: str) -> Context:
        """What a tenant has, opened if need be.

        Raises:
            UnavailableError: There are too many tenants, or the service is stopping.
        """
        found = self._open.get(tenant)
        if found is not None:
            return found
        if tenant not in self._opening:
            if len(self._open) + len(self._opening) >= self.settings.tenants_max or self._draining:
                raise UnavailableError(
                    f"No further tenant can be served: raise ACCLIMATE_TENANTS_MAX ({len(self._open)})."
                )
            self._opening[tenant] = asyncio.get_running_loop().create_task(self._start(tenant))
        return await asyncio.shield(self._opening[tenant])

    async def _start(self, tenant: str) -> Context:
        try:
            context = await asyncio.to_thread(self._make, tenant)
        except ConfigurationError as error:
            raise UnavailableError(f"What tenant {tenant} has cannot be opened: {error}.") from error
        else:
            await context.streams.start()
            self._open[tenant] = context
            return context
        finally:
            del self._opening[tenant]

    async def start(self, known: Callable[[], Sequence[str]]) -> None:
        """Start the default tenant, and those that have a store already: their webhooks and activations go on.

        Args:
            known: Who has one; runs in a thread.
        """
        await self._open[DEFAULT_TENANT].streams.start()
        for tenant in await asyncio.to_thread(known):
            try:
                await self.context(tenant)
            except ServiceError as error:
                _log.warning("tenant_not_opened", tenant=tenant, reason=error.detail)

    @property
    def draining(self) -> bool:
        """Whether the service was told to stop."""
        return self._draining

    def drain(self) -> None:
        """Nobody is ready any more."""
        self._draining = True
        for context in self._open.values():
            context.draining = True

    def ring(self) -> None:
        """Wake those who follow events, so that they go."""
        for context in self._open.values():
            context.streams.bells.ring_all()

    async def close(self) -> None:
        """Close all, each with everything committed."""
        self.drain()
        if self._opening:
            await asyncio.wait(self._opening.values())
        for context in self._open.values():
            context.draining = True
            await context.streams.close()
