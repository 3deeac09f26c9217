"""Training end to end at small size: a table in, a model out that is better than its parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import (
    LEARNERS,
    DataError,
    Engine,
    Tabular,
    TrainingError,
    TrainProgress,
    TrainSettings,
    read_bundle,
    selection,
    train_table,
    train_tasks,
    trainer,
    write_bundle,
)
from models.boosting import Boosting
from models.starting import with_start
from models.training import Split
from models.types import ModelSpec
from tests.models.examples import small_table

SMALL = ((trainer, "ITERATIONS", 30), (trainer, "SINUSOID_ITERATIONS", 60), (selection, "PROBE_ITERATIONS", 10))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short training run on one thread."""
    torch.set_num_threads(1)
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)


def silent(progress: TrainProgress) -> None:
    """Progress goes from 0 to 1."""
    assert 0.0 <= progress.fraction <= 1.0


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_trained_model_is_better_than_online_sgd(tmp_path: Path, task: str) -> None:
    """Meta-learning pays on the same rows; the report says what was chosen."""
    table = small_table(tmp_path, 1200, 3, task)
    model, report = train_table(table, TrainSettings(), silent)
    better = -1 if task == "classification" else 1
    assert better * report.scores["adapted"] < better * report.scores["online SGD without meta-learning"]
    assert any(choice.startswith("lagged targets") for choice in report.choices)
    assert model.spec.provenance["rows"] == 1200
    assert read_bundle(write_bundle(model)).meta.keys() == model.meta.keys()


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    """Bundles are equal byte for byte; another seed's is not."""
    table = small_table(tmp_path, 300, 2)
    settings = TrainSettings(lag_target=1, budget_minutes=60.0)
    one, other = (write_bundle(train_table(table, settings, silent)[0]) for _ in range(2))
    third = write_bundle(train_table(table, TrainSettings(lag_target=1, seed=1, budget_minutes=60.0), silent)[0])
    assert one == other
    assert one != third


@pytest.mark.parametrize(
    ("algorithm", "task"), [(name, task) for name, kind in LEARNERS.items() for task in sorted(kind.tasks)]
)
def test_every_learner_trains_on_tables(tmp_path: Path, algorithm: str, task: str) -> None:
    """On each task that it declares; the bundle names the learner; nothing is asked that it lacks."""
    table = small_table(tmp_path, 300, 2, task)
    model, _ = train_table(table, TrainSettings(algorithm=algorithm, lag_target=0), silent)
    assert model.spec.experts[0].learner == algorithm
    assert model.spec.lags.offsets == ()
    assert Engine(read_bundle(write_bundle(model))).predict_initial(np.zeros((1, 2))).predictions


def test_a_learner_of_classes_is_refused_for_numbers(tmp_path: Path) -> None:
    """On tables and on task families; the error says what would do."""
    numbers = small_table(tmp_path, 100, 1)
    for algorithm in (name for name, kind in LEARNERS.items() if "regression" not in kind.tasks):
        settings = TrainSettings(algorithm=algorithm)
        with pytest.raises(TrainingError, match=rf"{algorithm} does classification only.*choose of .*bayes_head"):
            train_table(numbers, settings, silent)
        with pytest.raises(TrainingError, match=f"{algorithm} does classification only"):
            train_tasks("sinusoid", settings, silent)


def test_an_unknown_algorithm_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """The error lists them."""
    with pytest.raises(TrainingError, match="bayes_head"):
        train_table(small_table(tmp_path, 100, 1), TrainSettings(algorithm="nosuch"), silent)


def test_an_archive_is_asked_of_heads_that_have_one() -> None:
    """Within its limit; other learners refuse."""
    with pytest.raises(TrainingError, match="maml remembers no regimes"):
        train_tasks("sinusoid", TrainSettings(algorithm="maml", archive_segments=2), lambda _: None)
    with pytest.raises(TrainingError, match="0 to 16 regimes, got 17"):
        train_tasks("sinusoid", TrainSettings(algorithm="bayes_head", archive_segments=17), lambda _: None)


def test_every_head_of_a_committee_has_the_stated_archive(tmp_path: Path) -> None:
    """The one with a network and those without."""
    settings = TrainSettings(budget_minutes=0.01, archive_segments=3)
    model, _ = train_table(small_table(tmp_path, task="regression"), settings, lambda _: None)
    assert {expert.hyper_parameters["archive_segments"] for expert in model.spec.experts} == {3}


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    """Nothing can be held out of them."""
    with pytest.raises(DataError, match="too few"):
        train_table(small_table(tmp_path, 20, 1), TrainSettings(), silent)


def test_the_sinusoid_family_trains() -> None:
    """MAML by default; the scores are mean squared errors on new tasks."""
    model, report = train_tasks("sinusoid", TrainSettings(), silent)
    assert model.spec.experts[0].learner == "maml"
    assert report.metric == "mean squared error"
    assert set(report.scores) == {"frozen start", *(f"adapted after {shots} points" for shots in (5, 10, 20))}
    with pytest.raises(TrainingError, match="sinusoid"):
        train_tasks("nosuch", TrainSettings(), silent)


def test_ctrl_c_leaves_the_best_so_far(tmp_path: Path) -> None:
    """Whether in choosing, in training or in the last run: a model that predicts, and the report says so."""
    table = small_table(tmp_path, 300, 2)
    for stop in ("target", "lagged targets", "meta-training", "training on all rows"):

        def follow(progress: TrainProgress, stop: str = stop) -> None:
            if progress.description.startswith(stop):
                raise KeyboardInterrupt

        model, report = train_table(table, TrainSettings(), follow)
        assert report.interrupted
        assert Engine(model).predict_initial(np.zeros((1, 2))).predictions


def test_ctrl_c_while_the_start_is_fitted_again_leaves_the_chosen_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reports progress there, and a network takes minutes."""
    calls = 0

    def stopped(split: Split, spec: ModelSpec, how: Boosting | Tabular) -> Split:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return with_start(split, spec, how)

    monkeypatch.setattr(trainer, "with_start", stopped)
    model, report = train_table(small_table(tmp_path, 300, 2), TrainSettings(), silent)
    assert calls == 2
    assert report.interrupted
    assert Engine(model).predict_initial(np.zeros((1, 2))).predictions
