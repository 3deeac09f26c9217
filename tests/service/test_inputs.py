"""Inputs that move while labels are missing: a warning that lasts, and rows that are counted once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.errors import ConflictError, StoreFullError
from service.store import MemoryStore, SqliteStore, Store
from service.streams import Streams
from service.types import Event
from tests.service.http_case import run_async
from tests.service.streams_case import FailingStore, all_events, batches, crash_copy, learn, opened, state_bytes

BATCH_ROWS = 50
CALM_BATCHES = 6


def inputs(number: int, shift: float = 0.0) -> list[list[float]]:
    """Rows whose feature ``b`` has moved."""
    drawn = np.random.default_rng(number).normal((0.0, shift), size=(BATCH_ROWS, 2))
    return [[round(value, 3) for value in row] for row in drawn.tolist()]


def ids(number: int) -> list[str]:
    """Names of the rows of a batch."""
    return [f"{number}.{row}" for row in range(BATCH_ROWS)]


async def ask(streams: Streams, stream: str, numbers: Sequence[int], shift: float = 0.0) -> None:
    """Predict batches whose labels are to come."""
    for number in numbers:
        await streams.predict(stream, inputs(number, shift), None, ids(number))


async def warnings(streams: Streams, stream: str) -> list[Event]:
    """The events that are about inputs."""
    return [event for event in await all_events(streams, stream) if event.detector == "inputs"]


@run_async
async def test_moved_inputs_warn_without_a_label_and_across_a_crash(tmp_path: Path) -> None:
    """State and event are there after a kill, say which feature moved and how far, and the warning ends by itself."""
    async with opened(SqliteStore(tmp_path / "data")) as streams:
        await streams.put("s", "reg", None, None)
        await ask(streams, "s", range(CALM_BATCHES))
        assert (await streams.get("s")).state == "new"
        await ask(streams, "s", [10], shift=3.0)
        (event,) = await warnings(streams, "s")
        assert (event.kind, event.revision, event.feature, event.action) == ("warning", 0, "b", None)
        assert event.shift == pytest.approx(3.0, abs=1.2)
        assert event.statistic is not None
        assert event.threshold is not None
        assert event.statistic > event.threshold
        info = await streams.get("s")
        assert (info.state, info.stream_version, info.rows_seen, info.last_drift) == ("warning", 0, 0, None)
        copy = crash_copy(tmp_path / "data", "killed")
        await ask(streams, "s", range(11, 15), shift=3.0)
        whole = await state_bytes(streams, "s")
    async with opened(copy) as streams:
        assert await streams.get("s") == info
        assert (await streams.list())[0] == [info]
        assert await warnings(streams, "s") == [event]
        await ask(streams, "s", range(11, 15), shift=3.0)
        assert await state_bytes(streams, "s") == whole
        assert (await streams.get("s")).state == "new"
        assert await warnings(streams, "s") == [event]


async def live_through(streams: Streams, stream: str, first: int) -> None:
    """Rows with labels, rows that wait, late labels of some, rows sent again with their labels, and a reset."""
    await learn(streams, stream, batches(2, rows=20, seed=first))
    await ask(streams, stream, [first, first + 1])
    await streams.labels(stream, ids(first)[:30], [1.0] * 30)
    await streams.feedback(stream, inputs(first)[30:], [2.0] * 20, ids(first)[30:])
    await streams.feedback(stream, [*inputs(first + 1)[:10], [9.0, 9.0]], [2.0] * 11, [*ids(first + 1)[:10], "new"])
    await learn(streams, stream, batches(1, rows=20, seed=first + 1))
    if first % 20 == 0:
        await streams.reset(stream)
        await ask(streams, stream, [first + 2])


@pytest.mark.parametrize("snapshot_rows", [1, 90, 100_000])
@run_async
async def test_what_is_known_of_inputs_is_the_same_after_a_crash(tmp_path: Path, snapshot_rows: int) -> None:
    """However labels and rows without them take turns, wherever the last snapshot was, and with evictions between."""
    plain = MemoryStore()
    async with opened(plain) as streams:
        await streams.put("s", "reg", None, None)
        for first in (0, 10, 20):
            await live_through(streams, "s", first)
        expected = known(plain), await state_bytes(streams, "s")
    store: Store = SqliteStore(tmp_path / "data")
    async with opened(store, snapshot_rows=snapshot_rows, hot_streams_max=1) as streams:
        await streams.put("s", "reg", None, None)
        await streams.put("t", "reg", None, None)
        for first in (0, 10, 20):
            await live_through(streams, "s", first)
            await streams.predict("t", inputs(0)[:1])
        copy = crash_copy(tmp_path / "data", "killed")
    async with opened(copy) as streams:
        assert await state_bytes(streams, "s") == expected[1]
    assert known(SqliteStore(tmp_path / "killed")) == expected[0]


def known(store: Store) -> bytes:
    """What a store keeps of the inputs of ``s``."""
    loaded = store.load("s")
    store.close()
    assert loaded is not None
    assert loaded.watch is not None
    return loaded.watch.data


@run_async
async def test_a_row_counts_when_it_is_kept_and_never_again() -> None:
    """Repeated, refused or failed requests leave the inputs as they were, and so do late labels."""
    store = FailingStore()
    async with opened(store) as streams:
        await streams.put("s", "reg", None, None)
        await ask(streams, "s", [0, 1])
        before = store.load("s")
        await ask(streams, "s", [0, 1])
        with pytest.raises(ConflictError):
            await streams.predict("s", inputs(2), None, [*ids(2)[1:], "0.0"])
        store.error = StoreFullError("no room")
        with pytest.raises(StoreFullError):
            await ask(streams, "s", [2])
        store.error = None
        assert store.load("s") == before
        await streams.labels("s", ids(0), [1.0] * BATCH_ROWS)
        await ask(streams, "s", [2])
        once = store.load("s")
    other = MemoryStore()
    async with opened(other) as streams:
        await streams.put("s", "reg", None, None)
        await ask(streams, "s", [0, 1, 2])
        again = other.load("s")
    assert once is not None
    assert again is not None
    assert once.watch is not None
    assert again.watch is not None
    assert once.watch.data == again.watch.data


@run_async
async def test_labelled_rows_whose_inputs_moved_warn_too() -> None:
    """The event belongs to the revision that learned them; an alarm of the labels keeps its own."""
    async with opened() as streams:
        await streams.put("s", "reg", None, None)
        for number in range(CALM_BATCHES + 1):
            rows = inputs(number, 3.0 if number == CALM_BATCHES else 0.0)
            learned = await streams.feedback("s", rows, [a + b for a, b in rows])
        (event,) = await warnings(streams, "s")
        assert (event.revision, event.feature) == (CALM_BATCHES + 1, "b")
        assert learned.state in {"warning", "drifted"}
        assert (await streams.get("s")).state == learned.state
