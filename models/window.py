"""What an adapted stream has to beat, too: a linear model of the last rows of the stream, solved exactly.

The posterior of a Bayesian linear regression with prior precision λ, given the last W rows of the stream whose labels
are known, and nothing else: no meta-learning, no weights for age, no detector. Rows that leave are taken out of the
sums, so that a row costs one solution of F equations whatever W is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.contest import Course, course_of, finish_classes, finish_numbers
from models.lockstep import Event, Progress, run
from models.prequential import Report
from models.scores import Run
from models.tasks.table import IntArray
from models.types import FloatArray, ModelSpec

WINDOW_ROWS = 500
"""Rows of the window, the same for every data set: searching it on the scored rows would flatter the baseline."""
PRECISION = 1.0
"""λ: prior precision of every weight, in units of the noise's."""
NOISE_ROWS = 2.0
"""Rows of variance 1, the training labels', that the estimate of the noise begins with."""
PROBABILITY_FLOOR = 1e-3
"""Least probability of a class: one certain mistake may not decide the log loss."""


class Sums(NamedTuple):
    """Sufficient statistics of the rows in S windows.

    Attributes:
        gram: (S, F, F) Σ x xᵀ.
        cross: (S, F, O) Σ x yᵀ.
        squares: (S, O) Σ y².
        rows: (S,) how many.
    """

    gram: FloatArray
    cross: FloatArray
    squares: FloatArray
    rows: FloatArray


class Fit(NamedTuple):
    """S posteriors: weights (S, F, O), their covariance in units of the noise (S, F, F), noise variance (S, O)."""

    weights: FloatArray
    covariance: FloatArray
    noise: FloatArray


def window_ridge(
    spec: ModelSpec,
    report: Report,
    inputs: FloatArray,
    targets: FloatArray,
    *,
    window_rows: int = WINDOW_ROWS,
    progress: Progress | None = None,
) -> Run:
    """The last ``window_rows`` known rows of a stream, refitted before every batch.

    Classes are regressed on as C indicators, and the answers cut to probabilities (a linear probability model).

    Args:
        spec: The model whose inputs are taken over.
        report: The model's own run: table, batches, delay and lag values.
        inputs: (rows, D) encoded inputs.
        targets: (rows, O) encoded targets.
        window_rows: W.
        progress: Told the number of rows learned so far.
    """
    course = course_of(spec, report, inputs, targets, plain=True)
    contender = _Window(course, window_rows)
    cpu_seconds = run(contender, report.table, batch=report.batch, delay=report.delay, progress=progress)
    name = f"window of {window_rows} rows"
    if spec.task == "regression":
        return finish_numbers(course, name, contender.answers[:, 0], np.sqrt(contender.variance[:, 0]), cpu_seconds)
    return finish_classes(course, name, as_probabilities(contender.answers + 1 / spec.outputs), cpu_seconds)


def slide(sums: Sums, x: FloatArray, y: FloatArray, sign: FloatArray) -> Sums:
    """Sums after rows (S, B, F), (S, B, O) have come or gone; ``sign`` (S, B): 1, -1, or 0 for padding."""
    signed = x * sign[..., None]
    return Sums(
        sums.gram + signed.transpose(0, 2, 1) @ x,
        sums.cross + signed.transpose(0, 2, 1) @ y,
        sums.squares + (sign[..., None] * y**2).sum(1),
        sums.rows + sign.sum(1),
    )


def solve(sums: Sums) -> Fit:
    """The posterior of each window: weights (XᵀX + λI)⁻¹XᵀY; the noise is that of the residuals and the prior rows."""
    precision = sums.gram + PRECISION * np.eye(sums.gram.shape[1])
    covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    weights = covariance @ sums.cross
    left = np.maximum(sums.squares - (weights * sums.cross).sum(1), 0.0)  # residuals and the prior's share
    return Fit(weights, covariance, (left + NOISE_ROWS) / (sums.rows[:, None] + NOISE_ROWS))


def as_probabilities(values: FloatArray) -> FloatArray:
    """Rows (…, C) cut to [floor, 1] and made to sum to 1."""
    cut = np.clip(values, PROBABILITY_FLOOR, 1.0)
    return np.asarray(cut / cut.sum(-1, keepdims=True), dtype=np.float64)


class _Window:
    def __init__(self, course: Course, window_rows: int) -> None:
        rows = len(course.x)
        self.window_rows = window_rows
        self.x = np.concatenate([np.ones((rows, 1)), course.x], axis=1)
        self.y = course.y
        if course.spec.task == "classification":
            self.y = np.eye(course.spec.outputs)[course.y[:, 0].astype(np.int64)] - 1 / course.spec.outputs
        self.answers, self.variance = np.zeros_like(self.y), np.ones_like(self.y)
        self.known: dict[int, IntArray] = {}
        self.sums: dict[int, Sums] = {}

    def open(self, stream: int) -> int:
        width, outputs = self.x.shape[1], self.y.shape[1]
        self.known[stream] = np.zeros(0, dtype=np.int64)
        self.sums[stream] = Sums(np.zeros((width, width)), np.zeros((width, outputs)), np.zeros(outputs), np.zeros(()))
        return stream

    def close(self, handle: int) -> None:
        del self.known[handle], self.sums[handle]

    def predict(self, items: Sequence[tuple[int, IntArray]]) -> None:
        fit = solve(self._stacked([handle for handle, _ in items]))
        for at, (_, rows) in enumerate(items):
            x = self.x[rows]
            self.answers[rows] = x @ fit.weights[at]
            self.variance[rows] = (1 + ((x @ fit.covariance[at]) * x).sum(1))[:, None] * fit.noise[at]

    def learn(self, items: Sequence[tuple[int, Event]]) -> None:
        asked = [(handle, event.rows) for handle, event in items if event.predict]
        if asked:
            self.predict(asked)
        moves = []
        for handle, event in items:
            window = np.concatenate([self.known[handle], event.rows])
            self.known[handle] = window[-self.window_rows :]
            gone = window[: -self.window_rows]
            moves.append((np.concatenate([event.rows, gone]), np.repeat([1.0, -1.0], [len(event.rows), len(gone)])))
        longest = max(len(rows) for rows, _ in moves)
        rows = np.stack([np.pad(rows, (0, longest - len(rows))) for rows, _ in moves])  # (S, B)
        sign = np.stack([np.pad(sign, (0, longest - len(sign))) for _, sign in moves])
        moved = slide(self._stacked([handle for handle, _ in items]), self.x[rows], self.y[rows], sign)
        for at, (handle, _) in enumerate(items):
            self.sums[handle] = Sums(*(part[at] for part in moved))

    def _stacked(self, handles: Sequence[int]) -> Sums:
        return Sums(*(np.stack(parts) for parts in zip(*(self.sums[handle] for handle in handles), strict=True)))
