"""Helpers of the tests of streams: small models, seeded rows, stores that fail or wait when told to."""

import shutil
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from models import Model
from models.types import Lags
from service.config import Settings
from service.errors import ServiceError
from service.hot import Hot
from service.store import Done, MemoryStore, Operation, Refusal, SqliteStore, Store
from service.streams import Streams
from service.types import Event, Learned
from tests.models.examples import small_model

NOW = 1_700_000_000.0
PROBE = [[0.5, -1.0], [-2.0, 0.25], [1.5, 1.0]]
Batch = tuple[list[list[float]], list[Any]]


def models() -> dict[str, Model]:
    """A regression model that uses lagged labels, and a classification model."""
    return {
        "reg": small_model("regression", Lags((1, 2), (0.1,)), "reg"),
        "cls": small_model("classification", name="cls"),
    }


def batches(count: int, rows: int = 2, seed: int = 0, jump: int | None = None, task: str = "reg") -> list[Batch]:
    """Rows whose labels follow one line, and from batch ``jump`` on another."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        inputs = rng.normal(size=(rows, 2)).round(3)
        slope = -6.0 if jump is not None and number >= jump else 1.0
        values = slope * inputs[:, 0] + inputs[:, 1] + 0.05 * rng.normal(size=rows)
        labels = values.round(4).tolist() if task == "reg" else ["yes" if value > 0 else "no" for value in values]
        made.append((inputs.tolist(), labels))
    return made


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Epoch seconds."""
        return self.now


class FailingStore(MemoryStore):
    """A memory store whose writes raise ``error`` while it is set."""

    error: ServiceError | None = None

    def write(self, operations: Sequence[Operation]) -> list[Done | Refusal]:
        """Fail, or write."""
        if self.error is not None:
            raise self.error
        return super().write(operations)


class WaitingStore(MemoryStore):
    """A memory store whose writes wait at ``gate``."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def write(self, operations: Sequence[Operation]) -> list[Done | Refusal]:
        """Wait, then write."""
        self.begun.set()
        assert self.gate.wait(30)
        return super().write(operations)


@asynccontextmanager
async def opened(
    store: Store | None = None,
    *,
    given: Mapping[str, Model] | None = None,
    activate: bool = False,
    clock: Clock | None = None,
    **limits: Any,
) -> AsyncIterator[Streams]:
    """Streams over a store, the memory store if left out, started and closed."""
    settings = Settings(data_dir=Path("unused"), **limits)
    streams = Streams(
        settings, store or MemoryStore(), models() if given is None else given, clock or Clock(), activate=activate
    )
    await streams.start()
    try:
        yield streams
    finally:
        await streams.close()


def crash_copy(data_dir: Path, name: str) -> SqliteStore:
    """The store that a process would find if the one that has ``data_dir`` were killed now."""
    copy = data_dir.with_name(name)
    shutil.copytree(data_dir, copy)
    return SqliteStore(copy)


async def learn(streams: Streams, stream: str, given: Sequence[Batch]) -> list[Learned]:
    """Feed batches one after another."""
    return [await streams.feedback(stream, inputs, targets) for inputs, targets in given]


async def predictions(streams: Streams, stream: str) -> list[Any]:
    """What a stream answers now."""
    return (await streams.predict(stream, PROBE)).predictions


async def all_events(streams: Streams, stream: str) -> list[Event]:
    """Every event of a stream."""
    events, cursor = await streams.events(stream, None, 1_000)
    assert cursor is None
    return events


async def state_bytes(streams: Streams, stream: str) -> bytes:
    """The engine's bytes of a stream."""
    hot: Hot = await streams._hot.acquire(stream)
    try:
        return hot.lease.engine.snapshot(hot.slot)
    finally:
        streams._hot.release(hot)
