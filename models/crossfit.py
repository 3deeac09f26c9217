"""Cross-fitting: what a model says of rows that it was not fitted on."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from models.errors import TrainingError
from models.trees import IntArray
from models.types import FloatArray

FOLDS = 5
Scores = Callable[[FloatArray, FloatArray | IntArray, FloatArray], FloatArray]
"""From rows and targets to fit on, and rows that are asked for, to scores (rows, K) of the latter."""


def of_folds(
    scores: Scores,
    x: FloatArray,
    y: FloatArray | IntArray,
    streams: IntArray | None = None,
    *,
    folds: int = FOLDS,
    delay: int = 0,
) -> FloatArray:
    """Scores (rows, K) of all rows, each fold's from a fit on the others.

    Args:
        scores: Fits and answers.
        x: (rows, D) in order of time.
        y: Targets of the rows.
        streams: (rows,) code of each row's stream; None is one stream.
        folds: Of one stream contiguous blocks of time, with ``delay`` rows left out on either side; of several
            streams whole streams, as many folds as there are streams if those are fewer.
        delay: Rows after which a label is known.

    Raises:
        TrainingError: A fold leaves no rows to fit on.
    """
    parts, order = [], []
    for learn, judge in _folds(len(x), streams, folds, delay):
        if not len(learn):
            raise TrainingError(
                f"{len(x)} rows are too few for {folds} folds with labels {delay} rows late; "
                "give more rows or fewer folds"
            )
        parts.append(scores(x[learn], y[learn], x[judge]))
        order.append(judge)
    found = np.empty((len(x), parts[0].shape[1]))
    found[np.concatenate(order)] = np.concatenate(parts)
    return found


class Fold(NamedTuple):
    """Indices of the rows to fit on and of the rows to score."""

    learn: IntArray
    judge: IntArray


def _folds(rows: int, streams: IntArray | None, folds: int, delay: int) -> Iterator[Fold]:
    """Every row is scored in one fold."""
    places = np.arange(rows)
    if streams is None or len(np.unique(streams)) == 1:
        for judge in np.array_split(places, folds):
            if len(judge):
                yield Fold(places[(places < judge[0] - delay) | (places > judge[-1] + delay)], judge)
        return
    fold = _balanced(streams, folds)
    for number in np.unique(fold):
        yield Fold(places[fold != number], places[fold == number])


def _balanced(streams: IntArray, folds: int) -> IntArray:
    """The fold of each row (rows,): streams, longest first, each into the fold that has fewest rows."""
    _, stream, lengths = np.unique(streams, return_inverse=True, return_counts=True)
    fold_rows = np.zeros(min(folds, len(lengths)), np.int64)
    fold = np.zeros(len(lengths), np.int64)
    for place in np.argsort(-lengths, kind="stable"):
        fold[place] = fold_rows.argmin()
        fold_rows[fold[place]] += lengths[place]
    return fold[stream]
