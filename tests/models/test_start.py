"""A frozen start answers honestly in training, and is an input of the experts that ask for it."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest
import torch

from models import TrainSettings, read_bundle, trainer, write_bundle
from models.adaptation import init, predict
from models.boosting import Boosting
from models.features import lag_columns
from models.plan import Plan
from models.selection import candidates
from models.start import PREFIX, link, start_scores
from models.starting import boosting_of, network_of_rows, with_start
from models.tabular import Tabular
from models.tasks.table import Table
from models.trainer import _base_spec, _start_kind
from models.training import fit, split_table
from models.types import ModelSpec, StartKind, TaskKind
from tests.models.examples import small_table
from tests.models.test_casting import silent

STARTS = ("boosted_trees", "tabular_network")


def test_a_numeric_answer_is_bounded_and_a_class_answer_is_a_probability() -> None:
    """Numbers are cut at ten deviations; classes come stretched to [-1, 1] and sum to one as probabilities."""
    assert link("regression", torch.tensor([[99.0], [-3.0]])).tolist() == [[10.0], [-3.0]]
    two = link("classification", torch.tensor([[0.0], [2.0]]))
    assert torch.allclose(
        (two + 1) / 2, torch.tensor([[0.5, 0.5], [1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-2.0))]]).float()
    )
    many = link("classification", torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(((many + 1) / 2).sum(-1), torch.ones(4))


def small_start(spec: ModelSpec, steps: int = 80) -> Boosting | Tabular:
    """How the start of a spec is fitted, in a moment."""
    if spec.start == "boosted_trees":
        return boosting_of(spec)
    how = network_of_rows(spec)
    small = replace(how, members=1, learning_rate=2e-2, weight_decay=0.0, dropout=0.0, batch_rows=320)
    return replace(small, steps_min=steps, steps_max=steps)


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("streams", [1, 8])
def test_a_start_is_honest_about_the_rows_it_was_fitted_on(tmp_path: Path, streams: int, kind: StartKind) -> None:
    """Fitted on pure noise, its answers on the very rows do not follow them, while the start itself does."""
    table: Table = small_table(tmp_path, 800, streams)
    table = table._replace(target=np.random.default_rng(0).normal(size=table.rows))
    settings = TrainSettings(lag_target=1)
    split = split_table(table, 0)
    spec = candidates(_base_spec(table, "bayes_head", settings), kind)
    start = with_start(split, spec, small_start(spec)).start
    assert start is not None
    learn = np.sort(np.concatenate(split.learn))
    columns = np.array(table.values(), dtype=np.float64)
    x = (columns - [feature.mean for feature in spec.features]) / [feature.std for feature in spec.features]
    own = start_scores(kind, start.tensors, torch.from_numpy(x.astype(np.float32)))[:, 0].numpy()
    target = np.asarray(table.target, dtype=np.float64)
    assert np.corrcoef(own[learn], target[learn])[0, 1] > 0.3
    assert abs(np.corrcoef(start.answers[learn, 0].numpy(), target[learn])[0, 1]) < 0.15


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_only_experts_on_the_start_see_its_answer(tmp_path: Path, task: TaskKind, kind: StartKind) -> None:
    """The others' predictions do not change with it; theirs do; a bundle keeps it."""
    table = small_table(tmp_path, 600, 1, task)
    split = split_table(table, 0)
    spec = candidates(_base_spec(table, "bayes_head", TrainSettings(lag_target=1)), kind)
    model = fit(spec, with_start(split, spec, small_start(spec, 5)), TrainSettings(), 60.0, 2, silent).model
    other = {
        key: value * 0 if key in {f"{PREFIX}value", f"{PREFIX}out_weight"} else value
        for key, value in model.meta.items()
    }
    loaded = [read_bundle(write_bundle(model._replace(meta=meta))) for meta in (model.meta, other)]
    plan = Plan.of(spec)
    z = torch.randn(1, 5, len(spec.features) + lag_columns(spec), generator=torch.Generator().manual_seed(0))
    said = []
    for each in loaded:
        with torch.no_grad():
            told = predict(plan, each.meta, init(plan, each.meta, 1), z)
        said.append(told.members.mean)
    sizes = torch.tensor([learner.members for learner in plan.learners.values()])
    on_start = torch.tensor([expert.on_start for expert in spec.experts]).repeat_interleave(sizes)
    assert torch.equal(said[0][:, ~on_start], said[1][:, ~on_start])
    assert not torch.allclose(said[0][:, on_start], said[1][:, on_start])


@pytest.mark.parametrize(
    ("asked", "installed", "rows", "expected"),
    [
        ("auto", True, 800, "boosted_trees"),
        ("auto", False, 800, "tabular_network"),
        ("network", True, 800, "tabular_network"),
        ("trees", False, 800, "boosted_trees"),
        ("auto", True, 100, ""),
    ],
)
def test_auto_builds_on_trees_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, rows: int, expected: str, *, installed: bool
) -> None:
    """Else on a network; what is stated is taken, and whoever asks for trees hears what they need."""
    monkeypatch.setattr(trainer, "installed", lambda: installed)
    table = small_table(tmp_path, rows, 1)
    settings = TrainSettings(lag_target=1, start=cast("Literal['auto', 'trees', 'network']", asked))
    choices: list[str] = []
    assert _start_kind(split_table(table, 0), _base_spec(table, "bayes_head", settings), settings, choices) == expected
    assert bool(choices) == (expected != "boosted_trees")
