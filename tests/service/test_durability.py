"""What was acknowledged is there, and what was not committed is never served."""

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import NotFoundError, StoreFullError, UnavailableError
from service.store import DamagedError, MemoryStore, SqliteStore
from service.streams import Streams
from service.types import Learned
from tests.models.examples import small_model
from tests.service.http_case import run_async
from tests.service.streams_case import (
    PROBE,
    Clock,
    FailingStore,
    WaitingStore,
    all_events,
    batches,
    crash_copy,
    learn,
    models,
    opened,
    predictions,
    state_bytes,
)


@run_async
async def test_new_state_is_served_only_after_its_commit() -> None:
    """While a commit hangs, predictions are answered at once, from the state before it."""
    store = WaitingStore()
    async with opened(store) as streams:
        await streams.put("s", "reg", None, None)
        await learn(streams, "s", batches(3))
        before = await streams.predict("s", PROBE)
        store.gate.clear()
        store.begun.clear()
        pending = asyncio.create_task(streams.feedback("s", PROBE, [5.0, 5.0, 5.0]))
        await asyncio.to_thread(store.begun.wait, 30)
        assert await streams.predict("s", PROBE) == before
        assert not pending.done()
        store.gate.set()
        assert (await pending).stream_version == 4
        after = await streams.predict("s", PROBE)
        assert after.stream_version == 4
        assert after.predictions != before.predictions


@pytest.mark.parametrize("error", [StoreFullError("full"), UnavailableError("broken")])
def test_a_failed_commit_changes_nothing(error: StoreFullError | UnavailableError) -> None:
    """Every item of the tick gets the error; state, revision and ids are as before; later everything goes through."""

    async def scenario() -> None:
        store = FailingStore()
        async with opened(store) as streams:
            for stream in ("a", "b"):
                await streams.put(stream, "reg", None, None)
                await learn(streams, stream, batches(2))
            before = [await state_bytes(streams, stream) for stream in ("a", "b")]
            store.error = error
            answers = await asyncio.gather(
                *(streams.feedback(stream, PROBE[:1], [9.0], ["x"]) for stream in ("a", "b")), return_exceptions=True
            )
            assert answers == [error, error]
            assert (await streams.predict("a", PROBE)).stream_version == 2
            assert [await state_bytes(streams, stream) for stream in ("a", "b")] == before
            store.error = None
            assert (await streams.feedback("a", PROBE[:1], [9.0], ["x"])).stream_version == 3

    asyncio.run(scenario())


@run_async
async def test_a_writer_that_is_out_of_date_reloads_and_retries() -> None:
    """Two services over one store: neither loses the other's rows, and both end at the same revision."""
    store = MemoryStore()
    async with opened(store) as first, opened(store) as second:
        await first.put("s", "reg", None, None)
        given = batches(6)
        for number, batch in enumerate(given):
            await (first, second)[number % 2].feedback("s", *batch)
        assert (await first.feedback("s", *batches(1, seed=9)[0])).stream_version == 7
        assert (await second.get("s")).stream_version == 6  # a cache may be behind, a write may not
        assert (await second.feedback("s", *batches(1, seed=8)[0])).stream_version == 8
        await first.delete("s")
        with pytest.raises(NotFoundError):
            await second.feedback("s", *batches(1)[0])


@run_async
async def test_everything_acknowledged_is_there_after_a_crash(tmp_path: Path) -> None:
    """Rows, revisions, alarms and events exactly, predictions within 1e-5; streams that nobody asks for stay cold."""
    data_dir = tmp_path / "data"
    names = [f"s{number}" for number in range(4)]
    async with opened(SqliteStore(data_dir), snapshot_rows=7) as streams:
        for name in names:
            await streams.put(name, "cls" if name == "s0" else "reg", None, None)
            task = "cls" if name == "s0" else "reg"
            await learn(streams, name, batches(20, seed=int(name[1]), jump=10, task=task))
        await streams.reset("s3")
        await learn(streams, "s3", batches(3))
        infos = [await streams.get(name) for name in names]
        events = [await all_events(streams, name) for name in names]
        answers = [await streams.predict(name, PROBE) for name in names]
        recovered = crash_copy(data_dir, "copy")
    async with opened(recovered) as streams:
        assert len(streams._hot) == 0
        for name, info, expected, before in zip(names, infos, events, answers, strict=True):
            now = await streams.get(name)
            assert now.loss == pytest.approx(info.loss, rel=1e-4)
            assert now.score == pytest.approx(info.score, rel=1e-4)
            assert (now.stream_version, now.rows_seen, now.state) == (info.stream_version, info.rows_seen, info.state)
            assert (now.last_drift, now.updated_at) == (info.last_drift, info.updated_at)
            assert await all_events(streams, name) == expected
            after = await streams.predict(name, PROBE)
            assert after.stream_version == before.stream_version
            if name == "s0":
                assert after.predictions == before.predictions
            else:
                assert after.predictions == pytest.approx(before.predictions, rel=1e-5)
                assert after.std == pytest.approx(before.std, rel=1e-5)
    assert sum(len(each) for each in events) > len(names)


