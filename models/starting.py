"""Frozen starts of a split: boosted trees, how they are best fitted, and their honest answers."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from models.boosting import FOLDS, Boosting, cross_fitted, fit_trees
from models.bundle import Model
from models.features import Scales, encode_rows, standardise
from models.start import PREFIX, link
from models.targets import encode_targets, from_scale, to_scale
from models.training import CLEARLY, Split, Start
from models.trees import tree_scores
from models.types import FloatArray, ModelSpec

TREES_ROWS_MIN = 200
"""Fewer rows make no trees worth fitting."""
MORE_ITERATIONS = 3
"""Factor by which more trees are tried, for numbers."""


def enough_for_trees(split: Split) -> bool:
    """Whether trees can be fitted on some of the rows to learn from and tried on the others."""
    rows = sum(len(places) for places in split.learn)
    return rows >= TREES_ROWS_MIN and rows >= FOLDS * split.delay


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


def with_start(split: Split, spec: ModelSpec, boosting: Boosting) -> Split:
    """The split with boosted trees fitted on its rows to learn from, and their answers on all its rows.

    A row that trees were fitted on is answered by trees that were fitted on others, so that an expert learns how far
    the start can be believed.

    Raises:
        TrainingError: scikit-learn is not installed.
    """
    x, y = _rows(split, spec)
    learn = np.sort(np.concatenate(split.learn))
    trees = fit_trees(boosting, x[learn], y[learn], PREFIX)
    scores = tree_scores(trees, torch.from_numpy(x.astype(np.float32)), PREFIX)
    honest = cross_fitted(boosting, x[learn], y[learn], split.table.streams[learn])
    scores[learn] = torch.from_numpy(honest).to(scores.dtype)
    return split._replace(start=Start(trees, link(spec.task, scores), boosting))


def with_start_of(split: Split, model: Model) -> Split:
    """The split with the start that a model has already, and its answers on all rows."""
    spec = model.spec
    if not spec.start:
        return split
    trees = {name: tensor for name, tensor in model.meta.items() if name.startswith(PREFIX)}
    x, _ = _rows(split, spec)
    scores = tree_scores(trees, torch.from_numpy(x.astype(np.float32)), PREFIX)
    return split._replace(start=Start(trees, link(spec.task, scores)))


def _rows(split: Split, spec: ModelSpec) -> tuple[FloatArray, FloatArray]:
    """Standardised inputs (rows, D) of a split's table, and its targets in the learners' scale or class indices."""
    encoded = encode_targets(spec, split.table.targets())
    y = to_scale(spec.target, encoded) if spec.task == "regression" else encoded
    return standardise(Scales.of(spec.features), encode_rows(spec.features, split.table.values())), y
