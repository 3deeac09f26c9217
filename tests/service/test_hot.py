"""Which streams are in memory, and what coming and going does to them."""

import asyncio
from pathlib import Path

import pytest

from service.errors import NotFoundError, StoreFullError
from service.store import MemoryStore, SqliteStore
from service.streams import Streams
from tests.service.http_case import run_async
from tests.service.streams_case import (
    PROBE,
    Clock,
    FailingStore,
    batches,
    learn,
    opened,
    predictions,
    state_bytes,
)

NAMES = [f"s{number}" for number in range(8)]


async def settled(streams: Streams) -> None:
    """Let evictions and saves that are under way come to their end."""
    while streams._hot._tasks:
        await asyncio.gather(*streams._hot._tasks)


@run_async
async def test_memory_is_bounded_and_nothing_is_forgotten() -> None:
    """Eight streams in the room of three learn and predict like eight in the room of many."""
    async with opened(hot_streams_max=3, snapshot_rows=4) as small, opened() as large:
        for streams in (small, large):
            for name in NAMES:
                await streams.put(name, "reg", None, None)
            for number in range(4):
                await asyncio.gather(*(streams.feedback(name, *batches(4, seed=len(name))[number]) for name in NAMES))
        await settled(small)
        assert len(small._hot) <= 3
        for name in NAMES:
            assert await predictions(small, name) == pytest.approx(await predictions(large, name), rel=1e-5)
            assert (await small.get(name)).stream_version == 4


@run_async
async def test_evicting_and_reloading_keeps_every_byte() -> None:
    """A stream that left memory comes back as it was, also one that has learned since its last snapshot."""
    async with opened(hot_streams_max=1, snapshot_rows=3) as streams:
        for name in NAMES[:2]:
            await streams.put(name, "reg", None, None)
        await learn(streams, "s0", batches(5, rows=1))
        before = await state_bytes(streams, "s0")
        await predictions(streams, "s1")
        await settled(streams)
        assert streams._hot.peek("s0") is None
        assert await state_bytes(streams, "s0") == before


@run_async
async def test_a_stream_in_use_is_not_evicted() -> None:
    """Requests keep what they work with, even if that is more than the limit for a moment."""
    async with opened(hot_streams_max=1) as streams:
        for name in NAMES:
            await streams.put(name, "reg", None, None)
        answers = await asyncio.gather(*(streams.predict(name, PROBE) for name in NAMES for _ in range(3)))
        assert [answer.stream for answer in answers] == [name for name in NAMES for _ in range(3)]
        await settled(streams)
        assert len(streams._hot) <= 1


@run_async
async def test_eviction_on_a_full_disk_loses_nothing() -> None:
    """A snapshot that cannot be written is not needed: the log leads to the same predictions."""
    store = FailingStore()
    async with opened(store, hot_streams_max=1, snapshot_rows=10_000) as streams:
        for name in NAMES[:2]:
            await streams.put(name, "reg", None, None)
        await learn(streams, "s0", batches(12, jump=6))
        before = await predictions(streams, "s0")
        store.error = StoreFullError("full")
        await predictions(streams, "s1")
        await settled(streams)
        assert streams._hot.peek("s0") is None
        assert await predictions(streams, "s0") == pytest.approx(before, rel=1e-5)
        store.error = None
        assert (await streams.feedback("s0", *batches(1)[0])).stream_version == 13


@run_async
async def test_a_snapshot_is_written_every_so_many_rows() -> None:
    """A stream that learns without end has a short way back, and its old entries go when nothing needs them."""
    store, clock = MemoryStore(), Clock()
    async with opened(store, clock=clock, snapshot_rows=6, retained_rows=8, log_days=1) as streams:
        await streams.put("s", "reg", None, None)
        for batch in batches(30):
            clock.now += 3600
            await streams.feedback("s", *batch)
            await settled(streams)
        loaded = store.load("s")
        assert loaded is not None
        assert loaded.snapshot is not None
        assert len(loaded.entries) < 3
        kept = store.entries(loaded.record, 0, 100)
        assert kept[-1].revision == 30
        assert 24 <= len(kept) <= 27  # a day of hours, and those since the last snapshot


@run_async
async def test_cold_streams_cost_nothing_at_start(tmp_path: Path) -> None:
    """Starting loads no stream; the list answers from the snapshots without loading any."""
    async with opened(SqliteStore(tmp_path)) as streams:
        for name in NAMES:
            await streams.put(name, "reg", None, None)
            await learn(streams, name, batches(2))
        before = (await streams.list("", None, 100))[0]
    async with opened(SqliteStore(tmp_path)) as streams:
        assert (await streams.list("", None, 100))[0] == before
        assert len(streams._hot) == 0


@run_async
async def test_deleting_under_load_leaves_nothing_in_memory() -> None:
    """Requests that race a deletion either come before it or find no stream; none brings it back."""
    async with opened() as streams:
        await streams.put("s", "reg", None, None)
        given = batches(10, rows=1)
        answers = await asyncio.gather(
            *(streams.feedback("s", *batch) for batch in given[:5]),
            streams.delete("s"),
            *(streams.feedback("s", *batch) for batch in given[5:]),
            *(streams.predict("s", PROBE) for _ in range(5)),
            return_exceptions=True,
        )
        assert {type(each) for each in answers if isinstance(each, BaseException)} <= {NotFoundError}
        assert len(streams._hot) == 0
        with pytest.raises(NotFoundError):
            await streams.get("s")


@run_async
async def test_changing_settings_under_load_loses_nothing() -> None:
    """Feedback that races a new config is learned before or after it, each batch once."""
    async with opened(hot_streams_max=2) as streams:
        await streams.put("s", "reg", None, None)
        given = batches(12, rows=1)
        await asyncio.gather(
            *(streams.feedback("s", *batch) for batch in given[:6]),
            streams.put("s", "reg", {"detector": "never"}, None),
            *(streams.feedback("s", *batch) for batch in given[6:]),
        )
        info = await streams.get("s")
        assert (info.stream_version, info.rows_seen, info.config) == (12, 12, {"detector": "never"})


@run_async
async def test_an_engine_is_kept_as_long_as_a_stream_uses_it() -> None:
    """Engines of configurations that nobody has any more are forgotten."""
    async with opened(hot_streams_max=1) as streams:
        for number, name in enumerate(NAMES):
            await streams.put(name, "reg", {"alarms_per_1000": 0.1 * (number + 1)}, None)
            await predictions(streams, name)
        await settled(streams)
        assert len(streams._engines._engines) <= 1