@run_async
async def test_an_orderly_end_keeps_every_byte(tmp_path: Path) -> None:
    """Closing saves what has changed: the state afterwards is the state before, byte for byte, ids included."""
    async with opened(SqliteStore(tmp_path)) as streams:
        await streams.put("s", "reg", {"alarms_per_1000": 0.5}, {"a": [1, None, "ü"]})
        await learn(streams, "s", batches(9))
        await streams.feedback("s", PROBE[:1], [1.0], ["seen"], [12.5])
        info, before = await streams.get("s"), await state_bytes(streams, "s")
    async with opened(SqliteStore(tmp_path)) as streams:
        assert await streams.get("s") == info
        assert len(streams._hot) == 0
        assert await state_bytes(streams, "s") == before
        assert (await streams.feedback("s", PROBE[:1], [1.0], ["seen"])).duplicates == 1


@run_async
async def test_a_config_change_survives_a_crash(tmp_path: Path) -> None:
    """Entries learned before and after a change of config lead to the same state again."""
    async with opened(SqliteStore(tmp_path / "data")) as streams:
        await streams.put("s", "reg", None, None)
        await learn(streams, "s", batches(10, jump=5))
        await streams.put("s", "reg", {"detector": "page_hinkley"}, None)
        await learn(streams, "s", batches(5, seed=3))
        before = await predictions(streams, "s")
        recovered = crash_copy(tmp_path / "data", "copy")
    async with opened(recovered) as streams:
        assert (await streams.get("s")).config == {"detector": "page_hinkley"}
        assert await predictions(streams, "s") == pytest.approx(before, rel=1e-5)


@run_async
async def test_a_clock_that_jumps_back_keeps_times_in_order() -> None:
    """Commit times never go back within a stream."""
    clock = Clock()
    async with opened(clock=clock) as streams:
        await streams.put("s", "reg", None, None)
        times = []
        for step in (5.0, -86_400.0, 3.0):
            clock.now += step
            await streams.reset("s")
            times.append((await streams.get("s")).updated_at)
        assert times == sorted(times)
        assert [event.at for event in await all_events(streams, "s")] == times


@run_async
async def test_a_damaged_stream_is_reported_and_the_others_are_served(tmp_path: Path) -> None:
    """The error names stream and revision; the stream may be deleted."""
    async with opened(SqliteStore(tmp_path)) as streams:
        for stream in ("bad", "good"):
            await streams.put(stream, "reg", None, None)
            await learn(streams, stream, batches(3))
    with sqlite3.connect(tmp_path / "streams.sqlite3") as connection:
        connection.execute("DELETE FROM snapshots")
        connection.execute("UPDATE entries SET payload=CAST('{}' AS BLOB) WHERE stream=1 AND revision=2")
    connection.close()
    async with opened(SqliteStore(tmp_path)) as streams:
        answers = await asyncio.gather(
            streams.predict("bad", PROBE), streams.predict("good", PROBE), return_exceptions=True
        )
        assert isinstance(answers[0], DamagedError)
        assert (answers[0].stream, answers[0].revision) == ("bad", 2)
        assert not isinstance(answers[1], BaseException)
        with pytest.raises(DamagedError, match="stream bad is damaged at revision 2"):
            await streams.feedback("bad", *batches(1)[0])
        await streams.delete("bad")
        assert (await streams.put("bad", "reg", None, None))[1]


