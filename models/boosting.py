"""Boosted trees, fitted by scikit-learn and handed over as plain tensors for ``models.trees``.

scikit-learn is needed to fit and for nothing else: it is an optional extra, and no object of its outlives a call here.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np

from models.errors import TrainingError
from models.trees import LEAVES_MAX, PREFIX, BoolArray, IntArray, Tree, pack_trees
from models.types import FloatArray, TaskKind, Tensors

CATEGORIES_MAX = 255
"""Categories of one feature that trees tell apart, the most frequent ones; the others count as missing."""
PATIENCE = 10
"""Iterations without a better held-out loss after which no more are tried."""


@dataclass(frozen=True, slots=True)
class Boosting:
    """How to fit.

    Attributes:
        task: What is predicted.
        classes: C, all that the model knows, whether or not the rows show them (classification).
        categorical: Columns that hold codes.
        loss: Of regression; classification has the log loss.
        iterations: Trees per score; at most so many where ``held_out`` is not 0.
        leaves: Most leaves of a tree, 2 to 64.
        learning_rate: Share of each tree's correction that is added.
        rows_min: Least rows of a leaf.
        held_out: Share of the rows, the last in time, whose loss chooses the number of iterations before all rows are
            fitted with it; 0 takes ``iterations``.
        delay: Rows after which a label is known: so many between fitted and held-out rows are left out.
        seed: Of the sample that scikit-learn bins by, where rows are more than 200,000.
    """

    task: TaskKind
    classes: int = 0
    categorical: tuple[int, ...] = ()
    loss: Literal["squared_error", "absolute_error"] = "squared_error"
    iterations: int = 100
    leaves: int = 31
    learning_rate: float = 0.1
    rows_min: int = 20
    held_out: float = 0.15
    delay: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task == "classification" and self.classes < 2:  # noqa: PLR2004 - or there is nothing to tell apart
            raise ValueError(f"classification needs two or more classes, got {self.classes}")
        if not 2 <= self.leaves <= LEAVES_MAX:  # noqa: PLR2004 - a split
            raise ValueError(f"leaves must be 2 to {LEAVES_MAX}, got {self.leaves}")
        if self.iterations < 1 or not 0 <= self.held_out < 1 or self.delay < 0:
            raise ValueError("iterations must be 1 or more, held_out in [0, 1), delay 0 or more")


def installed() -> bool:
    """Whether scikit-learn is there to fit with."""
    return find_spec("sklearn") is not None


def fit_trees(boosting: Boosting, x: FloatArray, y: FloatArray | IntArray, prefix: str = PREFIX) -> Tensors:
    """Fit boosted trees.

    A class that no row shows gets one row, a copy of the last: the scores are those of all C classes in any case.

    Args:
        boosting: How.
        x: (rows, D) in order of time, compared as float32; codes in categorical columns; NaN is missing.
        y: (rows,) or (rows, O) standardised targets (regression), or (rows,) class indices.
        prefix: Begins the tensors' names.

    Returns:
        Tensors for ``tree_scores``, whose K is O (regression), 1 (two classes) or C. The same settings and rows give
        the same tensors.

    Raises:
        TrainingError: scikit-learn is not installed, or there are no rows.
    """
    if not len(x):
        raise TrainingError("boosted trees need rows to fit, got none")
    if boosting.task == "classification":
        return _pack([_fitted(boosting, x, y.reshape(-1).astype(np.int64))], prefix)
    outputs = y.reshape(len(x), -1)
    return _pack([_fitted(boosting, x, outputs[:, output]) for output in range(outputs.shape[1])], prefix)


class _Ensemble(NamedTuple):
    """Boosting iterations of K' trees each, and the scores without any."""

    rounds: list[list[Tree]]
    baseline: list[float]


def _pack(ensembles: list[_Ensemble], prefix: str) -> Tensors:
    """Side by side: several regression outputs, whose numbers of iterations may differ."""
    longest = max(len(ensemble.rounds) for ensemble in ensembles)
    empty: list[list[Tree | None]] = [[None] * len(ensemble.baseline) for ensemble in ensembles]
    rounds = [
        [
            tree
            for ensemble, none in zip(ensembles, empty, strict=True)
            for tree in (ensemble.rounds[turn] if turn < len(ensemble.rounds) else none)
        ]
        for turn in range(longest)
    ]
    return pack_trees(rounds, [score for ensemble in ensembles for score in ensemble.baseline], prefix)


def _fitted(boosting: Boosting, x: FloatArray, y: FloatArray | IntArray) -> _Ensemble:
    """Fit one output, or all classes."""
    rows = x.astype(np.float32).astype(np.float64)  # what serving compares
    for column in boosting.categorical:
        rows[:, column] = _frequent(rows[:, column])
    held = int(boosting.held_out * len(rows))
    kept = len(rows) - held - boosting.delay
    iterations = boosting.iterations
    if held and kept > 0:
        iterations = _best_iterations(boosting, rows, y, kept, len(rows) - held)
    model = _estimator(boosting, iterations)
    model.fit(*_with_every_class(boosting, rows, y))
    return _converted(model)


