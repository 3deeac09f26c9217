"""Frozen starts of a split: boosted trees or a network, how they are best fitted, and their honest answers."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from models.boosting import Boosting, fit_trees
from models.bundle import Model
from models.crossfit import FOLDS, of_folds
from models.features import Scales, encode_rows, standardise
from models.start import PREFIX, link, start_scores
from models.tabular import Tabular, fit_network
from models.targets import encode_targets, from_scale, to_scale
from models.training import CLEARLY, Split, Start
from models.trees import IntArray, tree_scores
from models.types import FloatArray, ModelSpec, StartKind, Tensors

START_ROWS_MIN = 200
"""Fewer rows make no start worth fitting."""
MORE_ITERATIONS = 3
"""Factor by which more trees are tried, for numbers."""
NETWORK_FOLDS = 3
"""A network takes longer to fit than trees."""


def enough_for_start(split: Split) -> bool:
    """Whether a start can be fitted on some of the rows to learn from and tried on the others."""
    rows = sum(len(places) for places in split.learn)
    return rows >= START_ROWS_MIN and rows >= FOLDS * split.delay


def boosting_of(spec: ModelSpec, delay: int = 0, seed: int = 0) -> Boosting:
    """How trees are fitted where nothing else is chosen."""
    return Boosting(
        spec.task,
        classes=len(spec.target.classes),
        categorical=tuple(at for at, feature in enumerate(spec.features) if feature.kind == "categorical"),
        loss="absolute_error",
        held_out=0.0,
        delay=delay,
        seed=seed,
    )


def choose_start(split: Split, spec: ModelSpec, seed: int, choices: list[str]) -> Boosting:
    """How to fit the trees: for numbers the held-out rows choose the loss and the number of trees.

    Raises:
        TrainingError: scikit-learn is not installed.
    """
    first = boosting_of(spec, split.delay, seed)
    if spec.task == "classification":
        return first
    x, y = _rows(split, spec)
    learn, judge = np.sort(np.concatenate(split.learn)), np.concatenate(split.judge)
    labels = encode_targets(spec, split.table.targets())[judge]
    best, least, listed = first, np.inf, []
    for option in _options(first):
        trees = fit_trees(option, x[learn], y[learn])
        scores = tree_scores(trees, torch.from_numpy(x[judge].astype(np.float32)))
        error = float(np.abs(from_scale(spec.target, scores.double().numpy()) - labels).mean())
        listed.append(f"{_named(option)} {error:.4g}")
        if error < (1 - CLEARLY) * least:
            best, least = option, error
    choices.append(f"boosted trees: {_named(best)} (held-out error {', '.join(listed)})")
    return best


def _options(first: Boosting) -> Iterator[Boosting]:
    for iterations in (first.iterations, MORE_ITERATIONS * first.iterations):
        yield replace(first, iterations=iterations)
        yield replace(first, iterations=iterations, loss="squared_error")


def _named(boosting: Boosting) -> str:
    return f"{boosting.iterations} trees by {boosting.loss.replace('_', ' ')}"


def network_of_rows(spec: ModelSpec, delay: int = 0, seed: int = 0) -> Tabular:
    """How a network is fitted."""
    return Tabular(spec.task, classes=len(spec.target.classes), delay=delay, seed=seed)


def with_start(split: Split, spec: ModelSpec, how: Boosting | Tabular) -> Split:
    """The split with a start fitted on its rows to learn from, and its answers on all its rows.

    A row that the start was fitted on is answered by one that was fitted on others, so that an expert learns how far
    the start can be believed.

    Raises:
        TrainingError: scikit-learn is not installed, where trees are asked for.
    """
    x, y = _rows(split, spec)
    learn = np.sort(np.concatenate(split.learn))
    tensors = fit_start(how, x[learn], y[learn])
    found = start_scores(_kind(how), tensors, torch.from_numpy(x.astype(np.float32)))
    honest = cross_fitted(how, x[learn], y[learn], split.table.streams[learn])
    found[learn] = torch.from_numpy(honest).to(found.dtype)
    return split._replace(start=Start(tensors, link(spec.task, found), how))


def fit_start(how: Boosting | Tabular, x: FloatArray, y: FloatArray | IntArray) -> Tensors:
    """Trees or a network, fitted on rows (rows, D) in order of time, under the names of a model's start."""
    return fit_trees(how, x, y, PREFIX) if isinstance(how, Boosting) else fit_network(how, x, y, PREFIX)


def cross_fitted(
    how: Boosting | Tabular,
    x: FloatArray,
    y: FloatArray | IntArray,
    streams: IntArray | None = None,
    folds: int | None = None,
) -> FloatArray:
    """Raw scores (rows, K) of the rows to learn from, each from a start that was not fitted on it.

    Their residuals are what a head on top will meet in serving; residuals of the fitted rows are too small, and a
    prior learned from them trusts the start too much. Arguments and errors are those of ``crossfit.of_folds``.
    """

    def scores(learn_x: FloatArray, learn_y: FloatArray | IntArray, asked: FloatArray) -> FloatArray:
        found = start_scores(_kind(how), fit_start(how, learn_x, learn_y), torch.from_numpy(asked.astype(np.float32)))
        return np.asarray(found.numpy(), dtype=np.float64)

    if folds is None:
        folds = FOLDS if isinstance(how, Boosting) else NETWORK_FOLDS
    return of_folds(scores, x, y, streams, folds=folds, delay=how.delay)


def _kind(how: Boosting | Tabular) -> StartKind:
    return "boosted_trees" if isinstance(how, Boosting) else "tabular_network"


def with_start_of(split: Split, model: Model) -> Split:
    """The split with the start that a model has already, and its answers on all rows."""
    spec = model.spec
    if not spec.start:
        return split
    tensors = {name: tensor for name, tensor in model.meta.items() if name.startswith(PREFIX)}
    x, _ = _rows(split, spec)
    scores = start_scores(spec.start, tensors, torch.from_numpy(x.astype(np.float32)))
    return split._replace(start=Start(tensors, link(spec.task, scores)))


def _rows(split: Split, spec: ModelSpec) -> tuple[FloatArray, FloatArray]:
    """Standardised inputs (rows, D) of a split's table, and its targets in the learners' scale or class indices."""
    encoded = encode_targets(spec, split.table.targets())
    y = to_scale(spec.target, encoded) if spec.task == "regression" else encoded
    return standardise(Scales.of(spec.features), encode_rows(spec.features, split.table.values())), y
