"""Hot streams: which are in memory, and how they come and go.

The event loop owns the table and the pins, and alone changes what a hot stream serves (its slot together with its
record): what is read of both at once belongs together.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import structlog

from models import Status, Tensors
from service.batcher import Batcher
from service.config import Settings
from service.errors import ServiceError
from service.replay import Engines, Lease, bring_back
from service.store import Done, Loaded, Operation, PutSnapshot, Refusal, Store, StreamRecord
from service.threads import Threads
from service.tracing import Tracer

SAVE_STREAMS = 64
"""Snapshots written in one transaction."""
DAY_SECONDS = 86_400.0
_log = structlog.get_logger("acclimate.streams")

Item = TypeVar("Item")
Reply = TypeVar("Reply")
Writer = Batcher[tuple[Operation, ...], list[Done | Refusal]]


@dataclass(eq=False, slots=True)
class Hot:
    """A stream in memory.

    Attributes:
        record: The stream as of the state that is served.
        lease: Engine that holds it.
        slot: Where in the engine.
        saved_version: Revision of its snapshot in the store, 0 where a new stream needs none.
        unsaved_rows: Rows learned since.
        pins: Requests that work with it; it is neither saved away nor released meanwhile.
        dead: Not to be served any more: something else is in the store.
        idle: Set when there are no pins any more; made by whoever waits for that.
        checked_at: When it was last known to be what the store has (epoch seconds).
    """

    record: StreamRecord
    lease: Lease
    slot: int
    saved_version: int
    unsaved_rows: int = 0
    pins: int = 0
    dead: bool = False
    idle: asyncio.Event | None = None
    checked_at: float = 0.0


class HotStreams:
    """A bounded number of streams in memory, the least recently used ones making room.

    Args:
        settings: ``hot_streams_max``, ``snapshot_rows``, ``retained_rows``, ``log_days`` and the queue's limits.
        store: Where streams come from.
        writer: Where their snapshots go.
        engines: What holds them.
        threads: Where the work is done.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        writer: Writer,
        engines: Engines,
        *,
        threads: Threads,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._engines = engines
        self._threads = threads
        self._clock = clock
        self._table: OrderedDict[str, Hot] = OrderedDict()
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._held: dict[str, asyncio.Future[None]] = {}
        self._due: dict[str, Hot] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._saving = self._shrinking = False
        self._checker: Batcher[StreamRecord, bool] = Batcher(
            "comparing streams",
            self._check,
            queue_items_max=settings.queue_items_max,
            tick_items_max=settings.tick_items_max,
        )
        self._loader: Batcher[str, None] = Batcher(
            "loading streams",
            self._load,
            queue_items_max=settings.queue_items_max,
            tick_items_max=settings.tick_items_max,
        )

    def trace(self, tracer: Tracer) -> None:
        """Tell of loads."""
        self._loader.stages = tracer.stages("loading", "load")

    def start(self) -> None:
        """Begin to load streams when they are asked for; none is loaded ahead."""
        self._loader.start()
        self._checker.start()

    async def close(self) -> None:
        """Write a snapshot of every stream that has changed since its last."""
        await self._loader.close()
        await self._checker.close()
        while self._tasks:
            await asyncio.gather(*self._tasks)
        changed = [hot for hot in self._table.values() if hot.record.stream_version != hot.saved_version]
        for start in range(0, len(changed), SAVE_STREAMS):
            await self._save(changed[start : start + SAVE_STREAMS])

    def __len__(self) -> int:
        return len(self._table)

    def peek(self, stream: str) -> Hot | None:
        """A stream if it is in memory; it is pinned like one from ``acquire``."""
        hot = self._table.get(stream)
        if hot is not None:
            self._pin(hot)
        return hot

    async def acquire(self, stream: str) -> Hot:
        """A stream, loaded if need be, and pinned until ``release``.

        Raises:
            NotFoundError: There is no such stream.
            DamagedError: It cannot be rebuilt from what is stored.
            SaturatedError: Too many streams are waiting to be loaded.
        """
        while True:
            hot = self._table.get(stream)
            if hot is not None:
                self._table.move_to_end(stream)
                self._pin(hot)
                return hot
            if stream in self._held:
                await asyncio.shield(self._held[stream])
                continue
            if stream not in self._loading:
                self._loading[stream] = self._loader.put(stream)
            await self._loading[stream]

    async def acquire_current(self, stream: str) -> Hot:
        """As ``acquire``; what it gives is what the store has. Raises as that and as ``is_current``."""
        while True:
            hot = await self.acquire(stream)
            try:
                current = await self.is_current(hot)
            except BaseException:
                self.release(hot)
                raise
            if current:
                return hot
            self.release(hot)

    async def is_current(self, hot: Hot) -> bool:
        """Whether a pinned stream is what the store has; one that is not is dropped, still pinned.

        Where nobody else writes the store it always is; otherwise the store is asked, unless it said so within
        ``store_trust_seconds``.

        Raises:
            UnavailableError: The store cannot be asked.
        """
        now = self._clock()
        if not self._store.shared or now - hot.checked_at < self._settings.store_trust_seconds:
            return not hot.dead
        record = hot.record
        if await self._checker.put(record):
            hot.checked_at = max(now, hot.checked_at)
        elif hot.record is record:  # otherwise it has moved on with a commit of our own meanwhile
            self.drop(hot)
        return not hot.dead

    async def _check(self, records: list[StreamRecord]) -> list[bool | Exception]:
        return [*await self._threads.load(lambda: self._store.current(records))]

    def _pin(self, hot: Hot) -> None:
        hot.pins += 1

    def release(self, hot: Hot) -> None:
        """Undo one ``acquire`` or ``peek``."""
        hot.pins -= 1
        if hot.pins == 0:
            if hot.idle is not None:
                hot.idle.set()
            if hot.dead:
                self._free(hot)
            elif len(self._table) > self._settings.hot_streams_max:
                self._make_room()

    async def queue(self, hot: Hot, batcher: Batcher[Item, Reply], item: Item) -> Reply:
        """Queue an item of a pinned stream; the pin is given up when the item is done, not when its client leaves."""
        try:
            future = batcher.put(item)
        except BaseException:
            self.release(hot)
            raise
        future.add_done_callback(lambda _: self.release(hot))
        return await future

    def drop(self, hot: Hot) -> None:
        """Serve a stream no more from this state, which the store has refused; the next request loads it anew."""
        if hot.dead:
            return
        hot.dead = True
        if self._table.get(hot.record.stream) is hot:
            del self._table[hot.record.stream]
        self._due.pop(hot.record.stream, None)
        if hot.pins == 0:
            self._free(hot)

    def learned(self, hot: Hot, rows: int) -> None:
        """Count what a stream has learned; every ``snapshot_rows`` rows it is saved, beside the running requests."""
        hot.unsaved_rows += max(rows, 1)
        self._save_if_due(hot)

    def _save_if_due(self, hot: Hot) -> None:
        if hot.unsaved_rows >= self._settings.snapshot_rows and not hot.dead:
            self._due[hot.record.stream] = hot
            if not self._saving:
                self._saving = True
                self._spawn(self._save_due())

    @asynccontextmanager
    async def hold(self, stream: str, *, save: bool) -> AsyncIterator[None]:
        """Have a stream to oneself: it is out of memory, and nobody gets it before the end.

        Args:
            stream: Which.
            save: Whether its snapshot is written first.
        """
        while stream in self._held or stream in self._loading:
            pending = self._held.get(stream) or self._loading[stream]
            await asyncio.wait([pending])
        gate = self._held[stream] = asyncio.get_running_loop().create_future()
        try:
            hot = self._table.pop(stream, None)
            if hot is not None:
                await self._retire([hot], save=save)
            yield
        finally:
            del self._held[stream]
            gate.set_result(None)

    def _make_room(self) -> None:
        if not self._shrinking:
            self._shrinking = True
            self._spawn(self._shrink())

    async def _shrink(self) -> None:
        """Save and release least recently used streams until the table fits again."""
        loop = asyncio.get_running_loop()
        try:
            while (excess := len(self._table) - self._settings.hot_streams_max) > 0:
                free = (hot for hot in self._table.values() if hot.pins == 0)
                idle = list(islice(free, min(excess, SAVE_STREAMS)))
                if not idle:
                    return  # the next release makes room
                gate = loop.create_future()
                for hot in idle:
                    del self._table[hot.record.stream]
                    self._held[hot.record.stream] = gate
                try:
                    await self._retire(idle, save=True)
                finally:
                    for hot in idle:
                        del self._held[hot.record.stream]
                    gate.set_result(None)
        finally:
            self._shrinking = False

    async def _retire(self, hots: Sequence[Hot], *, save: bool) -> None:
        """Release streams that are out of the table already, once nobody works with them."""
        for hot in hots:
            self._due.pop(hot.record.stream, None)
            while hot.pins:
                if hot.idle is None or hot.idle.is_set():
                    hot.idle = asyncio.Event()
                await hot.idle.wait()
        changed = [hot for hot in hots if hot.record.stream_version != hot.saved_version and not hot.dead]
        if save and changed:
            await self._save(changed)
        for hot in hots:
            if not hot.dead:
                hot.dead = True
                self._free(hot)

    def _free(self, hot: Hot) -> None:
        hot.lease.engine.release(hot.slot)
        self._engines.give_back(hot.lease)

    async def _save_due(self) -> None:
        try:
            while self._due:
                hots = list(self._due.values())[:SAVE_STREAMS]
                for hot in hots:
                    del self._due[hot.record.stream]
                    self._pin(hot)
                try:
                    await self._save(hots)
                finally:
                    for hot in hots:
                        self.release(hot)
        finally:
            self._saving = False

    async def _save(self, hots: Sequence[Hot]) -> None:
        """Write snapshots. Where that fails nothing is lost: the log still leads to the same state."""
        try:
            copies = [(hot, hot.record, hot.lease.engine.copy(hot.slot)) for hot in hots]
            for hot in hots:
                hot.unsaved_rows = 0
            puts = await self._threads.predict(lambda: [self._snapshot(*each) for each in copies])
            answers = await self._writer.put(tuple(puts))
        except ServiceError as error:
            _log.warning("snapshots_not_written", streams=len(hots), reason=error.detail)
            return
        for hot, put, answer in zip(hots, puts, answers, strict=True):
            if isinstance(answer, Done):
                hot.saved_version = put.record.stream_version

    def _snapshot(self, hot: Hot, record: StreamRecord, state: Tensors) -> PutSnapshot:
        """Of a record and the state that belongs to it."""
        status = hot.lease.engine.status_of(state)
        retained_rows = max(self._settings.retained_rows, status.window_rows)
        return PutSnapshot(
            record,
            summary(status),
            hot.lease.engine.pack(state),
            at=self._clock(),
            trim_rows=record.rows_seen - retained_rows,
            trim_before=self._clock() - self._settings.log_days * DAY_SECONDS,
        )

    async def _load(self, streams: list[str]) -> list[Exception | None]:
        """One tick of loads; what is loaded is in the table when its answer is set."""
        answers: list[Exception | None] = []
        try:
            found = await self._threads.load(lambda: bring_back(self._store, self._engines, streams))
            for stream, item in zip(streams, found, strict=True):
                if isinstance(item, Exception):
                    answers.append(item)
                    continue
                hot = self._table[stream] = _hot(*item)
                self._save_if_due(hot)
                answers.append(None)
        finally:
            for stream in streams:
                del self._loading[stream]
        if len(self._table) > self._settings.hot_streams_max:
            # Those who asked come first: they pin what they have waited for.
            asyncio.get_running_loop().call_later(0, self._make_room)
        return answers

    def _spawn(self, work: Any) -> None:
        # In a context of its own: it belongs to no request, whoever has caused it.
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def summary(status: Status) -> dict[str, Any]:
    """What a snapshot says about its stream without being read."""
    serving = "initial" if status.reverted else "adapted"
    return {
        "window_rows": status.window_rows,
        "loss": status.loss,
        "score": status.score,
        "state": status.state,
        "serving": serving,
    }


def _hot(loaded: Loaded, lease: Lease, slot: int) -> Hot:
    saved_version = 0 if loaded.snapshot is None else loaded.snapshot.revision
    unsaved_rows = sum(max(entry.rows, 1) for entry in loaded.entries)
    return Hot(loaded.record, lease, slot, saved_version, unsaved_rows)
