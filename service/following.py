"""What other servers do to a shared store, heard of within a second: events, models, webhooks; whether it answers.

Nothing that is right or wrong depends on it: a stale stream is found out by comparing, not by listening. It asks, since
a database that tells whoever listens (``NOTIFY``) lets those who tell commit one after another.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from service.activation import Activation
from service.bells import Bells
from service.errors import ServiceError
from service.registry import Registry
from service.store import Store
from service.threads import Threads
from service.webhooks import Webhooks

LOOK_SECONDS = 1.0
PAGE_EVENTS = 1_000
_log = structlog.get_logger("acclimate.store")


class Following:
    """Looks at a shared store again and again. Belongs to the event loop.

    Attributes:
        answers: Whether the store answered when it was last asked.

    Args:
        store: Which.
        registry: Told of models.
        activation: Told that another version may be active.
        bells: Rung for events.
        webhooks: Told whether this process leads, and what there is.
        threads: Where the store is asked.
        sleep: Waits.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        activation: Activation,
        bells: Bells,
        webhooks: Webhooks,
        *,
        threads: Threads,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.answers = True
        self._store = store
        self._registry = registry
        self._activation = activation
        self._bells = bells
        self._webhooks = webhooks
        self._threads = threads
        self._sleep = sleep
        self._event: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, where anybody else may write."""
        if self._store.shared:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="following")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except ServiceError as error:
                if self.answers:
                    _log.warning("store_does_not_answer", reason=error.detail)
                self.answers = False
            except Exception as error:  # noqa: BLE001 - what is wrong now may be right in a second
                _log.warning("following_failed", exc_info=error)
            else:
                self.answers = True
            await self._sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once."""
        last = await self._threads.load(self._store.last_event)
        if self._event is not None and last > self._event:
            since = self._event
            page = await self._threads.load(lambda: self._store.all_events(since, PAGE_EVENTS))
            for stream in {stream for stream, _ in page}:
                self._bells.ring(stream)
            last = page[-1][1].id if len(page) == PAGE_EVENTS else last
        self._event = last
        if await self._threads.load(self._registry.refresh):
            self._activation.wake()
        await self._webhooks.follow()
