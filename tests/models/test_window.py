"""The window baseline is ridge regression on the last known rows of the stream, no more and no less."""

from pathlib import Path

import numpy as np
import pytest

from models import Report, Run, Table
from models.contest import Course, course_of
from models.targets import from_scale
from models.window import PRECISION, Sums, as_probabilities, slide, solve, window_ridge
from tests.models.examples import small_engine, small_table


def _course(table: Table, task: str, batch: int, delay: int) -> tuple[Course, Run]:
    engine = small_engine(task)
    inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    nothing = Run("nothing", *np.full((3, table.rows), np.nan))
    scored = np.ones(table.rows, dtype=np.bool_)
    report = Report(nothing, nothing, np.zeros((table.rows, 0)), scored, table, batch, delay)
    spec = engine.model.spec
    return course_of(spec, report, inputs, targets, plain=True), window_ridge(
        spec, report, inputs, targets, window_rows=12
    )


def _known(table: Table, row: int, batch: int, delay: int) -> list[int]:
    """Brute force: rows of the row's stream whose batch is complete and known before it."""
    mine = np.flatnonzero(table.streams == table.streams[row]).tolist()
    batches = [mine[start : start + batch] for start in range(0, len(mine), batch)]
    own = next(rows for rows in batches if row in rows)
    moment = row if delay else own[0]  # without delay a batch is predicted as one
    return [each for rows in batches if rows is not own and rows[-1] + delay < moment for each in rows]


@pytest.mark.parametrize(("batch", "delay"), [(1, 0), (3, 0), (1, 5), (4, 7)])
def test_window_is_ridge_regression_on_the_last_known_rows(tmp_path: Path, batch: int, delay: int) -> None:
    """Row by row against one solution of the normal equations, at every batch and delay."""
    table = small_table(tmp_path, 90)
    course, run = _course(table, "regression", batch, delay)
    x = np.concatenate([np.ones((table.rows, 1)), course.x], axis=1)
    for row in range(table.rows):
        rows = _known(table, row, batch, delay)[-12:]
        gram = x[rows].T @ x[rows] + PRECISION * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x[rows].T @ course.y[rows])
        expected = from_scale(course.spec.target, x[row] @ weights)[0]
        assert run.score[row] == pytest.approx(abs(expected - course.labels[row, 0]), abs=1e-8)


def test_window_states_honest_intervals_and_losses(tmp_path: Path) -> None:
    """Of a linear law with normal noise: nine of ten labels inside, and the loss of the true density nearly reached."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.ones((1, 400, 1)), rng.normal(size=(1, 400, 3))], axis=2)
    y = x @ np.array([[0.2], [1.0], [-1.0], [0.5]]) + 0.3 * rng.normal(size=(1, 400, 1))
    fit = solve(
        slide(Sums(np.zeros((1, 4, 4)), np.zeros((1, 4, 1)), np.zeros((1, 1)), np.zeros(1)), x, y, np.ones((1, 400)))
    )
    np.testing.assert_allclose(fit.weights[0, :, 0], [0.2, 1.0, -1.0, 0.5], atol=0.06)
    assert fit.noise[0, 0] == pytest.approx(0.09, rel=0.15)
    table = small_table(tmp_path, 300)
    _, run = _course(table, "regression", 1, 0)
    assert run.inside is not None
    assert run.inside.mean() > 0.8
    assert np.isfinite(run.loss).all()


def test_rows_that_leave_are_forgotten_whole() -> None:
    """Sums after rows came and went are those of the rows that stay."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 30, 3)), rng.normal(size=(2, 30, 2))
    empty = Sums(np.zeros((2, 3, 3)), np.zeros((2, 3, 2)), np.zeros((2, 2)), np.zeros(2))
    came = slide(empty, x, y, np.ones((2, 30)))
    left = slide(came, x[:, :20], y[:, :20], -np.ones((2, 20)))
    for found, expected in zip(left, slide(empty, x[:, 20:], y[:, 20:], np.ones((2, 10))), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_window_classifies_and_states_probabilities(tmp_path: Path) -> None:
    """Better than chance after some rows; no probability is zero, all sum to one."""
    table = small_table(tmp_path, 400, streams=1, task="classification")
    _, run = _course(table, "classification", 1, 0)
    assert run.score[50:200].mean() > 0.7
    assert run.confidence is not None
    assert (run.confidence >= 0.5).all()
    assert run.loss.max() <= -np.log(1e-3 / 1.001) + 1e-9
    np.testing.assert_allclose(as_probabilities(np.array([[-0.2, 1.4], [0.3, 0.7]])).sum(1), 1.0)
