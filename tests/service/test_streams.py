"""Streams as a client sees them: answers, revisions, duplicates, events, settings."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import InputError
from service.config import Settings
from service.errors import ConflictError, InvalidError, NotFoundError, SaturatedError, UnavailableError
from service.store import MemoryStore
from service.streams import Streams
from service.types import Learned
from tests.models.examples import hasty_model
from tests.service.http_case import run_async
from tests.service.streams_case import PROBE, Clock, all_events, batches, learn, opened, predictions


@run_async
async def test_a_stream_is_created_once_and_then_confirmed() -> None:
    """201 once, 200 afterwards; it starts at revision 0 with the answer of the frozen start."""
    async with opened() as streams:
        info, created = await streams.put("s", "reg", None, {"shop": 7})
        assert created
        assert (info.stream_version, info.rows_seen, info.state, info.loss) == (0, 0, "new", None)
        assert (info.model, info.model_version, info.metadata) == ("reg", 1, {"shop": 7})
        again, created = await streams.put("s", "reg", None, None)
        assert not created
        assert again == info
        frozen = await streams.predict_initial("reg", PROBE)
        assert await predictions(streams, "s") == frozen.predictions
        assert (frozen.stream, frozen.stream_version) == (None, 0)


@run_async
async def test_wrong_names_are_refused() -> None:
    """Unknown model, unknown stream, another model for a known stream."""
    async with opened() as streams:
        await streams.put("s", "reg", None, None)
        with pytest.raises(NotFoundError, match="no model"):
            await streams.put("t", "nope", None, None)
        with pytest.raises(ConflictError, match="bound to model reg"):
            await streams.put("s", "cls", None, None)
        for attempt in (
            streams.get("t"),
            streams.predict("t", PROBE),
            streams.feedback("t", PROBE, [1.0, 2.0, 3.0]),
            streams.reset("t"),
            streams.delete("t"),
            streams.events("t"),
        ):
            with pytest.raises(NotFoundError, match="There is no stream t"):
                await attempt


@run_async
async def test_feedback_counts_rows_and_revisions() -> None:
    """One revision a batch, whatever its size; the answer and the stream agree."""
    async with opened() as streams:
        await streams.put("s", "reg", None, None)
        answers = await learn(streams, "s", batches(3, rows=4))
        assert [(each.accepted, each.rows_seen, each.stream_version) for each in answers] == [
            (4, 4, 1),
            (4, 8, 2),
            (4, 12, 3),
        ]
        assert all(each.loss is not None and each.initial_score is not None for each in answers)
        info = await streams.get("s")
        assert (info.stream_version, info.rows_seen) == (3, 12)
        assert (await streams.predict("s", PROBE)).stream_version == 3


@run_async
async def test_predictions_of_feedback_are_those_before_learning() -> None:
    """``made`` is what predict would have answered just before; interval, probabilities and std have a row each."""
    async with opened() as streams:
        await streams.put("r", "reg", None, None)
        await streams.put("c", "cls", None, None)
        await learn(streams, "r", batches(4))
        await learn(streams, "c", batches(4, task="cls"))
        for stream, labels in (("r", [1.0, 2.0, 3.0]), ("c", ["yes", "no", "yes"])):
            before = await streams.predict(stream, PROBE, 0.9)
            answer = await streams.feedback(stream, PROBE, labels)
            assert answer.made is not None
            assert answer.made.predictions == before.predictions
            assert answer.made.probabilities == before.probabilities
            assert answer.made.std == before.std
        assert (await streams.predict("r", PROBE, 0.9)).intervals is not None
        assert (await streams.predict("c", PROBE)).classes == ["no", "yes"]


@run_async
async def test_a_row_is_learned_once() -> None:
    """A known id is skipped and counted, in a later batch and within one; the others of the batch are learned."""
    async with opened() as streams:
        for stream in ("s", "plain"):
            await streams.put(stream, "reg", None, None)
        first = await streams.feedback("s", PROBE, [1.0, 2.0, 3.0], ["a", "b", "a"])
        assert (first.accepted, first.duplicates, first.rows_seen) == (2, 1, 2)
        second = await streams.feedback("s", PROBE, [9.0, 2.5, 9.0], ["b", "c", "a"])
        assert (second.accepted, second.duplicates, second.stream_version) == (1, 2, 2)
        assert second.made is not None
        assert [value is None for value in second.made.predictions] == [True, False, True]
        await streams.feedback("plain", PROBE[:2], [1.0, 2.0])
        await streams.feedback("plain", PROBE[1:2], [2.5])
        assert await predictions(streams, "s") == await predictions(streams, "plain")


@run_async
async def test_duplicates_alone_change_nothing() -> None:
    """No revision, no commit time, no state."""
    clock = Clock()
    async with opened(clock=clock) as streams:
        await streams.put("s", "reg", None, None)
        await streams.feedback("s", PROBE[:1], [1.0], ["a"])
        before, answered = await streams.get("s"), await predictions(streams, "s")
        clock.now += 10
        again = await streams.feedback("s", PROBE[:1], [5.0], ["a"])
        assert (again.accepted, again.duplicates, again.stream_version, again.loss) == (0, 1, 1, None)
        assert await streams.get("s") == before
        assert await predictions(streams, "s") == answered


@run_async
async def test_ids_are_known_for_the_retained_rows() -> None:
    """After ``retained_rows`` further rows an id may be learned again."""
    async with opened(retained_rows=4) as streams:
        await streams.put("s", "reg", None, None)
        await streams.feedback("s", PROBE[:1], [1.0], ["a"])
        await learn(streams, "s", batches(1, rows=3))
        assert (await streams.feedback("s", PROBE[:1], [1.0], ["a"])).duplicates == 1
        await learn(streams, "s", batches(1, rows=1))
        assert (await streams.feedback("s", PROBE[:1], [1.0], ["a"])).accepted == 1


@run_async
async def test_a_bad_row_is_named_and_nothing_is_learned() -> None:
    """The whole batch is refused with the place; other streams of the same tick go on."""
    async with opened() as streams:
        for stream in ("a", "b", "c"):
            await streams.put(stream, "reg", None, None)
        answers = await asyncio.gather(
            streams.feedback("a", [[1.0, 2.0]], [1.0]),
            streams.feedback("b", [[1.0, 2.0], [1.0, float("nan")]], [1.0, 1.0]),
            streams.feedback("c", [[1.0, 2.0]], ["text"]),
            return_exceptions=True,
        )
        assert isinstance(answers[0], Learned)
        assert isinstance(answers[1], InputError)
        assert answers[1].loc[:2] == ("inputs", 1)
        assert isinstance(answers[2], InputError)
        assert answers[2].loc == ("targets", 0)
        assert [(await streams.get(stream)).stream_version for stream in ("a", "b", "c")] == [1, 0, 0]


@run_async
async def test_lists_of_different_lengths_are_refused() -> None:
    """Targets, ids and times have one entry a row."""
    async with opened() as streams:
        await streams.put("s", "reg", None, None)
        right: dict[str, Any] = {"inputs": PROBE, "targets": [1.0, 2.0, 3.0]}
        for name, value in (("targets", [1.0]), ("ids", ["a"]), ("times", [1.0]), ("inputs", [])):
            with pytest.raises(InvalidError):
                await streams.feedback("s", **(right | {name: value}))


@run_async
async def test_concurrent_feedback_of_a_stream_is_applied_in_order() -> None:
    """Requests that wait together are learned one after another, as they came, like one client's."""
    given = batches(12, rows=1)
    async with opened() as streams:
        await streams.put("many", "reg", None, None)
        await streams.put("one", "reg", None, None)
        answers = await asyncio.gather(*(streams.feedback("many", *batch) for batch in given))
        assert [each.stream_version for each in answers] == list(range(1, 13))
        await learn(streams, "one", given)
        assert await predictions(streams, "many") == pytest.approx(await predictions(streams, "one"), rel=1e-5)


