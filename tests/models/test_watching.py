"""Inputs watched by the engine: without labels and with them, once a row, and without a trace in what is learned."""

import numpy as np
import pytest
import torch

from models import Engine, Feedback, SnapshotError
from models.types import FloatArray
from models.virtual_drift import BASELINE_ROWS
from models.watching import fresh_rows, watch_inputs
from tests.models.examples import small_engine, small_model

CALM_ROWS = 300


def rows(count: int, shift: float = 0.0, seed: int = 0) -> FloatArray:
    """Rows whose second feature has moved."""
    return np.random.default_rng(seed).normal((0.0, shift), size=(count, 2))


def look(engine: Engine, slot: int, inputs: FloatArray) -> list[str]:
    """Watch rows in batches of ten; the names of what moved."""
    names = []
    for start in range(0, len(inputs), 10):
        tick, (seen,) = engine.watch([(slot, inputs[start : start + 10])])
        engine.apply(tick)
        assert engine.status(slot).state == seen.state
        names += [seen.moved.feature] if seen.moved else []
    return names


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_rows_without_labels_raise_a_warning_that_ends(task: str) -> None:
    """It names the feature, once; when the statistics have adapted the state is as before, and nothing was learned."""
    engine = small_engine(task)
    slot = engine.create()
    before = engine.predict([(slot, rows(3))])[0]
    assert look(engine, slot, rows(CALM_ROWS)) == []
    assert engine.status(slot).state == "new"
    second = engine.model.spec.features[1].name
    assert look(engine, slot, rows(40, 3.0, seed=1)) == [second]
    assert engine.status(slot).state == "warning"
    assert look(engine, slot, rows(BASELINE_ROWS, 3.0, seed=2)) == []
    assert engine.status(slot).state == "new"
    assert engine.status(slot).rows_seen == 0
    after = engine.predict([(slot, rows(3))])[0]
    assert (after.std, after.probabilities) == (before.std, before.probabilities)


def test_labelled_rows_are_watched_too_and_learned_as_ever() -> None:
    """The outcome says what moved; a stream whose rows were all watched before learns the same without a warning."""
    engine = small_engine()
    slot, other = engine.create(), engine.create()
    moved = []
    for start in range(0, CALM_ROWS + 40, 10):
        inputs = rows(10, 3.0 if start >= CALM_ROWS else 0.0, seed=start)
        blind = Feedback(other, inputs, inputs[:, :1], watched=np.ones(10, dtype=np.bool_))
        tick = engine.step([Feedback(slot, inputs, inputs[:, :1]), blind])
        engine.apply(tick)
        moved += [tick.outcomes[0].moved] if tick.outcomes[0].moved else []
        assert tick.outcomes[0].loss == pytest.approx(tick.outcomes[1].loss, rel=1e-6, abs=1e-6)
        assert tick.outcomes[1].moved is None
    (found,) = moved
    assert found.feature == engine.model.spec.features[1].name
    assert found.statistic > found.threshold > 0
    assert found.shift == pytest.approx(3.0, abs=1.2)
    assert (engine.status(slot).state, engine.status(other).state) == ("warning", "stable")


def test_rows_that_were_watched_before_are_not_watched_again() -> None:
    """Labels that come late bring no news of the inputs, be it for all rows of a batch or for some."""
    engine = small_engine()
    seen, anew = engine.create(), engine.create()
    inputs = rows(10)
    for slot in (seen, anew):
        look(engine, slot, inputs[:5])
    some = np.arange(10) < 5
    engine.apply(engine.step([Feedback(seen, inputs[::-1], inputs[:, :1], watched=some[::-1])]))
    look(engine, anew, inputs[5:][::-1])
    _, (first, second) = engine.watch([(seen, rows(1)), (anew, rows(1))])
    assert first.snapshot == second.snapshot
    engine.apply(engine.step([Feedback(seen, inputs, inputs[:, :1], watched=np.ones(10, dtype=np.bool_))]))
    _, (third,) = engine.watch([(seen, rows(1))])
    assert third.snapshot == second.snapshot


def test_what_is_known_of_inputs_can_be_put_back() -> None:
    """From its own bytes alone, into a stream that has not seen the rows; anything else is refused."""
    engine = small_engine()
    slot, copy = engine.create(), engine.create()
    look(engine, slot, rows(CALM_ROWS))
    tick, (seen,) = engine.watch([(slot, rows(20, 4.0, seed=1))])
    engine.apply(tick)
    engine.restore_inputs(copy, seen.snapshot)
    assert engine.snapshot(copy) == engine.snapshot(slot)
    for spoiled in (b"text", engine.snapshot(slot)):
        with pytest.raises(SnapshotError):
            engine.restore_inputs(copy, spoiled)


def test_a_reset_keeps_what_is_known_of_the_inputs() -> None:
    """They are the world's, not the model's: a warning stays until it ends."""
    engine = small_engine()
    slot = engine.create()
    look(engine, slot, np.concatenate([rows(CALM_ROWS), rows(40, 3.0, seed=1)]))
    engine.apply(engine.reset_tick([slot]))
    assert engine.status(slot).state == "warning"


def test_rows_are_picked_wherever_they_stand() -> None:
    """Those that count may be anywhere in a batch: they are taken in their order."""
    state = {"inputs": torch.zeros(2, 16, 2), "inputs_warned": torch.tensor([3, 0])}
    z = torch.from_numpy(rows(8).reshape(2, 4, 2)).float()
    mask = np.array([[True, True, True, False], [True, True, True, True]])
    fresh = fresh_rows(mask, [np.array([True, False, False]), None])
    new, moved = watch_inputs(small_model().spec, state, z, fresh)
    assert new["inputs"][:, 0].tolist() == [[2.0, 2.0], [4.0, 4.0]]
    assert torch.allclose(new["inputs"][0, 2], z[0, 1:3].mean(0))
    assert new["inputs_warned"].tolist() == [1, 0]
    assert moved == [None, None]
