"""The service's threads, one of each kind, so that the event loop computes nothing and each kind keeps its order."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """Five single threads: predicting (large requests), learning, loading (and reading), restoring, writing."""

    def __init__(self) -> None:
        self._predicting = ThreadPoolExecutor(1, "predicting")
        self._learning = ThreadPoolExecutor(1, "learning")
        self._loading = ThreadPoolExecutor(1, "loading")
        self._restoring = ThreadPoolExecutor(1, "restoring")
        self._writing = ThreadPoolExecutor(1, "writing")

    async def predict(self, work: Callable[[], T]) -> T:
        """Run in the predicting thread: answers to large requests, and the packing of snapshots."""
        return await asyncio.get_running_loop().run_in_executor(self._predicting, work)

    async def learn(self, work: Callable[[], T]) -> T:
        """Run in the learning thread: the numerics of feedback."""
        return await asyncio.get_running_loop().run_in_executor(self._learning, work)

    async def load(self, work: Callable[[], T]) -> T:
        """Run in the loading thread: reads from the store, and replays."""
        return await asyncio.get_running_loop().run_in_executor(self._loading, work)

    async def restore(self, work: Callable[[], T]) -> T:
        """Run in the restoring thread: states of streams' pasts, and under other versions, which take their time."""
        return await asyncio.get_running_loop().run_in_executor(self._restoring, work)

    async def write(self, work: Callable[[], T]) -> T:
        """Run in the writing thread: commits."""
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    def close(self) -> None:
        """End the threads, once what they do is done."""
        for executor in (self._predicting, self._learning, self._loading, self._restoring, self._writing):
            executor.shutdown()
