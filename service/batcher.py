"""A bounded queue in front of something that works best on many items at once."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from service.errors import SaturatedError, UnavailableError
from service.tracing import Stages

Item = TypeVar("Item")
Answer = TypeVar("Answer")
RETRY_AFTER_SECONDS_MAX = 60
ARRIVAL_TURNS = 2
"""Turns of the event loop without a further item after which a tick begins: who has arrived by then comes along."""
ANSWERS_A_TURN = 16
"""Answers that are given in one turn of the event loop: each wakes a request, and others must not wait for all."""


class Batcher(Generic[Item, Answer]):
    """Collects what is waiting into ticks and works on one tick at a time.

    A tick takes at most one item of each key, so that the items of a key are worked on one after another in the order
    in which they came; keys take turns. Before a tick whatever has arrived is read, so that it comes along; nothing
    ever waits for what has not arrived. All methods belong to one event loop.

    Attributes:
        stages: Told how long items wait and are worked on; ``None``: nobody asks.

    Args:
        name: What it does, for errors.
        work: Answers a tick: one answer or exception an item, in their order. If it raises, every item gets that.
        queue_items_max: Items that may wait.
        tick_items_max: Most items of a tick.
        tick_weight_max: A tick takes no further item once its weight has reached this.
        key: Key of an item; without it every item has its own.
        weight: Weight of an item, 1 if left out.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        queue_items_max: int,
        tick_items_max: int,
        tick_weight_max: int | None = None,
        key: Callable[[Item], Hashable] | None = None,
        weight: Callable[[Item], int] | None = None,
    ) -> None:
        self._name = name
        self._work = work
        self._queue_items_max = queue_items_max
        self._tick_items_max = tick_items_max
        self._tick_weight_max = tick_weight_max
        self._key = key
        self._weight = weight
        self._waiting: OrderedDict[Hashable, deque[tuple[Item, asyncio.Future[Answer]]]] = OrderedDict()
        self._count = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._item_seconds = 0.0
        self.stages: Stages | None = None

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return self._count

    def start(self) -> None:
        """Begin to work; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"batcher {self._name}")

    def put(self, item: Item) -> "asyncio.Future[Answer]":
        """Queue an item.

        Returns:
            A future with its answer. It cannot be cancelled: the item is worked on even if nobody waits any more.

        Raises:
            SaturatedError: The queue is full; the item was not taken.
            UnavailableError: The batcher is closing; the item was not taken.
        """
        if self._closing:
            raise UnavailableError("The service is stopping: send the request to another server, or again later.")
        if self._count >= self._queue_items_max:
            seconds = min(max(math.ceil(self._count * self._item_seconds), 1), RETRY_AFTER_SECONDS_MAX)
            raise SaturatedError(
                f"{self._count} requests are waiting for {self._name}, no more fit: repeat after {seconds} s",
                retry_after_s=seconds,
            )
        future: asyncio.Future[Answer] = _Promise(loop=asyncio.get_running_loop())
        if self.stages is not None:
            self.stages.queued(future)
        key = object() if self._key is None else self._key(item)
        self._waiting.setdefault(key, deque()).append((item, future))
        self._count += 1
        self._wake.set()
        return future

    async def close(self) -> None:
        """Take no more, finish what is waiting."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    def _take(self) -> "list[tuple[Item, asyncio.Future[Answer]]]":
        """The next tick: the first item of as many keys as fit; a key with more items goes to the end."""
        tick: list[tuple[Item, asyncio.Future[Answer]]] = []
        weight = 0
        for _ in range(len(self._waiting)):
            if len(tick) >= self._tick_items_max or (self._tick_weight_max and weight >= self._tick_weight_max):
                break
            key, queue = self._waiting.popitem(last=False)
            tick.append(queue.popleft())
            weight += self._weight(tick[-1][0]) if self._weight else 1
            if queue:
                self._waiting[key] = queue
        self._count -= len(tick)
        return tick

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            tick = self._take()
            if not tick:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                await self._arrivals()
                continue
            began = loop.time()
            if self.stages is None:
                answers = await self._answer([item for item, _ in tick])
            else:
                with self.stages.tick([future for _, future in tick]):
                    answers = await self._answer([item for item, _ in tick])
            self._item_seconds = 0.9 * self._item_seconds + 0.1 * (loop.time() - began) / len(tick)
            for place, ((_, future), answer) in enumerate(zip(tick, answers, strict=True), start=1):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                    future.exception()  # or the loop complains where the caller has gone away
                else:
                    future.set_result(answer)
                if place % ANSWERS_A_TURN == 0:
                    await asyncio.sleep(0)
            await self._arrivals()

    async def _arrivals(self) -> None:
        """Let the event loop read what has come meanwhile, as long as it brings items; one turn at least.

        Work that never waits would else keep the loop from all others while items do.
        """
        quiet, before = 0, -1
        while quiet < ARRIVAL_TURNS and before < self._tick_items_max:
            before = self._count
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._count == before else 0

    async def _answer(self, items: list[Item]) -> Sequence[Answer | Exception]:
        try:
            return await self._work(items)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait for the tick
            return [error] * len(items)


class _Promise(asyncio.Future[Answer]):
    """A future that is done in any case; a task that waits for it is cancelled when it is."""

    def cancel(self, msg: Any = None) -> bool:
        """Refuse."""
        del msg
        return False
