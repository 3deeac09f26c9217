"""River's models as contenders: what somebody would run who adapts online without a meta-learned start.

They learn row by row, in the same loop as the model, from the same inputs and lag values; targets are standardised.
Where a table has several streams each of River's models runs twice: a model of its own for each stream, and *shared*,
one model that learns all streams in the order of the file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from models.contest import Course, course_of, finish_classes, finish_numbers
from models.errors import TrainingError
from models.lockstep import Event, Progress, run, run_in_order
from models.prequential import Report
from models.scores import Run
from models.tasks.table import IntArray
from models.types import FloatArray, ModelSpec, TaskKind
from models.window import as_probabilities

NEIGHBOUR_ROWS = 1000
"""Rows that the nearest neighbours are looked for among: the last ones."""
TREES = 10
RIVER_MODELS: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": ("logistic", "HAT", "ARF", "kNN"),
    "regression": ("linear", "HAT", "ARF", "kNN"),
}
"""Which of River's models run, by task: linear ones, the Hoeffding adaptive tree, the adaptive random forest and
nearest neighbours; a ``StandardScaler`` before those that need it, River's defaults otherwise."""


def river_installed() -> bool:
    """Whether River is there to compare with."""
    return find_spec("river") is not None


def river_rival(
    spec: ModelSpec,
    report: Report,
    inputs: FloatArray,
    targets: FloatArray,
    *,
    model: str,
    shared: bool,
    seed: int = 0,
    progress: Progress | None = None,
) -> Run:
    """One of River's models over the rows that a model has run over.

    Args:
        spec: The model whose inputs are taken over.
        report: The model's own run: table, batches, delay and lag values.
        inputs: (rows, D) encoded inputs.
        targets: (rows, O) encoded targets.
        model: An entry of ``RIVER_MODELS``.
        shared: One model for all streams instead of one for each.
        seed: Of trees and forests.
        progress: Told the number of rows learned so far.

    Raises:
        TrainingError: River is not installed.
    """
    course = course_of(spec, report, inputs, targets, plain=True)
    contender = _River(course, river_factory(spec.task, model, seed), shared=shared)
    go = run_in_order if shared else run
    cpu_seconds = go(contender, report.table, batch=report.batch, delay=report.delay, progress=progress)
    name = f"River {model}" + (", shared" if shared else "")
    if spec.task == "regression":
        return finish_numbers(course, name, contender.answers[:, 0], None, cpu_seconds)
    return finish_classes(course, name, as_probabilities(contender.answers), cpu_seconds)


def river_factory(task: TaskKind, model: str, seed: int) -> Callable[[], Any]:
    """What makes a fresh model of River's, which is imported here and nowhere else.

    Raises:
        TrainingError: River is not installed.
    """
    try:
        from river import forest, linear_model, neighbors, preprocessing, tree  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise TrainingError('River\'s models need River: pip install "acclimate[compare]"') from error
    scaled = preprocessing.StandardScaler

    def nearest() -> Any:
        return neighbors.LazySearch(window_size=NEIGHBOUR_ROWS)

    table: dict[tuple[str, str], Callable[[], Any]] = {
        ("classification", "logistic"): lambda: scaled() | linear_model.LogisticRegression(),
        ("classification", "HAT"): lambda: tree.HoeffdingAdaptiveTreeClassifier(seed=seed),
        ("classification", "ARF"): lambda: forest.ARFClassifier(n_models=TREES, seed=seed),
        ("classification", "kNN"): lambda: scaled() | neighbors.KNNClassifier(engine=nearest()),
        ("regression", "linear"): lambda: scaled() | linear_model.LinearRegression(),
        ("regression", "HAT"): lambda: tree.HoeffdingAdaptiveTreeRegressor(seed=seed),
        ("regression", "ARF"): lambda: forest.ARFRegressor(n_models=TREES, seed=seed),
        ("regression", "kNN"): lambda: scaled() | neighbors.KNNRegressor(engine=nearest()),
    }
    return table[task, model]


class _River:
    """One model a stream, or one for all."""

    def __init__(self, course: Course, make: Callable[[], Any], *, shared: bool) -> None:
        self.task = course.spec.task
        self.make = make
        self.shared = make() if shared else None
        self.x = course.x
        self.y = course.y[:, 0].tolist()
        self.answers = np.zeros((len(course.x), course.spec.outputs))
        """(rows, O) standardised means, or (rows, C) unnormalised probabilities."""
        self.models: dict[int, Any] = {}

    def open(self, stream: int) -> int:
        self.models[stream] = self.shared or self.make()
        return stream

    def close(self, handle: int) -> None:
        del self.models[handle]

    def predict(self, items: Sequence[tuple[int, IntArray]]) -> None:
        for handle, rows in items:
            for row in rows:
                self._answer(self.models[handle], int(row), self._features(row))

    def learn(self, items: Sequence[tuple[int, Event]]) -> None:
        for handle, event in items:
            model = self.models[handle]
            features = [self._features(row) for row in event.rows]
            if event.predict:
                for row, x in zip(event.rows, features, strict=True):
                    self._answer(model, int(row), x)
            for row, x in zip(event.rows, features, strict=True):
                y = self.y[row]
                model.learn_one(x, int(y) if self.task == "classification" else y)

    def _features(self, row: int) -> dict[int, float]:
        return dict(enumerate(self.x[row].tolist()))

    def _answer(self, model: Any, row: int, x: dict[int, float]) -> None:
        if self.task == "classification":
            for code, probability in model.predict_proba_one(x).items():
                self.answers[row, int(code)] = probability if math.isfinite(probability) else 0.0
        else:
            value = model.predict_one(x)
            self.answers[row, 0] = value if math.isfinite(value) else 0.0
