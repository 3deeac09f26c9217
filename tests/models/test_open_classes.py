"""Streams that name their classes themselves, through the engine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from models import Engine, Feedback, InputError, Label, Outcome, read_bundle, write_bundle
from models.types import Expert, Lags
from tests.models.examples import HEAD, small_model

CENTRES = np.array([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.5], [2.5, 2.5]])
GAUSS = Expert("classes", "class_posterior", {"hidden": (8, 4), "tau_rows": (50.0, 400.0)})
EXPERTS = [HEAD, GAUSS, Expert("near", "protonet", {"hidden": (8, 4)})]


def engine(ways: int = 3, expert: Expert = HEAD, lags: Lags | None = None) -> Engine:
    """Of a model whose classes are open, written to a bundle and read back."""
    return Engine(read_bundle(write_bundle(small_model("classification", lags, "open", ways, expert))))


def inputs(places: Sequence[int], seed: int = 0) -> Any:
    """Rows about the centres of these classes."""
    rng = np.random.default_rng(seed)
    return np.asarray(CENTRES[list(places)] + 0.3 * rng.normal(size=(len(places), 2))).round(3).tolist()


def teach(made: Engine, slot: int, places: Sequence[int], labels: Sequence[Label], seed: int = 0) -> Outcome:
    """One batch of rows."""
    targets = made.encode_targets(labels, slot)
    tick = made.step([Feedback(slot, made.encode_inputs(inputs(places, seed)), targets, labels=labels)])
    made.apply(tick)
    return tick.outcomes[0]


def ask(made: Engine, slot: int, places: Sequence[int]) -> Any:
    """An answer."""
    return made.predict([(slot, made.encode_inputs(inputs(places, 9)))])[0]


@pytest.mark.parametrize("expert", EXPERTS, ids=lambda expert: expert.learner)
def test_a_stream_answers_in_the_labels_it_has_named(expert: Expert) -> None:
    """None before the first label; then those that came, in the order in which they came, and nothing else."""
    made = engine(expert=expert)
    slot = made.create()
    before = ask(made, slot, [0, 1])
    assert (before.predictions, before.probabilities, before.classes) == ([None, None], [[], []], [])
    assert made.predict_initial(made.encode_inputs(inputs([0]))).predictions == [None]
    for seed in range(8):
        teach(made, slot, [0, 1, 0, 1], ["left", "right", "left", "right"], seed)
    after = ask(made, slot, [0, 1])
    assert after.classes == ["left", "right"]
    assert after.predictions == ["left", "right"]
    np.testing.assert_allclose(np.sum(after.probabilities, axis=1), 1.0, rtol=1e-6)


def test_the_first_rows_of_a_stream_cost_what_they_must() -> None:
    """A label nobody could name is answered wrongly; its loss is that of a label not seen yet, sure at first."""
    made = engine()
    slot = made.create()
    first = teach(made, slot, [0], ["x"])
    assert (first.score, first.initial_score) == (0.0, 0.0)
    assert first.loss == pytest.approx(0.0, abs=1e-5)
    second = teach(made, slot, [1], ["y"])
    assert 0.0 < second.loss < 3.0


def test_kinds_of_labels_stay_apart_and_survive_a_snapshot() -> None:
    """Another engine of the same bundle has the state byte for byte, and answers the same labels."""
    made, other = engine(4), engine(4)
    slot = made.create()
    teach(made, slot, [0, 1, 2, 3], [1, "1", True, "left"])
    data = made.snapshot(slot)
    copy = other.restore(data)
    assert other.snapshot(copy) == data
    assert ask(other, copy, [0, 2])[:3] == ask(made, slot, [0, 2])[:3]
    assert [type(label) for label in ask(other, copy, [0]).classes] == [int, str, bool, str]


def test_one_label_more_than_ways_changes_nothing() -> None:
    """It is refused before anything is learned; the labels that there are go on."""
    made = engine(2)
    slot = made.create()
    teach(made, slot, [0, 1], ["x", "y"])
    before = made.snapshot(slot)
    with pytest.raises(InputError, match="named 2 already"):
        made.encode_targets(["x", "z"], slot)
    assert made.snapshot(slot) == before
    teach(made, slot, [0], ["x"])


def test_what_labels_are_called_carries_no_information() -> None:
    """The same rows under other names give the same probabilities bit for bit."""
    made = engine(lags=Lags((1, 2), (0.1,)))
    one, other = made.create(), made.create()
    for seed in range(3):
        teach(made, one, [0, 1, 2], ["a", "b", "c"], seed)
        teach(made, other, [0, 1, 2], [3, 1, 2], seed)
    assert ask(made, one, [0, 1, 2]).probabilities == ask(made, other, [0, 1, 2]).probabilities


def test_a_reset_forgets_what_was_learned_of_labels_but_not_their_names() -> None:
    """Late labels and known ones go on meaning what they meant."""
    made = engine()
    slot = made.create()
    teach(made, slot, [0, 1], ["x", "y"])
    made.apply(made.reset_tick([slot]))
    assert ask(made, slot, [0]).classes == ["x", "y"]
    np.testing.assert_array_equal(made.encode_targets(["y", "z"], slot), [[1], [2]])


def test_a_replay_with_the_logged_decisions_names_the_same_labels() -> None:
    """From the log alone: another slot, the same state."""
    made = engine()
    first, again = made.create(), made.create()
    log = []
    for seed, labels in enumerate((["x", "y"], ["y", "z"], ["x", "z"])):
        outcome = teach(made, first, [0, seed], labels, seed)
        log.append((labels, inputs([0, seed], seed), outcome))
    for labels, rows, outcome in log:
        given = Feedback(
            again, made.encode_inputs(rows), made.encode_targets(labels, again), outcome.prediction.asked,
            outcome.decision, labels=labels,
        )  # fmt: skip
        made.apply(made.step([given]))
    assert made.snapshot(again) == made.snapshot(first)


@pytest.mark.parametrize("expert", [HEAD, GAUSS], ids=lambda expert: expert.learner)
def test_a_new_class_is_no_drift(expert: Expert) -> None:
    """Ten rows of a class that never came before raise no alarm, and what was known is not dropped."""
    made = engine(4, expert)
    slot = made.create()
    for seed in range(30):
        teach(made, slot, [0, 1, 0, 1], ["x", "y", "x", "y"], seed)
    outcome = teach(made, slot, [2] * 10, ["z"] * 10, 50)
    assert outcome.decision.kind is None
    assert ask(made, slot, [0, 1, 2]).predictions == ["x", "y", "z"]