def _best_iterations(boosting: Boosting, x: FloatArray, y: FloatArray | IntArray, kept: int, first_held: int) -> int:
    """Number of iterations, 1 or more, with the least loss on the rows from ``first_held`` on."""
    model = _estimator(boosting, boosting.iterations, early_stopping=True)
    learn_x, learn_y = _with_every_class(boosting, x[:kept], y[:kept])
    model.fit(learn_x, learn_y, X_val=x[first_held:], y_val=y[first_held:])
    return max(1, int(np.argmax(model.validation_score_)))  # the first score is without any tree


def _estimator(boosting: Boosting, iterations: int, *, early_stopping: bool = False) -> Any:
    """An unfitted estimator of scikit-learn, which is imported here and nowhere else."""
    try:
        from sklearn import ensemble  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise TrainingError('boosted trees need scikit-learn: pip install "acclimate[train]"') from error
    settings = {
        "max_iter": iterations,
        "max_leaf_nodes": boosting.leaves,
        "learning_rate": boosting.learning_rate,
        "min_samples_leaf": boosting.rows_min,
        "categorical_features": list(boosting.categorical) or None,
        "early_stopping": early_stopping,
        "n_iter_no_change": PATIENCE,
        "random_state": boosting.seed,
    }
    if boosting.task == "classification":
        return ensemble.HistGradientBoostingClassifier(**settings)
    return ensemble.HistGradientBoostingRegressor(loss=boosting.loss, **settings)


def _with_every_class(
    boosting: Boosting, x: FloatArray, y: FloatArray | IntArray
) -> tuple[FloatArray, FloatArray | IntArray]:
    """The rows, and for each class that none shows a copy of the last row."""
    if boosting.task == "regression":
        return x, y
    absent = np.setdiff1d(np.arange(boosting.classes), y)
    return np.concatenate((x, np.repeat(x[-1:], len(absent), 0))), np.concatenate((y, absent))


def _frequent(codes: FloatArray) -> FloatArray:
    """Codes (rows,) with all but the most frequent ones missing: a split of scikit-learn holds no more."""
    values, counts = np.unique(codes[~np.isnan(codes)], return_counts=True)
    if len(values) <= CATEGORIES_MAX:
        return codes
    frequent = values[np.argsort(-counts, kind="stable")[:CATEGORIES_MAX]]
    return np.where(np.isin(codes, frequent), codes, np.nan)


def _converted(model: Any) -> _Ensemble:
    """Trees of a fitted estimator. These attributes are scikit-learn's own business: tests compare what comes out."""
    columns = np.arange(model.n_features_in_)
    categories: dict[int, IntArray] = {}
    if model.is_categorical_ is not None:  # trees see categorical columns first, as ordinals of the codes that occur
        columns = np.concatenate((np.flatnonzero(model.is_categorical_), np.flatnonzero(~model.is_categorical_)))
        encoder = model._preprocessor.named_transformers_["encoder"]  # noqa: SLF001 - no public way
        for column, found in zip(columns, encoder.categories_, strict=False):
            categories[int(column)] = found[~np.isnan(found)].astype(np.int64)
    rounds = [[_tree(tree, columns, categories) for tree in trees] for trees in model._predictors]  # noqa: SLF001
    return _Ensemble(rounds, [float(score) for score in model._baseline_prediction.reshape(-1)])  # noqa: SLF001


def _tree(predictor: Any, columns: IntArray, categories: dict[int, IntArray]) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(np.bool_)
    feature = columns[nodes["feature_idx"]]
    codes_left = {
        int(node): _codes_left(
            predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]],
            categories[int(feature[node])],
            missing_left=bool(nodes["missing_go_to_left"][node]),
        )
        for node in np.flatnonzero(nodes["is_categorical"].astype(np.bool_) & ~leaf)
    }
    return Tree(
        feature=feature,
        threshold=nodes["num_threshold"],
        missing_left=nodes["missing_go_to_left"].astype(np.bool_),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        value=nodes["value"],
        codes_left=codes_left,
    )


def _codes_left(bitset: Any, codes: IntArray, *, missing_left: bool) -> BoolArray:
    """Whether each code goes left, from the bits of its ordinal; a code that fitting did not see goes as missing."""
    ordinal = np.arange(len(codes))
    goes_left = np.full(int(codes.max(initial=-1)) + 1, missing_left, np.bool_)
    goes_left[codes] = (bitset[ordinal >> 5] >> (ordinal & 31).astype(np.uint32)) & 1
    return goes_left
