"""The engine: slots, answers in label units, ticks that are served only when applied."""

from dataclasses import replace

import numpy as np
import pytest

from models import Decision, Engine, Feedback, InputError, Model, SnapshotError, StreamConfig
from models.types import DetectorChoice, Expert, Lags
from tests.models.examples import small_engine, small_model

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(40, 2))


def learn(engine: Engine, slot: int, rows: int, first: int = 0) -> None:
    """Learn rows one by one."""
    for row in range(first, first + rows):
        targets = ROWS[row : row + 1, :1] * 2
        if engine.model.spec.task == "classification":
            targets = (targets > 0).astype(float)
        engine.apply(engine.step([Feedback(slot, ROWS[row : row + 1], targets)]))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_tick_is_served_only_when_it_is_applied(task: str) -> None:
    """Between step and apply predictions are those from before."""
    engine = small_engine(task)
    slot = engine.create()
    before = engine.predict([(slot, ROWS[:3])])[0]
    targets = np.ones((3, 1))
    tick = engine.step([Feedback(slot, ROWS[:3], targets)])
    assert engine.predict([(slot, ROWS[:3])])[0].predictions == before.predictions
    assert tick.outcomes[0].prediction.predictions == before.predictions
    engine.apply(tick)
    after = engine.predict([(slot, ROWS[:3])])[0]
    assert (after.std, after.probabilities) != (before.std, before.probabilities)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_snapshot_restores_a_stream_byte_for_byte(task: str) -> None:
    """Snapshot, restore, snapshot: the same bytes; and both streams go on alike."""
    engine = small_engine(task, Lags((1, 2), (0.1,)))
    slot = engine.create()
    learn(engine, slot, 15)
    copy = engine.restore(engine.snapshot(slot))
    assert engine.snapshot(copy) == engine.snapshot(slot)
    learn(engine, slot, 5, 15)
    learn(engine, copy, 5, 15)
    assert engine.snapshot(copy) == engine.snapshot(slot)


@pytest.mark.parametrize("spoil", [b"", b"text", b"\xff" * 100])
def test_a_damaged_snapshot_is_refused(spoil: bytes) -> None:
    """Garbage is named as such, and nothing is taken."""
    with pytest.raises(SnapshotError, match="damaged"):
        small_engine().restore(spoil)


def test_a_snapshot_of_another_model_is_refused() -> None:
    """Shapes have to be this model's."""
    engine = small_engine()
    with pytest.raises(SnapshotError, match="another model"):
        small_engine(lags=Lags((1,))).restore(engine.snapshot(engine.create()))


def test_streams_do_not_touch_each_other() -> None:
    """Items of many streams and lengths in one call give what each gives alone; other slots keep their bytes."""
    engine = small_engine()
    slots = [engine.create() for _ in range(20)]
    idle = engine.snapshot(slots[19])
    items = [Feedback(slots[k], ROWS[: k + 1], ROWS[: k + 1, :1]) for k in range(19)]
    tick = engine.step(items)
    engine.apply(tick)
    for k, outcome in enumerate(tick.outcomes):
        alone = small_engine()
        slot = alone.create()
        one = alone.step([Feedback(slot, ROWS[: k + 1], ROWS[: k + 1, :1])])
        alone.apply(one)
        assert outcome.rows_seen == k + 1
        assert outcome.loss == pytest.approx(one.outcomes[0].loss, rel=1e-5)
        mine, other = engine.predict([(slots[k], ROWS[:4])])[0], alone.predict([(slot, ROWS[:4])])[0]
        np.testing.assert_allclose(mine.predictions, other.predictions, rtol=1e-5, atol=1e-6)
    assert engine.snapshot(slots[19]) == idle


def test_a_released_slot_starts_afresh() -> None:
    """A reused slot knows nothing of the stream before."""
    engine = small_engine()
    new = engine.snapshot(engine.create())
    slot = engine.create()
    learn(engine, slot, 10)
    engine.release(slot)
    assert engine.create() == slot
    assert engine.snapshot(slot) == new