@run_async
async def test_a_jump_raises_an_alarm_that_is_told_everywhere() -> None:
    """The answer, the events and the stream tell of one alarm, with the row where the change is estimated."""
    jump, rows = 30, 2
    async with opened() as streams:
        await streams.put("s", "reg", None, None)
        answers = await learn(streams, "s", batches(60, rows, jump=jump))
        alarms = [each for each in answers if each.drift is not None]
        assert alarms
        drift = alarms[0].drift
        assert drift is not None
        assert (drift.stream, drift.revision, drift.kind) == ("s", alarms[0].stream_version, "drift")
        assert (drift.detector, drift.action) == ("llr_cusum", "readapt")
        assert (drift.statistic or 0) >= (drift.threshold or 0) > 0
        assert jump * rows - 10 <= (drift.change_row or 0) <= alarms[0].rows_seen
        assert 0 < (drift.rows_used or 0) <= alarms[0].rows_seen
        assert alarms[0].state == "drifted"
        events = await all_events(streams, "s")
        assert [event for event in events if event.kind == "drift"] == [each.drift for each in alarms]
        assert [int(event.id) for event in events] == sorted({int(event.id) for event in events})
        assert (await streams.get("s")).last_drift == alarms[-1].drift
        page, cursor = await streams.events("s", None, 1)
        assert page == events[:1]
        assert cursor == (events[0].id if len(events) > 1 else None)
        assert (await streams.events("s", events[-1].id, 10)) == ([], None)


@run_async
async def test_a_stream_that_does_worse_than_the_frozen_start_is_served_that_and_says_so() -> None:
    """By an event, in its state, and after a replay of its log alike; a reset ends it."""
    rng, store = np.random.default_rng(0), MemoryStore()
    given = {"hasty": hasty_model()}
    async with opened(store, given=given, snapshot_rows=100_000) as streams:
        await streams.put("s", "hasty", None, None)
        for _ in range(100):
            inputs = rng.normal(size=(4, 2)).tolist()
            start = (await streams.predict_initial("hasty", inputs)).predictions
            noise = rng.normal(size=4).tolist()
            await streams.feedback("s", inputs, [value + by for value, by in zip(start, noise, strict=True)])
        (event,) = await all_events(streams, "s")
        assert (event.kind, event.action, event.detector) == ("revert", "initial", None)
        assert event.statistic is not None
        assert event.threshold is not None
        assert event.statistic > event.threshold > 0
        info = await streams.get("s")
        assert (info.serving, info.last_drift) == ("initial", None)
        served = await streams.predict("s", PROBE)
        assert served.predictions == (await streams.predict_initial("hasty", PROBE)).predictions
        assert not served.adapted
        again = Streams(Settings(data_dir=Path("unused")), store, given, Clock())
        await again.start()
        assert (await again.get("s")).serving == "initial"
        assert (await again.predict("s", PROBE)).predictions == served.predictions
        assert (await streams.reset("s")).serving == "adapted"