@run_async
async def test_versions_of_a_model_are_told_apart_by_their_bytes(tmp_path: Path) -> None:
    """The same bundle keeps its number over restarts; a changed one is the next, active only if asked for."""
    other = models() | {"reg": small_model("regression", name="changed")}
    async with opened(SqliteStore(tmp_path)) as streams:
        await streams.put("old", "reg", None, None)
        await learn(streams, "old", batches(3))
        before = await predictions(streams, "old")
    async with opened(SqliteStore(tmp_path), given=other) as streams:
        info = streams.model("reg")
        assert (info.versions, info.active_version) == ([1, 2], 1)
        assert await predictions(streams, "old") == before
    async with opened(SqliteStore(tmp_path), given=other, activate=True) as streams:
        assert streams.model("reg").active_version == 2
        assert (await streams.put("new", "reg", None, None))[0].model_version == 2
        await streams._activation.done()
        assert (await streams.get("old")).model_version == 2
    async with opened(SqliteStore(tmp_path), given={}) as streams:
        assert [info.versions for info in streams.models()] == [[1], [1, 2]]
        assert (await streams.predict("old", PROBE)).model_version == 2
        assert (await streams.predict("new", PROBE)).model_version == 2


@run_async
async def test_a_stored_bundle_that_was_altered_is_not_served(tmp_path: Path) -> None:
    """The digest of a version's bytes is checked when they are read."""
    async with opened(SqliteStore(tmp_path)):
        pass
    with sqlite3.connect(tmp_path / "streams.sqlite3") as connection:
        connection.execute("UPDATE models SET bundle=CAST('x' AS BLOB) WHERE name='reg'")
    connection.close()
    store = SqliteStore(tmp_path)
    with pytest.raises(DamagedError, match="model reg, version 1"):
        async with opened(store, given={}):
            pass
    store.close()


Step = tuple[str, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(("learn", "learn", "keep", "label", "again", "reset", "crash", "delete")), st.integers(0, 3)
    ),
    max_size=22,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
def test_crashes_and_evictions_change_nothing(plan: list[Step], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any sequence of feedback, late labels, repeats, resets and deletions ends alike with and without crashes."""
    directory = tmp_path_factory.mktemp("crashes")
    rough = asyncio.run(run_plan(plan, directory, crashing=True))
    smooth = asyncio.run(run_plan(plan, directory, crashing=False))
    assert rough.keys() == smooth.keys()
    for stream, (facts, answers) in smooth.items():
        assert rough[stream][0] == facts
        assert rough[stream][1] == pytest.approx(answers, rel=1e-5, abs=1e-6)


async def run_plan(plan: list[Step], directory: Path, *, crashing: bool) -> dict[str, tuple[object, list[float]]]:
    """Where each stream stands at the end of a plan, and what it predicts."""
    limits: dict[str, Any] = {"hot_streams_max": 2, "snapshot_rows": 5} if crashing else {}
    place = directory / f"{crashing}-start"
    remaining = list(enumerate(plan))
    while True:
        async with opened(SqliteStore(place), **limits) as streams:
            while remaining and remaining[0][1][0] != "crash":
                number, (what, which) = remaining.pop(0)
                await take_step(streams, what, f"s{which}", number)
            if not remaining:
                infos = (await streams.list("", None, 100))[0]
                found: dict[str, tuple[object, list[float]]] = {}
                for info in infos:
                    facts = (info.stream_version, info.rows_seen, info.state, info.window_rows)
                    kinds = [(e.kind, e.revision, e.change_row) for e in await all_events(streams, info.stream)]
                    found[info.stream] = ((facts, kinds), await predictions(streams, info.stream))
                return found
            number, _ = remaining.pop(0)
            if crashing:
                crash_copy(place, f"crashed-{number}").close()
                place = directory / f"crashed-{number}"


async def take_step(streams: Streams, what: str, stream: str, number: int) -> None:
    """One step of a plan."""
    await streams.put(stream, "reg", None, None)
    inputs, targets = batches(1, rows=1 + number % 3, seed=number, jump=0 if number % 5 == 4 else None)[0]
    if what in {"learn", "again"}:
        ids = [f"{number if what == 'learn' else 0}-{row}" for row in range(len(inputs))]
        assert isinstance(await streams.feedback(stream, inputs, targets, ids), Learned)
    elif what == "keep":
        await streams.predict(stream, inputs, None, [f"late-{number}-{row}" for row in range(len(inputs))])
    elif what == "label":
        ids = [f"late-{earlier}-0" for earlier in range(number)]
        if ids:
            await streams.labels(stream, ids, [0.5] * len(ids))
    elif what == "reset":
        await streams.reset(stream)
    elif what == "delete":
        await streams.delete(stream)


def test_a_closed_service_leaves_no_thread_behind() -> None:
    """Every thread that was started has ended."""

    async def scenario() -> None:
        async with opened() as streams:
            await streams.put("s", "reg", None, None)
            await learn(streams, "s", batches(1))
            await predictions(streams, "s")

    before = threading.active_count()
    asyncio.run(scenario())
    assert threading.active_count() == before