def test_scores_are_those_of_the_predictions_returned() -> None:
    """Mean absolute error and mean normal density, recomputed from the answer; the frozen start's beside them."""
    model = small_model()
    target = replace(model.spec.target, mean=(3.0,), std=(2.0,))
    engine = Engine(Model(replace(model.spec, target=target, challenger_share=1e-9), model.meta))
    slot, targets = engine.create(), ROWS[:8, :1] * 2 + 3
    outcome = engine.step([Feedback(slot, ROWS[:8], targets)]).outcomes[0]
    mean, std = np.array(outcome.prediction.predictions), np.array(outcome.prediction.std)
    assert outcome.score == pytest.approx(float(np.abs(mean - targets[:, 0]).mean()))
    normal = 0.5 * ((targets[:, 0] - mean) / std) ** 2 + np.log(std) + 0.5 * np.log(2 * np.pi)
    assert outcome.loss == pytest.approx(float(normal.mean()), rel=1e-4)
    assert outcome.initial_score == pytest.approx(outcome.score)  # a new stream is the frozen start


def test_probabilities_are_a_distribution_and_the_label_its_mode() -> None:
    """They sum to one; the predicted class is the most probable."""
    engine = small_engine("classification")
    slot = engine.create()
    learn(engine, slot, 20)
    answer = engine.predict([(slot, ROWS[:10])])[0]
    assert answer.classes == ["no", "yes"]
    assert answer.probabilities is not None
    np.testing.assert_allclose(np.sum(answer.probabilities, axis=1), 1.0, rtol=1e-6)
    assert answer.predictions == [answer.classes[int(np.argmax(row))] for row in answer.probabilities]


def test_intervals_nest_and_hold_the_prediction() -> None:
    """A 50% interval lies inside a 90% interval, through a power transform too."""
    model = small_model()
    target = replace(model.spec.target, power=0.3, low=(0.0,), high=(50.0,), mean=(2.0,))
    engine = Engine(Model(replace(model.spec, target=target), model.meta))
    slot = engine.create()
    narrow = engine.predict([(slot, ROWS[:5])], 0.5)[0]
    wide = engine.predict([(slot, ROWS[:5])], 0.9)[0]
    assert narrow.intervals is not None
    assert wide.intervals is not None
    for middle, (a, b), (low, high) in zip(narrow.predictions, narrow.intervals, wide.intervals, strict=True):
        assert low < a < middle < b < high


def test_a_logged_decision_is_replayed() -> None:
    """An alarm in the log re-adapts the stream although nothing surprising is learned."""
    engine = small_engine()
    slot = engine.create()
    learn(engine, slot, 10)
    logged = Decision("drift", 3, 9.0, 8.0)
    tick = engine.step([Feedback(slot, ROWS[:1], ROWS[:1, :1], None, logged)])
    assert tick.outcomes[0].decision == logged
    assert tick.outcomes[0].action == "readapt"
    assert tick.outcomes[0].state == "drifted"


def test_reset_goes_back_to_the_initialization() -> None:
    """Predictions are the frozen start's again; rows seen stay counted."""
    engine = small_engine()
    slot = engine.create()
    learn(engine, slot, 20)
    engine.apply(engine.reset_tick([slot]))
    frozen = engine.predict_initial(ROWS[:3])
    np.testing.assert_allclose(engine.predict([(slot, ROWS[:3])])[0].predictions, frozen.predictions, rtol=1e-6)
    assert engine.status(slot).rows_seen == 20


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (StreamConfig(steps=2), "steps"),
        (StreamConfig(window_rows=10), "window_rows"),
        (StreamConfig(detector="nosuch"), "detector"),
        (StreamConfig(alarms_per_1000=0.0), "alarms_per_1000"),
        (StreamConfig(detector="page_hinkley", alarms_per_1000=1.0), "alarms_per_1000"),
    ],
)
def test_a_setting_that_the_model_lacks_is_refused(config: StreamConfig, field: str) -> None:
    """The error names the field."""
    with pytest.raises(InputError) as caught:
        Engine(small_model(), config)
    assert caught.value.loc == ("config", field)


def test_settings_of_gradient_experts_are_taken_within_what_was_trained() -> None:
    """Fewer steps than trained are fine, more are refused; a window is any length up to its limit."""
    spec = replace(
        small_model().spec,
        experts=(Expert("steps", "maml", {"hidden": [8], "steps": 3}),),
        detector=DetectorChoice("page_hinkley"),
    )
    model = Model(spec, {})
    with pytest.raises(InputError, match="1 to 3"):
        Engine(model, StreamConfig(steps=4))
    with pytest.raises(InputError, match="1 to 10000"):
        Engine(model, StreamConfig(window_rows=0))