@run_async
async def test_reset_is_one_revision_and_keeps_counts() -> None:
    """Back to the meta-initialization: rows seen stay, the state of a new stream comes back, an event tells."""
    async with opened() as streams:
        await streams.put("s", "cls", None, None)
        frozen = await predictions(streams, "s")
        await learn(streams, "s", batches(10, task="cls"))
        info = await streams.reset("s")
        assert (info.stream_version, info.rows_seen) == (11, 20)
        assert await predictions(streams, "s") == frozen
        event = (await all_events(streams, "s"))[-1]
        assert (event.kind, event.revision, event.change_row) == ("reset", 11, None)


@run_async
async def test_a_new_config_is_applied_and_the_revision_stays() -> None:
    """Where both configs keep the same things the state is taken over; where not, retained rows are learned again."""
    async with opened() as streams:
        await streams.put("s", "reg", None, None)
        await learn(streams, "s", batches(20))
        before = await predictions(streams, "s")
        info, created = await streams.put("s", "reg", {"alarms_per_1000": 0.5}, None)
        assert not created
        assert (info.config, info.stream_version, info.rows_seen) == ({"alarms_per_1000": 0.5}, 20, 40)
        assert await predictions(streams, "s") == before
        info, _ = await streams.put("s", "reg", {"detector": "page_hinkley"}, {"k": 1})
        assert (info.config, info.metadata, info.stream_version) == ({"detector": "page_hinkley"}, {"k": 1}, 20)
        assert await predictions(streams, "s") == pytest.approx(before, rel=1e-2)  # the challenger has another share
        assert (await streams.put("s", "reg", {}, None))[0].config == {}
        await learn(streams, "s", batches(1))


@run_async
async def test_a_config_that_the_model_does_not_take_is_refused() -> None:
    """422 for an unknown field, an unknown detector or a setting that the detector lacks; nothing is created."""
    async with opened() as streams:
        for config in ({"colour": 1}, {"detector": "nope"}, {"detector": "never", "alarms_per_1000": 1.0}):
            with pytest.raises((InputError, InvalidError), match="config"):
                await streams.put("s", "reg", config, None)
        with pytest.raises(NotFoundError):
            await streams.get("s")


@run_async
async def test_a_deleted_stream_starts_anew() -> None:
    """After deletion the name is free: revision 0, no rows, no events, and its ids may be learned again."""
    async with opened() as streams:
        await streams.put("s", "reg", None, None)
        await streams.feedback("s", PROBE[:1], [1.0], ["a"])
        await streams.reset("s")
        await streams.delete("s")
        with pytest.raises(NotFoundError):
            await streams.predict("s", PROBE)
        info, created = await streams.put("s", "reg", None, None)
        assert created
        assert (info.stream_version, info.rows_seen) == (0, 0)
        assert await all_events(streams, "s") == []
        assert (await streams.feedback("s", PROBE[:1], [1.0], ["a"])).accepted == 1


@run_async
async def test_lists_give_every_stream_once() -> None:
    """Pages follow each other by the cursor; prefix and model select; each item is what get answers."""
    async with opened() as streams:
        names = [f"shop-{number}" for number in range(5)] + ["other"]
        for name in names:
            await streams.put(name, "cls" if name == "other" else "reg", None, None)
        await learn(streams, "shop-2", batches(2))
        found, cursor = [], None
        while True:
            page, cursor = await streams.list("", None, 2, cursor)
            found += page
            if cursor is None:
                break
        assert [info.stream for info in found] == sorted(names)
        assert found[3] == await streams.get("shop-2")
        assert [info.stream for info in (await streams.list("", "cls", 10))[0]] == ["other"]
        assert len((await streams.list("shop", None, 10))[0]) == 5


@run_async
async def test_a_full_queue_is_429_and_a_closed_service_is_503() -> None:
    """Neither loses what was taken."""
    async with opened(queue_items_max=2) as streams:
        await streams.put("s", "reg", None, None)
        await predictions(streams, "s")
        answers = await asyncio.gather(
            *(streams.feedback("s", *batch) for batch in batches(8, rows=1)), return_exceptions=True
        )
        learned = [each for each in answers if isinstance(each, Learned)]
        assert {type(each) for each in answers} == {Learned, SaturatedError}
        assert (await streams.get("s")).stream_version == len(learned)
    with pytest.raises(UnavailableError):
        await streams.predict("s", PROBE)
    assert not streams.ready
