"""Fitting boosted trees: what scikit-learn fitted, chosen iterations, honest scores of the training rows."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import (  # type: ignore[import-untyped]  # the oracle comes without types
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)

from models.boosting import CATEGORIES_MAX, Boosting, fit_trees
from models.errors import TrainingError
from models.starting import cross_fitted
from models.trees import IntArray, tree_scores
from models.types import FloatArray

FIXED = Boosting("regression", iterations=30, held_out=0.0)


def rows_of(
    rows: int, seed: int = 0, categories: int = 0, missing: float = 0.2
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows, a target of them, and rows to ask about: heavy tails for deep, lopsided trees."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(2 * rows, 5)) ** 3).astype(np.float32).astype(np.float64)
    effect = np.zeros(2 * rows)
    if categories:
        x[:, 2] = rng.integers(categories, size=2 * rows)
        effect = rng.normal(size=categories)[x[:, 2].astype(np.int64)]
    y = np.sign(x[:, 0]) * np.log1p(np.abs(x[:, 1])) + effect + 0.1 * rng.normal(size=2 * rows)
    x[rng.random(x.shape) < missing] = np.nan
    return x[:rows], y[:rows], x[rows:]


def classes_of(y: FloatArray, classes: int) -> IntArray:
    """Class indices by the quantile that a target falls in."""
    return np.digitize(y, np.quantile(y, np.arange(1, classes) / classes))


def ask(tensors: dict[str, torch.Tensor], x: FloatArray) -> FloatArray:
    """Scores as the project asks for them: in float32."""
    return tree_scores(tensors, torch.from_numpy(x).float()).double().numpy()


def oracle(kind: type, boosting: Boosting, **more: Any) -> Any:
    """scikit-learn's estimator with the settings written out once more."""
    return kind(
        max_iter=boosting.iterations,
        max_leaf_nodes=boosting.leaves,
        learning_rate=boosting.learning_rate,
        min_samples_leaf=boosting.rows_min,
        early_stopping=False,
        categorical_features=list(boosting.categorical) or None,
        random_state=boosting.seed,
        **more,
    )


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
@pytest.mark.parametrize("leaves", [2, 31, 64])
@pytest.mark.parametrize("categories", [0, 40])
def test_regression_is_scikit_learns(loss: Any, leaves: int, categories: int) -> None:
    """The same predictions on new rows, with missing values, and codes that fitting did not see."""
    x, y, new = rows_of(600, categories=categories)
    x[:, 2] = np.where(x[:, 2] < 3, np.nan, x[:, 2])
    boosting = replace(FIXED, loss=loss, leaves=leaves, rows_min=4, categorical=(2,) if categories else ())
    expected = oracle(HistGradientBoostingRegressor, boosting, loss=loss).fit(x, y).predict(new)
    np.testing.assert_allclose(ask(fit_trees(boosting, x, y), new)[:, 0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("categorical", [(), (2,)])
def test_two_classes_are_scikit_learns_log_odds(categorical: tuple[int, ...]) -> None:
    """One score, whose sigmoid is the probability of the second class."""
    x, y, new = rows_of(600, categories=6)
    labels = classes_of(y, 2)
    boosting = replace(FIXED, task="classification", classes=2, categorical=categorical)
    model = oracle(HistGradientBoostingClassifier, boosting).fit(x, labels)
    scores = ask(fit_trees(boosting, x, labels), new)
    np.testing.assert_allclose(scores[:, 0], model.decision_function(new), rtol=1e-6, atol=1e-6)
    second = torch.from_numpy(scores[:, 0]).sigmoid().numpy()
    np.testing.assert_allclose(second, model.predict_proba(new)[:, 1], rtol=1e-6, atol=1e-6)


def test_many_classes_are_scikit_learns_scores() -> None:
    """C scores, whose softmax are the probabilities."""
    x, y, new = rows_of(600, categories=6)
    labels = classes_of(y, 5)
    boosting = replace(FIXED, task="classification", classes=5, categorical=(2,))
    model = oracle(HistGradientBoostingClassifier, boosting).fit(x, labels)
    scores = ask(fit_trees(boosting, x, labels), new)
    np.testing.assert_allclose(scores, model.decision_function(new), rtol=1e-6, atol=1e-6)
    probabilities = torch.from_numpy(scores).softmax(-1).numpy()
    np.testing.assert_allclose(probabilities, model.predict_proba(new), rtol=1e-6, atol=1e-6)


def test_too_many_categories_leave_the_rare_ones_missing() -> None:
    """scikit-learn refuses more than 255; the frequent ones still tell their rows apart."""
    rng = np.random.default_rng(0)
    code = np.concatenate((np.arange(300), rng.integers(4, size=1700))).astype(np.float64)
    y = np.where(code < 4, code % 2, 5.0)
    tensors = fit_trees(replace(FIXED, categorical=(0,), rows_min=5, iterations=80), code[:, None], y)
    scores = ask(tensors, np.array([[0.0], [1.0], [299.0], [np.nan], [1000.0]]))[:, 0]
    assert abs(scores[0]) < 0.1
    assert abs(scores[1] - 1.0) < 0.1
    assert scores[2] == scores[3] == scores[4]
    assert scores[3] > 4.0
    assert len(np.unique(code)) > CATEGORIES_MAX


def test_a_class_that_no_row_shows_has_a_small_probability() -> None:
    """All classes of the model have a score, even if the rows show two of four, or only one."""
    x, y, new = rows_of(200)
    boosting = replace(FIXED, task="classification", classes=4)
    for labels in (classes_of(y, 2) + 1, np.ones(len(y), np.int64)):
        scores = ask(fit_trees(boosting, x, labels), new)
        assert scores.shape == (200, 4)
        assert torch.from_numpy(scores).softmax(-1)[:, [0, 3]].max() < 0.05


def test_several_outputs_are_each_their_own_trees() -> None:
    """Side by side, with the number of iterations that suits each."""
    x, y, new = rows_of(400)
    noise = np.random.default_rng(1).normal(size=len(y))
    boosting = replace(FIXED, held_out=0.3, iterations=60)
    both = ask(fit_trees(boosting, x, np.stack((y, noise), 1)), new)
    np.testing.assert_array_equal(both[:, :1], ask(fit_trees(boosting, x, y), new))
    np.testing.assert_array_equal(both[:, 1:], ask(fit_trees(boosting, x, noise), new))


def test_held_out_rows_choose_the_number_of_iterations() -> None:
    """Noise stops at once, a function that is there goes on; both are then fitted on all rows."""
    x, y, _ = rows_of(400, missing=0.0)
    noise = np.random.default_rng(1).normal(size=len(y))
    boosting = replace(FIXED, held_out=0.3, iterations=80)
    trees = [fit_trees(boosting, x, target)["trees_feature"].shape[1] for target in (noise, y)]
    assert trees[0] < 10
    assert 20 < trees[1] <= 80
    chosen = replace(boosting, held_out=0.0, iterations=trees[1])
    expected = fit_trees(chosen, x, y)
    found = fit_trees(boosting, x, y)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_held_out_end_keeps_its_distance() -> None:
    """Rows whose labels were not known yet when the end begins do not take part in choosing."""
    x, y, _ = rows_of(300)
    boosting = replace(FIXED, held_out=0.2, delay=100, iterations=80)
    spoiled = y.copy()
    spoiled[140:240] = 1e3  # the delay before the end: 300 · 0.8 − 100 … 300 · 0.8
    trees = [fit_trees(boosting, x, target)["trees_feature"].shape[1] for target in (y, spoiled)]
    assert trees[0] == trees[1]


def test_few_rows_are_fitted_too() -> None:
    """Fewer than a leaf needs: the scores are the mean."""
    x, y, new = rows_of(5)
    np.testing.assert_allclose(ask(fit_trees(FIXED, x, y), new)[:, 0], y.mean(), rtol=1e-6)


def test_fitting_repeats_by_seed() -> None:
    """The same rows and settings give the same tensors."""
    x, y, _ = rows_of(300, categories=5)
    first, second = (fit_trees(replace(FIXED, categorical=(2,)), x, y) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_cross_fitting_one_stream_scores_blocks_by_what_lies_outside() -> None:
    """A block and the delay on either side of it have no say in the block's scores; rows beyond have."""
    x, y, _ = rows_of(300, missing=0.0)
    boosting = replace(FIXED, delay=7)
    scores = cross_fitted(boosting, x, y, folds=3)
    assert scores.shape == (300, 1)
    inside, beyond = y.copy(), y.copy()
    inside[93:207] += 100.0
    beyond[92] += 100.0
    np.testing.assert_array_equal(cross_fitted(boosting, x, inside, folds=3)[100:200], scores[100:200])
    assert (cross_fitted(boosting, x, beyond, folds=3)[100:200] != scores[100:200]).any()
    outside = np.r_[0:93, 207:300]
    expected = ask(fit_trees(boosting, x[outside], y[outside]), x[100:200])
    np.testing.assert_array_equal(scores[100:200], expected)


def test_cross_fitting_several_streams_scores_a_stream_by_the_others() -> None:
    """No row of a stream has a say in the stream's own scores, wherever it stands."""
    x, y, _ = rows_of(300, missing=0.0)
    streams = np.random.default_rng(2).integers(4, size=300) * 10
    scores = cross_fitted(FIXED, x, y, streams)
    for stream in (0, 30):
        own = streams == stream
        np.testing.assert_array_equal(scores[own], ask(fit_trees(FIXED, x[~own], y[~own]), x[own]))


def test_folds_of_streams_are_balanced_by_rows() -> None:
    """One long stream alone, the short ones together."""
    x, y, _ = rows_of(120, missing=0.0)
    streams = np.repeat([5, 1, 2, 3], [60, 20, 20, 20])
    scores = cross_fitted(FIXED, x, y, streams, folds=2)
    long = streams == 5
    np.testing.assert_array_equal(scores[~long], ask(fit_trees(FIXED, x[long], y[long]), x[~long]))


def test_residuals_of_cross_fitting_are_honest() -> None:
    """On noise, fitted residuals are smaller than the noise, cross-fitted ones are not."""
    x, _, _ = rows_of(500)
    noise = np.random.default_rng(3).normal(size=500)
    fitted = np.std(noise - ask(fit_trees(FIXED, x, noise), x)[:, 0])
    honest = np.std(noise - cross_fitted(FIXED, x, noise)[:, 0])
    assert fitted < 0.9 * noise.std()
    assert honest > 0.98 * noise.std()


def test_what_cannot_be_fitted_is_said() -> None:
    """No rows; folds that leave none; settings that make no sense."""
    x, y, _ = rows_of(40)
    with pytest.raises(TrainingError, match="need rows"):
        fit_trees(FIXED, x[:0], y[:0])
    with pytest.raises(TrainingError, match="40 rows are too few for 4 folds with labels 30 rows late"):
        cross_fitted(replace(FIXED, delay=30), x, y, folds=4)
    with pytest.raises(ValueError, match="two or more classes"):
        Boosting("classification")
    with pytest.raises(ValueError, match="leaves must be 2 to 64, got 65"):
        replace(FIXED, leaves=65)
    with pytest.raises(ValueError, match="held_out in"):
        replace(FIXED, held_out=1.0)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitting needs the extra; evaluating does not."""
    x, y, new = rows_of(60)
    tensors = fit_trees(FIXED, x, y)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # what Python keeps for a package that is not there
    with pytest.raises(TrainingError, match=r'pip install "acclimate\[train\]"'):
        fit_trees(FIXED, x, y)
    assert ask(tensors, new).shape == (60, 1)
