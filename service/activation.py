"""Streams that take another version of their model: they re-adapt from its start on the rows they retain.

A stream goes on as it is while its new state is computed, and is held only to catch up with what it has learned
meanwhile. Which streams are behind is asked of the store, so that a restart goes on where a stop came between.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import structlog

from models import Engine
from service.config import Settings
from service.configuring import retained
from service.errors import NotFoundError
from service.hot import HotStreams
from service.registry import Registry
from service.replay import Engines, Lease, adapt_again, replay
from service.restoring import put_state
from service.store import STATE_KINDS, Append, Done, Entry, Refusal, Store, StreamRecord
from service.threads import Threads

GROUP_STREAMS = 32
"""Streams that are asked for at once."""
_log = structlog.get_logger("acclimate.models")


class _Ready(NamedTuple):
    """A stream's new state as of a revision."""

    lease: Lease
    slot: int
    record: StreamRecord


class Activation:
    """Brings the streams of models to the active versions, in the background.

    Args:
        settings: ``retained_rows``.
        store: Where the logs are.
        streams: Those in memory.
        registry: Which version is active.
        engines: What makes states.
        commit: Commits operations in one transaction.
        threads: Where the work is done.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        streams: HotStreams,
        registry: Registry,
        engines: Engines,
        commit: Callable[..., Awaitable[list[Done | Refusal]]],
        *,
        threads: Threads,
        clock: Callable[[], float],
    ) -> None:
        self._retained_rows = settings.retained_rows
        self._store = store
        self._streams = streams
        self._registry = registry
        self._engines = engines
        self._commit = commit
        self._threads = threads
        self._clock = clock
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with what an earlier process left."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="activation")
        self.wake()

    def wake(self) -> None:
        """An active version has changed."""
        self._idle.clear()
        self._wake.set()

    async def done(self) -> None:
        """Return when no stream is behind, but for those that cannot be brought along."""
        await self._idle.wait()

    async def close(self) -> None:
        """Stop; what is left is done after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for name, version in self._registry.actives():
                await self._bring(name, version)
            if not self._wake.is_set():
                self._idle.set()

    async def _bring(self, model: str, version: int) -> None:
        """Bring all streams of a model to a version, or as many as there is time for before another becomes active."""
        after = ""
        while not self._wake.is_set():
            found = await self._threads.restore(partial(self._store.behind, model, version, after, GROUP_STREAMS))
            if not found:
                return
            for record in found:
                try:
                    await self._move(record.stream, version)
                except NotFoundError:
                    pass  # deleted meanwhile
                except Exception as error:  # noqa: BLE001 - the others come along; this one goes on as it is
                    _log.warning("not_activated", stream=record.stream, version=version, exc_info=error)
            after = found[-1].stream

    async def _move(self, stream: str, version: int) -> None:
        ready = await self._threads.restore(lambda: self._prepare(stream, version))
        if ready is None:
            return
        try:
            async with self._streams.hold(stream, save=False):
                append = await self._threads.restore(lambda: self._caught_up(ready, version))
                if append is not None:
                    await self._commit(append)
        finally:
            ready.lease.engine.release(ready.slot)
            self._engines.give_back(ready.lease)

    def _prepare(self, stream: str, version: int) -> _Ready | None:
        """The state under the new version as of now, which nobody waits for."""
        loaded = self._store.load(stream)
        if loaded is None or loaded.record.model_version == version:
            return None
        record = loaded.record
        rows = retained(self._store, record, record.rows_seen - self._retained_rows)
        lease = self._engines.lease(record.model, version, record.config)
        try:
            return _Ready(lease, adapt_again(lease.engine, loaded, rows), record)
        except BaseException:
            self._engines.give_back(lease)
            raise

    def _caught_up(self, ready: _Ready, version: int) -> Append | None:
        """The operation that takes the stream over, with what it has learned since; ``None``: another time.

        The stream is held.
        """
        found = self._store.get(ready.record.stream)
        if found is None or found[0].key != ready.record.key or found[0].config != ready.record.config:
            return None
        record, engine = found[0], ready.lease.engine
        since = _entries(self._store, record, ready.record.stream_version)
        if any(entry.kind in STATE_KINDS for entry in since):
            return None
        replay(engine, [(ready.slot, since, None)])
        return put_state(
            record,
            "activate",
            {"model_version": version},
            engine.snapshot(ready.slot),
            now=self._clock(),
            state=_state(engine, ready.slot),
            model_version=version,
        )


def _entries(store: Store, record: StreamRecord, after: int) -> Sequence[Entry]:
    return store.entries(record, after, record.stream_version - after) if record.stream_version > after else ()


def _state(engine: Engine, slot: int) -> str:
    return engine.status(slot).state
