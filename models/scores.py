"""What a prequential run showed, row by row, and its figures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.calibration import expected_calibration_error, inside
from models.tasks.table import Mask, Table
from models.types import FloatArray, TaskKind

COLD_ROWS = 20
"""Rows at a stream's beginning that the cold-start score looks at."""
ROLLING_POINTS = 400
AFTER_ALARM_ROWS = 50
"""Rows of a stream after an alarm at which calibration is looked at apart."""


class Alarm(NamedTuple):
    """A drift alarm of a run.

    Attributes:
        stream: Name of the stream.
        row: Index (from 0) within the stream of the row whose label raised it.
        file_row: Index of that row in the file's time order.
        detector: Name of the detector.
        statistic: Its statistic then.
        change_row: Index within the stream of the first row after the estimated change; -1 without an estimate.
    """

    stream: str
    row: int
    file_row: int
    detector: str
    statistic: float
    change_row: int


class Run(NamedTuple):
    """One contender's results, one entry a row of the table in time order.

    Attributes:
        name: What ran.
        score: (rows,) 1 where the class was right, else 0; or the absolute error.
        square: (rows,) squared error (regression); NaN where it is not known.
        loss: (rows,) negative log-likelihood in nats; NaN where the contender states no distribution.
        cpu_seconds: CPU time over all rows.
        alarms: Drift alarms; ``None`` for a contender without a detector.
        confidence: (rows,) probability given to the answered class; ``None`` where none is stated, as for numbers.
        inside: (rows,) 1 where the label lay in the stated 90% interval; ``None`` where none is stated, as for classes.
        width: (rows,) width of that interval, in units of the label.
    """

    name: str
    score: FloatArray
    square: FloatArray
    loss: FloatArray
    cpu_seconds: float | None = None
    alarms: tuple[Alarm, ...] | None = None
    confidence: FloatArray | None = None
    inside: FloatArray | None = None
    width: FloatArray | None = None

    def with_intervals(self, low: FloatArray, high: FloatArray, truth: FloatArray) -> "Run":
        """The same run, having stated these 90% intervals (rows,) of these labels."""
        return self._replace(inside=inside(low, high, truth), width=high - low)


class Scores(NamedTuple):
    """The figures of a run over the scored rows.

    Attributes:
        name: What ran.
        rows: Scored rows.
        score: Accuracy, or mean absolute error.
        rmse: Root mean squared error (regression).
        loss: Mean negative log-likelihood in nats.
        first20: ``score`` over those scored rows that are among the first 20 of their stream.
        alarms: Number of drift alarms at scored rows.
        cpu_us_per_row: CPU time, microseconds a row.
        ece: Expected calibration error over 15 bins of equal mass (classification).
        coverage: Share of labels in their 90% intervals (regression).
        width: Mean width of those intervals.
    """

    name: str
    rows: int
    score: float
    rmse: float | None
    loss: float | None
    first20: float | None
    alarms: int | None
    cpu_us_per_row: float | None
    ece: float | None = None
    coverage: float | None = None
    width: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(self._asdict())


def summarise(run: Run, table: Table, scored: Mask) -> Scores:
    """Figures of ``run`` over the rows where ``scored`` (rows,) holds."""
    cold = scored & (rank_in_stream(table) < COLD_ROWS)
    square = _mean(run.square[scored]) if table.task == "regression" else None
    alarms = None if run.alarms is None else sum(bool(scored[alarm.file_row]) for alarm in run.alarms)
    return Scores(
        name=run.name,
        rows=int(scored.sum()),
        score=float(run.score[scored].mean()),
        rmse=None if square is None else float(np.sqrt(square)),
        loss=_mean(run.loss[scored]),
        first20=_mean(run.score[cold]),
        alarms=alarms,
        cpu_us_per_row=None if run.cpu_seconds is None else run.cpu_seconds / table.rows * 1e6,
        ece=None if run.confidence is None else _calibration_error(run.confidence[scored], run.score[scored]),
        coverage=None if run.inside is None else _mean(run.inside[scored]),
        width=None if run.width is None else _mean(run.width[scored]),
    )


def after_alarms(table: Table, alarms: Sequence[Alarm], rows: int = AFTER_ALARM_ROWS) -> Mask:
    """The rows, in each alarm's own stream, that follow the row that raised it.

    Args:
        table: The rows.
        alarms: A run's alarms.
        rows: Rows of the stream after an alarm.

    Returns:
        (rows,) bool.
    """
    found = np.zeros(table.rows, dtype=np.bool_)
    places = {name: np.flatnonzero(table.streams == code) for code, name in enumerate(table.stream_names)}
    for alarm in alarms:
        found[places[alarm.stream][alarm.row + 1 : alarm.row + 1 + rows]] = True
    return found


def summarise_streams(run: Run, table: Table, scored: Mask) -> Mapping[str, Scores]:
    """Figures of ``run`` for each stream that has scored rows."""
    found = {}
    for code, name in enumerate(table.stream_names):
        rows = scored & (table.streams == code)
        if rows.any():
            found[name] = summarise(run, table, rows)
    return found


def rolling_score(run: Run, scored: Mask, window: int | None = None) -> tuple[FloatArray, FloatArray]:
    """Mean score over the last ``window`` scored rows, thinned to a few hundred points.

    Args:
        run: The run.
        scored: (rows,) bool.
        window: Rows; by default a 25th of the scored rows, between 20 and 1,000.

    Returns:
        Indices of rows in the file's time order, and the rolling score there.
    """
    values = run.score[scored]
    window = min(window or default_window(scored), len(values))
    total = np.cumsum(np.concatenate([np.zeros(1), values]))
    means = (total[window:] - total[:-window]) / window
    at = np.flatnonzero(scored)[window - 1 :]
    thin = np.unique(np.linspace(0, len(at) - 1, min(len(at), ROLLING_POINTS)).astype(np.int64))
    return at[thin].astype(np.float64), means[thin]


def default_window(scored: Mask) -> int:
    """Rows of the rolling mean where none is stated."""
    return int(np.clip(int(scored.sum()) // 25, 20, 1000))


def rank_in_stream(table: Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(rows,) index of each row within its stream."""
    rank = np.empty(table.rows, dtype=np.int64)
    for code in range(len(table.stream_names)):
        rows = table.streams == code
        rank[rows] = np.arange(rows.sum())
    return rank


def score_rows(task: TaskKind, predicted: FloatArray, truth: FloatArray) -> FloatArray:
    """(rows,) 1 or 0 for classes given as indices, absolute errors for numbers."""
    if task == "classification":
        return np.asarray(predicted == truth, dtype=np.float64)
    return np.asarray(np.abs(predicted - truth), dtype=np.float64)


def _calibration_error(confidence: FloatArray, correct: FloatArray) -> float | None:
    return expected_calibration_error(confidence, correct) if len(confidence) else None


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if len(values) and not np.isnan(values).any() else None
