"""The committee that training puts together: what stays is what held-out rows ask for."""

from pathlib import Path

import numpy as np
import torch

from models import Engine, Model, TrainProgress, TrainSettings, read_bundle, train_table, write_bundle
from models.audition import Audition, audition, error_of, stretches_of
from models.casting import NUMBERS_MAX, _hedged, cast_members
from models.coldstart import cold_split, cold_weights
from models.committee import init_weights, update_weights
from models.plan import Plan
from models.selection import candidates
from models.starting import boosting_of, with_start
from models.trainer import _base_spec
from models.training import fit, split_table
from tests.models.examples import small_table


def silent(progress: TrainProgress) -> None:
    """Nobody watches."""
    assert progress.fraction >= 0.0


def auditioned(folder: Path, task: str = "regression", streams: int = 1) -> tuple[Model, Audition, list[str]]:
    """All candidates after a few iterations, what they said, and an empty list for choices."""
    torch.set_num_threads(1)
    table = small_table(folder, 600, streams, task)
    settings = TrainSettings(lag_target=1)
    split = split_table(table, 0)
    spec = candidates(_base_spec(table, "bayes_head", settings), "boosted_trees")
    split = with_start(split, spec, boosting_of(spec))
    model = fit(spec, split, settings, 60.0, 5, silent).model
    choices: list[str] = []
    pruned = cast_members(model, split, choices)
    return pruned, audition(model, split), choices


def test_candidates_are_auditioned_as_they_would_serve(tmp_path: Path) -> None:
    """Weights in the simulation are the committee's own, row by row."""
    _, heard, _ = auditioned(tmp_path)
    members = heard.said.shape[2]
    weights = init_weights(1, members)
    expected = []
    for row in range(heard.said.shape[1]):
        expected.append(float((weights.exp()[0].numpy() * heard.said[0, row, :, 0]).sum()))
        gained = torch.from_numpy(heard.evidence[:1, row]).float()
        weights = update_weights(weights, gained, torch.ones(1, dtype=torch.int64), 0.01)
    table = small_table(tmp_path, 600, 1, "regression")
    spec = _base_spec(table, "bayes_head", TrainSettings(lag_target=1))
    one = heard._replace(
        said=heard.said[:1], evidence=heard.evidence[:1], truth=heard.truth[:1], scored=heard.scored[:1], delay=0
    )
    scale = spec.target.std[0]
    error = np.abs(np.array(expected) * scale + spec.target.mean[0] - heard.truth[0])[heard.scored[0]].mean()
    assert abs(error_of(spec, one, range(members), 0.01) - error) < 1e-3 * scale


def test_a_committee_is_pruned_and_still_whole(tmp_path: Path) -> None:
    """What is left loads, predicts and learns; tensors of experts that went are gone; the choice is told."""
    for task in ("regression", "classification"):
        model, heard, choices = auditioned(tmp_path, task, streams=3)
        assert Plan.of(model.spec).members <= heard.said.shape[2]
        names = {expert.name for expert in model.spec.experts} | ({"start"} if model.spec.start else set())
        assert {key.split(".", 1)[0] for key in model.meta} == names
        assert choices[-3].startswith("committee: ")
        assert choices[-1].startswith(f"share of the frozen start after one row: {model.spec.cold_share:g}")
        engine = Engine(read_bundle(write_bundle(model)))
        assert engine.predict([(engine.create(), engine.encode_inputs([[0.1, 0.2]]))])[0].predictions


def test_every_held_out_stretch_is_heard_from_streams_that_begin_there_too(tmp_path: Path) -> None:
    """A client whose rows all lie in the held-out end leaves none to learn from, and counts nevertheless."""
    table = small_table(tmp_path, 600, 3, "regression")
    split = split_table(table._replace(streams=np.where(np.arange(table.rows) < 510, table.streams % 2, 2)), 0)
    assert len(split.learn) < len(split.judge)
    heard = np.concatenate([places for places, _ in stretches_of(split)])
    np.testing.assert_array_equal(np.sort(heard), np.sort(np.concatenate(split.judge)))


def test_experts_take_turns_as_a_hedge_while_there_is_room() -> None:
    """Of what held-out rows did not ask for, the best of each expert in turn; nothing hopeless, nothing too large."""
    alone, experts = [1.0, 1.1, 1.2, 1.3, 9.0], [0, 0, 0, 1, 1]
    assert _hedged([0], alone, experts, [1] * 5) == [0, 3, 1, 2]
    assert _hedged([0], alone, experts, [1, 1, 1, NUMBERS_MAX, 1]) == [0, 1, 2]


def test_first_weights_believe_the_member_that_starts_well(tmp_path: Path) -> None:
    """They sum to one, nobody is left out, and a member whose first rows are likelier weighs more."""
    model, _, _ = auditioned(tmp_path, "regression", streams=3)
    assert len(model.spec.weights) == Plan.of(model.spec).members
    assert abs(sum(model.spec.weights) - 1) < 1e-6
    assert min(model.spec.weights) > 0
    table = small_table(tmp_path, 600, 3, "regression")
    name = f"{model.spec.experts[0].name}.prior_mean"
    worse = Model(model.spec, {**model.meta, name: model.meta[name] + 5.0})
    both, cold = [0, Plan.of(model.spec).members - 1], cold_split(split_table(table, 0))
    assert cold_weights(worse, cold, both)[0] < cold_weights(model, cold, both)[0]


def test_training_says_who_serves(tmp_path: Path) -> None:
    """``auto`` names the members that it kept, with their held-out errors."""
    table = small_table(tmp_path, 400, 1, "regression")
    _, report = train_table(table, TrainSettings(lag_target=1, budget_minutes=0.2), silent)
    assert any(choice.startswith("committee: ") for choice in report.choices)


def test_cold_pieces_are_of_streams_that_nothing_was_learned_from(tmp_path: Path) -> None:
    """Of five streams one is held out whole, and all pieces are its own, of 20 rows at most; of one stream, any."""
    table = small_table(tmp_path, 600, 5, "regression")
    split = split_table(table, 0)
    learned = {table.stream_names[table.streams[places[0]]] for places in split.learn}
    pieces = cold_split(split).table
    assert len(learned) == 4
    assert {name.split(":")[0] for name in pieces.stream_names} == set(table.stream_names) - learned
    assert np.bincount(pieces.streams).max() == 20
    alone = cold_split(split_table(small_table(tmp_path, 600, 1, "regression"), 0)).table
    assert alone.rows == 90
