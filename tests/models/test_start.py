"""A frozen start answers honestly in training, and is an input of the experts that ask for it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import TrainSettings, read_bundle, write_bundle
from models.adaptation import init, predict
from models.features import lag_columns
from models.plan import Plan
from models.selection import candidates
from models.start import PREFIX, link
from models.starting import boosting_of, with_start
from models.tasks.table import Table
from models.trainer import _base_spec
from models.training import fit, split_table
from models.trees import tree_scores
from models.types import TaskKind
from tests.models.examples import small_table
from tests.models.test_casting import silent


def test_a_numeric_answer_is_bounded_and_a_class_answer_is_a_probability() -> None:
    """Numbers are cut at ten deviations; classes come stretched to [-1, 1] and sum to one as probabilities."""
    assert link("regression", torch.tensor([[99.0], [-3.0]])).tolist() == [[10.0], [-3.0]]
    two = link("classification", torch.tensor([[0.0], [2.0]]))
    assert torch.allclose(
        (two + 1) / 2, torch.tensor([[0.5, 0.5], [1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-2.0))]]).float()
    )
    many = link("classification", torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(((many + 1) / 2).sum(-1), torch.ones(4))


@pytest.mark.parametrize("streams", [1, 8])
def test_a_start_is_honest_about_the_rows_it_was_fitted_on(tmp_path: Path, streams: int) -> None:
    """Fitted on pure noise, its answers on the very rows do not follow them, while the trees themselves do."""
    table: Table = small_table(tmp_path, 800, streams)
    table = table._replace(target=np.random.default_rng(0).normal(size=table.rows))
    settings = TrainSettings(lag_target=1)
    split = split_table(table, 0)
    spec = _base_spec(table, "bayes_head", settings)
    start = with_start(split, spec, boosting_of(spec)).start
    assert start is not None
    learn = np.sort(np.concatenate(split.learn))
    columns = np.array(table.values(), dtype=np.float64)
    x = (columns - [feature.mean for feature in spec.features]) / [feature.std for feature in spec.features]
    own = tree_scores(start.tensors, torch.from_numpy(x.astype(np.float32)), PREFIX)[:, 0].numpy()
    target = np.asarray(table.target, dtype=np.float64)
    assert np.corrcoef(own[learn], target[learn])[0, 1] > 0.3
    assert abs(np.corrcoef(start.answers[learn, 0].numpy(), target[learn])[0, 1]) < 0.15


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_only_experts_on_the_start_see_its_answer(tmp_path: Path, task: TaskKind) -> None:
    """The others' predictions do not change with it; theirs do; a bundle keeps it."""
    table = small_table(tmp_path, 600, 1, task)
    split = split_table(table, 0)
    spec = candidates(_base_spec(table, "bayes_head", TrainSettings(lag_target=1)), trees=True)
    model = fit(spec, with_start(split, spec, boosting_of(spec)), TrainSettings(), 60.0, 2, silent).model
    other = {
        key: value * 0 if key.endswith("value") and key.startswith(PREFIX) else value
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
