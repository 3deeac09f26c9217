"""The service's threads, one of each kind, so that the event loop computes nothing and each kind keeps its order."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
USUAL_SWITCH_SECONDS, SWITCH_SECONDS = 0.005, 0.0005
"""How long a thread may keep the interpreter's lock from the event loop: as the interpreter has it, and beside a large
batch, where whoever asks for anything, of whatever tenant, waits that long several times a request. The shorter one
costs small batches a third of their rate, since the writing thread and the loop take turns as often."""


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

    async def learn(self, work: Callable[[], T], *, long: bool = True) -> T:
        """Run in the learning thread: the numerics of feedback. If it takes long, others are let in more often."""
        if long:
            sys.setswitchinterval(SWITCH_SECONDS)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._learning, work)
        finally:
            sys.setswitchinterval(USUAL_SWITCH_SECONDS)

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
