"""Labels that come late: kept rows, the answer given then, and what is learned when the label comes."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import Engine, Feedback, InputError
from service.errors import ConflictError, InvalidError, NotFoundError, StoreFullError
from service.store import MemoryStore, SqliteStore
from service.streams import Streams
from tests.service.http_case import run_async
from tests.service.streams_case import (
    PROBE,
    Clock,
    FailingStore,
    WaitingStore,
    batches,
    crash_copy,
    learn,
    models,
    opened,
    predictions,
    state_bytes,
)

DAY_SECONDS = 86_400.0
IDS = ["a", "b", "c"]
LABELS = [1.0, 2.0, 3.0]


async def fresh(streams: Streams, *names: str, model: str = "reg") -> None:
    """Streams that have learned a little."""
    for name in names:
        await streams.put(name, model, None, None)
        await learn(streams, name, batches(4, task=model))


def logged(store: MemoryStore, stream: str) -> list[tuple[str, int]]:
    """Kind and rows of each log entry."""
    loaded = store.load(stream)
    assert loaded is not None
    return [(entry.kind, entry.rows) for entry in store.entries(loaded.record, 0, 100)]


@run_async
async def test_keeping_a_row_changes_nothing_about_the_stream() -> None:
    """The answer is that of a plain predict; the revision stays, and so does what is answered later."""
    async with opened() as streams:
        await fresh(streams, "s")
        plain = await streams.predict("s", PROBE, 0.9)
        info = await streams.get("s")
        assert await streams.predict("s", PROBE, 0.9, IDS) == plain
        assert await streams.predict("s", PROBE, 0.9) == plain
        assert await streams.get("s") == info


@pytest.mark.parametrize("model", ["reg", "cls"])
@run_async
async def test_late_labels_are_scored_as_predicted_and_learned_as_they_come(model: str) -> None:
    """Loss and score are those of the answer given then; the state is that of an engine which learns the kept rows
    with the lag values of prediction time; the log says what it was.
    """
    labels: list[Any] = LABELS if model == "reg" else ["yes", "no", "yes"]
    store = MemoryStore()
    async with opened(store) as streams:
        await fresh(streams, "s", model=model)
        kept = await streams.predict("s", PROBE, None, IDS)
        await learn(streams, "s", batches(6, seed=5, task=model))
        answer = await streams.labels("s", ["c", "a", "b"], [labels[2], labels[0], labels[1]])
        assert (answer.accepted, answer.duplicates, answer.unknown) == (3, 0, [])
        assert (answer.stream_version, answer.rows_seen) == (11, 23)
        if model == "reg":
            assert kept.std is not None
            assert answer.score == pytest.approx(np.abs(np.array(kept.predictions) - labels).mean())
            deviation = (np.array(kept.predictions) - labels) / kept.std
            normal = 0.5 * deviation**2 + np.log(kept.std) + 0.5 * np.log(2 * np.pi)
            assert answer.loss == pytest.approx(normal.mean())
        else:
            assert kept.probabilities is not None
            assert kept.classes is not None
            chosen = [row[kept.classes.index(label)] for row, label in zip(kept.probabilities, labels, strict=True)]
            assert answer.loss == pytest.approx(-np.log(chosen).mean())
            assert answer.score == np.mean([p == label for p, label in zip(kept.predictions, labels, strict=True)])
        assert (await streams.get("s")).stream_version == 11
        assert logged(store, "s")[-1] == ("labels", 3)
        expected = by_hand(model, [PROBE[index] for index in (2, 0, 1)], [labels[index] for index in (2, 0, 1)])
        assert await predictions(streams, "s") == expected


def by_hand(model: str, rows: Sequence[Sequence[float]], labels: Sequence[Any]) -> list[Any]:
    """What an engine predicts that learned four batches, kept the lag values, learned six, and then the rows."""
    engine = Engine(models()[model])
    slot = engine.create()

    def teach(inputs: Sequence[Any], targets: Sequence[Any], lags: Any = None) -> None:
        given = Feedback(slot, engine.encode_inputs(inputs), engine.encode_targets(targets), lags)
        engine.apply(engine.step([given]))

    for batch in batches(4, task=model):
        teach(*batch)
    lags = engine.predict([(slot, engine.encode_inputs(rows))])[0].asked
    for batch in batches(6, seed=5, task=model):
        teach(*batch)
    teach(rows, labels, lags)
    return engine.predict([(slot, engine.encode_inputs(PROBE))])[0].predictions


@run_async
async def test_unknown_and_learned_ids_are_reported_and_the_rest_is_taken() -> None:
    """Each id that waits for nothing is listed, each that was learned is counted, in one revision."""
    async with opened() as streams:
        await fresh(streams, "s")
        await streams.predict("s", PROBE, None, IDS)
        first = await streams.labels("s", ["a", "x", "b", "a"], [1.0, 9.0, 2.0, 9.0])
        assert (first.accepted, first.duplicates, first.unknown, first.stream_version) == (2, 1, ["x"], 5)
        again = await streams.labels("s", ["a", "y", "b"], [1.0, 9.0, 2.0])
        assert (again.accepted, again.duplicates, again.unknown, again.stream_version) == (0, 2, ["y"], 5)
        assert (again.loss, again.score) == (None, None)
        assert (await streams.labels("s", ["c"], [3.0])).accepted == 1
        learned = await streams.feedback("s", PROBE[:1], [1.0], ["b"])
        assert (learned.accepted, learned.duplicates) == (0, 1)


@run_async
async def test_a_repeated_predict_is_answered_as_before() -> None:
    """The stored answer with its revision, whatever was learned since; new rows of the same request are predicted."""
    async with opened() as streams:
        await fresh(streams, "s")
        first = await streams.predict("s", PROBE[:2], 0.8, IDS[:2])
        await learn(streams, "s", batches(3, seed=9))
        assert await streams.predict("s", PROBE[:2], 0.8, IDS[:2]) == first
        more = await streams.predict("s", PROBE, 0.8, IDS)
        assert more.predictions[:2] == first.predictions
        assert more.stream_version == 7
        now = await streams.predict("s", PROBE, 0.8)
        assert (more.predictions[2], more.intervals and more.intervals[2]) == (
            now.predictions[2],
            now.intervals and now.intervals[2],
        )
        both = await asyncio.gather(*(streams.predict("s", PROBE[:1], None, ["d"]) for _ in range(3)))
        assert both[0] == both[1] == both[2]


@run_async
async def test_an_id_is_one_row() -> None:
    """Other inputs, another interval, or a row that was learned under the id: 409, and nothing is kept or replaced."""
    async with opened() as streams:
        await fresh(streams, "s")
        first = await streams.predict("s", PROBE[:1], None, ["a"])
        await streams.feedback("s", PROBE[:1], [1.0], ["old"])
        for inputs, ids, interval, named in (
            (PROBE[1:], ["new", "a"], None, "Id a waits"),
            (PROBE[:1], ["a"], 0.5, "Id a waits"),
            (PROBE[:2], ["new", "old"], None, "Id old was learned"),
        ):
            with pytest.raises(ConflictError, match=named):
                await streams.predict("s", inputs, interval, ids)
        assert await streams.predict("s", PROBE[:1], None, ["a"]) == first
        assert (await streams.labels("s", ["new"], [1.0])).unknown == ["new"]
        assert (await streams.labels("s", ["a"], [1.0])).accepted == 1
        with pytest.raises(ConflictError, match="Id a was learned"):
            await streams.predict("s", PROBE[:1], None, ["a"])


@run_async
async def test_ids_that_are_not_one_a_row_are_refused() -> None:
    """Too few, twice the same, more than a stream keeps; a bad row is named as ever, and an unknown stream too."""
    async with opened(pending_rows_max=2) as streams:
        await fresh(streams, "s")
        for ids, place in ((["a"], ("ids",)), (["a", "a"], ("ids", 1))):
            with pytest.raises(InvalidError) as caught:
                await streams.predict("s", PROBE[:2], None, ids)
            assert caught.value.errors[0].loc == place
        with pytest.raises(InvalidError, match="at most 2 rows"):
            await streams.predict("s", PROBE, None, IDS)
        with pytest.raises(InputError):
            await streams.predict("s", [PROBE[0], [1.0, "x"]], None, ["a", "b"])
        with pytest.raises(NotFoundError):
            await streams.predict("t", PROBE[:1], None, ["a"])
        with pytest.raises(NotFoundError):
            await streams.labels("t", ["a"], [1.0])
        assert (await streams.labels("s", ["a"], [1.0])).unknown == ["a"]


@run_async
async def test_a_bad_label_is_named_and_nothing_is_learned() -> None:
    """By its place among the labels, also where its id waits for nothing."""
    async with opened() as streams:
        await fresh(streams, "s")
        await streams.predict("s", PROBE, None, IDS)
        with pytest.raises(InputError) as caught:
            await streams.labels("s", ["a", "x"], [1.0, "text"])
        assert caught.value.loc == ("labels", 1, "target")
        with pytest.raises(InvalidError):
            await streams.labels("s", ["a"], [])
        assert (await streams.get("s")).stream_version == 4
        assert (await streams.labels("s", ["a"], [1.0])).accepted == 1


@run_async
async def test_predictions_wait_for_so_many_days_and_rows() -> None:
    """Then their ids are unknown and free again; the oldest go first."""
    clock = Clock()
    async with opened(clock=clock, pending_days=2, pending_rows_max=3) as streams:
        await fresh(streams, "s")
        await streams.predict("s", PROBE[:2], None, ["a", "b"])
        clock.now += DAY_SECONDS
        await streams.predict("s", PROBE[:2], None, ["c", "d"])
        assert (await streams.labels("s", ["a"], [1.0])).unknown == ["a"]
        clock.now += DAY_SECONDS + 1
        answer = await streams.labels("s", ["b", "c"], [1.0, 1.0])
        assert (answer.accepted, answer.unknown) == (1, ["b"])
        assert (await streams.predict("s", PROBE[1:2], None, ["b"])).stream_version == 5


@run_async
async def test_feedback_of_ids_needs_no_inputs() -> None:
    """The same as labels, with times and predictions; ids that wait for nothing are all named and nothing is taken."""
    store = MemoryStore()
    async with opened(store) as streams:
        await fresh(streams, "f", "l")
        for stream in ("f", "l"):
            await streams.predict(stream, PROBE, None, IDS)
            await learn(streams, stream, batches(2, seed=3))
        with pytest.raises(InvalidError, match="2 of the ids") as caught:
            await streams.feedback("f", None, LABELS, ["x", "b", "y"])
        assert [error.loc for error in caught.value.errors] == [("ids", 0), ("ids", 2)]
        with pytest.raises(InvalidError, match="inputs: missing"):
            await streams.feedback("f", None, LABELS)
        by_feedback = await streams.feedback("f", None, LABELS, IDS, [1.0, 2.0, 3.0])
        by_labels = await streams.labels("l", IDS, LABELS)
        assert (by_feedback.loss, by_feedback.score) == (by_labels.loss, by_labels.score)
        assert by_feedback.made is not None
        assert len(by_feedback.made.predictions) == 3
        assert await state_bytes(streams, "f") == await state_bytes(streams, "l")
        assert logged(store, "f")[-1] == ("labels", 3)
        again = await streams.feedback("f", None, LABELS, IDS)
        assert (again.accepted, again.duplicates, again.stream_version) == (0, 3, 7)


@run_async
async def test_feedback_of_a_kept_row_uses_the_lags_of_its_prediction() -> None:
    """The same inputs again under their ids learn what labels learn; other inputs are new rows; none waits any more."""
    async with opened() as streams:
        await fresh(streams, "again", "late", "other", "plain", "mixed")
        for stream in ("again", "late", "other", "mixed"):
            await streams.predict(stream, PROBE, None, IDS)
        for stream in ("again", "late", "other", "plain", "mixed"):
            await learn(streams, stream, batches(2, seed=3))
        await streams.feedback("again", PROBE, LABELS, IDS)
        await streams.labels("late", IDS, LABELS)
        assert await state_bytes(streams, "again") != await state_bytes(streams, "plain")
        assert await predictions(streams, "again") == await predictions(streams, "late")
        await streams.feedback("other", PROBE[::-1], LABELS, [IDS[0], IDS[1], "z"])
        await streams.feedback("plain", PROBE[::-1], LABELS)
        assert await predictions(streams, "other") != await predictions(streams, "plain")  # the middle row is the same
        await streams.feedback("mixed", [PROBE[0], [9.0, 9.0]], LABELS[:2], ["a", None])
        for stream, waiting in (("again", []), ("other", ["c"]), ("mixed", ["b", "c"])):
            answer = await streams.labels(stream, IDS, LABELS)
            assert answer.accepted == len(waiting)
            assert answer.unknown == []


@run_async
async def test_everything_kept_is_there_after_a_crash(tmp_path: Path) -> None:
    """An answered row waits for its label after a kill, a label is learned once, and the states agree."""
    data_dir = tmp_path / "data"
    async with opened(SqliteStore(data_dir)) as streams:
        await fresh(streams, "s", "t")
        kept = await streams.predict("s", PROBE, 0.9, IDS)
        await streams.predict("t", PROBE, None, IDS)
        await learn(streams, "s", batches(2, seed=3))
        await streams.labels("s", IDS[:1], LABELS[:1])
        recovered = crash_copy(data_dir, "copy")
        expected = await streams.labels("s", IDS, LABELS)
        after = await predictions(streams, "s")
        await streams.delete("t")
    async with opened(recovered) as streams:
        answer = await streams.labels("s", IDS, LABELS)
        assert (answer.accepted, answer.duplicates, answer.unknown) == (2, 1, [])
        assert (answer.loss, answer.score) == (expected.loss, expected.score)
        assert answer.score == pytest.approx(np.abs(np.array(kept.predictions[1:]) - LABELS[1:]).mean())
        assert await predictions(streams, "s") == pytest.approx(after, rel=1e-5)
        assert (await streams.labels("t", IDS, LABELS)).accepted == 3
    async with opened(SqliteStore(data_dir)) as streams:
        await streams.put("t", "reg", None, None)
        assert (await streams.labels("t", IDS, LABELS)).unknown == IDS


@run_async
async def test_a_kept_row_is_answered_after_its_commit() -> None:
    """The one predict that waits: while a commit hangs it is not answered, and a plain one is."""
    store = WaitingStore()
    async with opened(store) as streams:
        await fresh(streams, "s")
        store.gate.clear()
        store.begun.clear()
        pending = asyncio.create_task(streams.predict("s", PROBE, None, IDS))
        await asyncio.to_thread(store.begun.wait, 30)
        assert (await streams.predict("s", PROBE)).stream_version == 4
        assert not pending.done()
        store.gate.set()
        assert (await pending).stream_version == 4


@run_async
async def test_on_a_full_disk_nothing_is_kept() -> None:
    """507, plain predictions go on, and later the same request goes through."""
    store = FailingStore()
    async with opened(store) as streams:
        await fresh(streams, "s")
        store.error = StoreFullError("full")
        with pytest.raises(StoreFullError):
            await streams.predict("s", PROBE, None, IDS)
        plain = await streams.predict("s", PROBE)
        store.error = None
        assert await streams.predict("s", PROBE, None, IDS) == plain


@run_async
async def test_predicting_for_labels_races_learning_and_deletion_safely() -> None:
    """Whatever comes first, each row is kept once or its stream is gone."""
    async with opened(hot_streams_max=1) as streams:
        await fresh(streams, "s", "t")
        answers = await asyncio.gather(
            *(streams.predict("s", PROBE[:1], None, [f"n{number}"]) for number in range(8)),
            *(streams.feedback("s", *batch) for batch in batches(4, rows=1)),
            *(streams.predict("t", PROBE[:1], None, ["x"]) for _ in range(3)),
        )
        assert len(answers) == 15
        assert (await streams.labels("s", [f"n{number}" for number in range(8)], [1.0] * 8)).accepted == 8
        late = await asyncio.gather(
            streams.predict("t", PROBE[:1], None, ["y"]),
            streams.delete("t"),
            streams.labels("t", ["x"], [1.0]),
            return_exceptions=True,
        )
        assert {type(each) for each in late if isinstance(each, BaseException)} <= {NotFoundError}
