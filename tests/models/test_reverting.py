"""A stream is served the better of what it has learned and the frozen start."""

import numpy as np
import pytest

from models import Engine, Feedback, Outcome
from models.reverting import ENOUGH, SURE, WIDTH, WINDOW_ROWS, follow, reverted
from models.types import FloatArray
from tests.models.examples import hasty_model, small_engine


def followed(differences: FloatArray, rows: int = 1) -> tuple[FloatArray, list[int]]:
    """The state after batches of one stream, and after which of them it turned."""
    edge, turned = np.zeros((1, WIDTH)), []
    for number, difference in enumerate(differences):
        edge, turns = follow(edge, np.array([difference]), np.array([float(rows)]), np.array([False]), None)
        if turns:
            turned.append(number)
    return edge, turned


def test_means_are_exponential_over_rows() -> None:
    """After n rows they are the sums of the definition; a batch of m equal rows counts as m of them."""
    rng = np.random.default_rng(0)
    differences = rng.normal(size=60)
    edge, _ = followed(differences)
    rate = 1 / WINDOW_ROWS
    weights = rate * (1 - rate) ** np.arange(60)[::-1]
    np.testing.assert_allclose(edge[0, :3], [weights @ differences, weights @ differences**2, weights.sum()])
    once, _ = followed(np.full(12, 0.3), rows=5)
    apart, _ = followed(np.full(60, 0.3))
    np.testing.assert_allclose(once[0, [0, 2]], apart[0, [0, 2]])


@pytest.mark.parametrize(("mean", "most"), [(-0.1, 0), (0.0, 5)])
def test_chance_alone_turns_hardly_anybody(mean: float, most: int) -> None:
    """Of 1,000 streams over 1,000 rows: none where a little was gained, few where nothing was."""
    rng, edge = np.random.default_rng(0), np.zeros((1_000, WIDTH))
    once, nobody = np.zeros(1_000, dtype=bool), np.zeros(1_000, dtype=bool)
    for _ in range(1_000):
        edge, _turns = follow(edge, rng.normal(mean, 1.0, 1_000), np.ones(1_000), nobody, None)
        once |= reverted(edge)
    assert once.sum() <= most


def test_a_clear_loss_turns_and_a_gain_turns_back() -> None:
    """Not before half a window has been seen; back as soon as the mean is below zero."""
    rng = np.random.default_rng(1)
    differences = np.concatenate([rng.normal(1.0, 0.5, 300), rng.normal(-1.0, 0.5, 300)])
    edge, turned = followed(differences)
    there, back = turned
    assert there == int(np.ceil(np.log(1 - ENOUGH) / np.log(1 - 1 / WINDOW_ROWS))) - 1
    assert 300 < back < 300 + WINDOW_ROWS
    assert not reverted(edge)[0]
    assert SURE >= 3, "every batch is looked at"


def test_an_alarm_begins_anew_and_a_logged_decision_stands() -> None:
    """What was adapted anew has not been judged; on replay the log decides."""
    edge, _ = followed(np.full(200, 1.0))
    assert reverted(edge)[0]
    one, yes = np.array([1.0]), np.array([True])
    fresh, turns = follow(edge, one, one, yes, None)
    assert not fresh.any()
    assert turns == {}, "the alarm tells"
    kept, turns = follow(edge, -one, one, ~yes, ~yes)
    assert not reverted(kept)[0]
    assert turns[0].to == "adapted"
    not_finite, _ = follow(edge, np.array([np.nan]), one, ~yes, None)
    assert np.isfinite(not_finite).all()


class World:
    """A stream whose steps are too large for mere noise, and right for labels far from the start's."""

    def __init__(self) -> None:
        self.engine = Engine(hasty_model())
        self.slot = self.engine.create()
        self.rng = np.random.default_rng(3)

    def learn(self, batches: int, *, shift: float = 0.0) -> list[Outcome]:
        """What each batch of four rows showed; labels are the frozen start's with noise, shifted."""
        outcomes = []
        for _ in range(batches):
            inputs = self.rng.normal(size=(4, 2))
            start = np.array(self.engine.predict_initial(inputs).predictions)[:, None]
            targets = start + self.rng.normal(size=(4, 1)) + shift
            tick = self.engine.step([Feedback(self.slot, inputs, targets)])
            self.engine.apply(tick)
            outcomes += tick.outcomes
        return outcomes


def test_a_stream_that_has_learned_the_wrong_thing_is_served_the_frozen_start() -> None:
    """Its answers, losses and scores are the frozen start's until its own are better again; it learns all the while."""
    world = World()
    lost = world.learn(150)
    turned = [(number, outcome.turned) for number, outcome in enumerate(lost) if outcome.turned is not None]
    assert [turn.to for _, turn in turned] == ["initial"]
    ((place, turn),) = turned
    assert turn.statistic > turn.threshold > 0
    assert lost[place].decision.reverted
    assert lost[place].loss != lost[place].initial_loss, "the batch itself was answered before"
    for outcome in lost[place + 1 :]:
        assert (outcome.loss, outcome.score) == (outcome.initial_loss, outcome.initial_score)
        assert not outcome.prediction.adapted
    assert world.engine.status(world.slot).reverted
    probe = world.rng.normal(size=(5, 2))
    served, initial = world.engine.predict([(world.slot, probe)], 0.9)[0], world.engine.predict_initial(probe, 0.9)
    assert not served.adapted
    np.testing.assert_allclose(served.predictions, initial.predictions)
    np.testing.assert_allclose(np.array(served.intervals), np.array(initial.intervals))
    back = world.learn(60, shift=6.0)
    assert [outcome.turned.to for outcome in back if outcome.turned is not None] == ["adapted"]
    assert world.engine.predict([(world.slot, probe)])[0].adapted


def test_a_snapshot_keeps_it_and_one_of_before_starts_without() -> None:
    """Byte for byte; what earlier versions have written is read."""
    world = World()
    world.learn(150)
    copy = world.engine.restore(world.engine.snapshot(world.slot))
    assert world.engine.status(copy).reverted
    state = world.engine.copy(world.slot)
    del state["edge"]
    old = world.engine.restore(world.engine.pack(state))
    assert not world.engine.status(old).reverted
    assert world.engine.status(old).rows_seen == 600


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_new_stream_is_not_reverted(task: str) -> None:
    """It is the frozen start."""
    engine = small_engine(task)
    slot = engine.create()
    assert engine.predict([(slot, np.zeros((1, 2)))])[0].adapted
    assert not engine.status(slot).reverted
