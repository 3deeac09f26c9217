"""Baselines run on the same rows and delays as the model, and stay finite."""

from pathlib import Path

import numpy as np
import pytest

from models import Report, Run, Table, read_table
from models.baselines import last_value, online_sgd
from tests.models.examples import small_engine, small_model, small_table


def _last_labels(streams: list[int], labels: list[float], batch: int, delay: int) -> list[float]:
    """Brute force: the newest label of the row's stream whose batch is complete and known."""
    batches: dict[int, list[list[int]]] = {}
    for row, stream in enumerate(streams):
        mine = batches.setdefault(stream, [])
        if not mine or len(mine[-1]) == batch:
            mine.append([])
        mine[-1].append(row)
    found = []
    for row, stream in enumerate(streams):
        own = next(rows for rows in batches[stream] if row in rows)
        moment = row if delay else own[0]  # without delay a batch is predicted as one
        known = [
            rows[-1]
            for rows in batches[stream]
            if rows is not own and rows[-1] + delay < moment and (len(rows) == batch or rows[-1] < row)
        ]
        found.append(labels[known[-1]] if known else 0.0)
    return found


@pytest.mark.parametrize(("batch", "delay"), [(1, 0), (3, 0), (1, 5), (3, 9)])
def test_last_value_is_the_newest_label_known(tmp_path: Path, batch: int, delay: int) -> None:
    """Of the row's own stream, at the stated delay; the middle of the training labels before any."""
    table = small_table(tmp_path, 80)
    spec = small_model().spec
    targets = np.array(table.targets())[:, None]
    run = last_value(spec, table, targets, batch=batch, delay=delay)
    expected = _last_labels(table.streams.tolist(), targets[:, 0].tolist(), batch, delay)
    np.testing.assert_allclose(run.score, np.abs(targets[:, 0] - np.array(expected)))


def _report(table: Table, batch: int = 1, delay: int = 0) -> Report:
    """A report of which a baseline takes the table, the batches and the lag values alone."""
    nothing = Run("nothing", *np.full((3, table.rows), np.nan))
    scored = np.ones(table.rows, dtype=np.bool_)
    return Report(nothing, nothing, np.zeros((table.rows, 0)), scored, table, batch, delay)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize(("batch", "delay"), [(1, 0), (4, 6)])
def test_online_sgd_learns_from_a_random_start(tmp_path: Path, task: str, batch: int, delay: int) -> None:
    """What follows its first rows is better than they; the same seed gives the same run."""
    table = small_table(tmp_path, 600, streams=1, task=task)
    engine = small_engine(task)
    inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    report = _report(table, batch, delay)
    run, again = (online_sgd(engine.model.spec, report, inputs, targets) for _ in range(2))
    early, late = run.score[:100].mean(), run.score[200:300].mean()
    assert late < early if task == "regression" else late > early
    assert np.isfinite(run.loss).all()
    np.testing.assert_array_equal(run.score, again.score)


def test_online_sgd_moves_streams_together_as_it_moves_them_alone(tmp_path: Path) -> None:
    """One network a stream: the others do not matter."""
    table = small_table(tmp_path, 90)
    engine = small_engine()
    inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    together = online_sgd(engine.model.spec, _report(table, 2), inputs, targets)
    for code in range(3):
        mine = table.streams == code
        part = table.take(mine)
        alone = online_sgd(engine.model.spec, _report(part, 2), inputs[mine], targets[mine])
        np.testing.assert_allclose(together.score[mine], alone.score, rtol=1e-4, atol=1e-6)


def test_online_sgd_survives_wild_rows(tmp_path: Path) -> None:
    """Inputs and labels a million times too large move it by bounded steps."""
    rng = np.random.default_rng(0)
    wild = {20: "{0:.3f},1e9,{0:.3f}", 30: "{0:.3f},{0:.3f},1e12"}
    usual = "{0:.3f},{0:.3f},{0:.3f}"
    lines = [f"{t},s," + wild.get(t, usual).format(a) for t, a in enumerate(rng.normal(size=60))]
    file = tmp_path / "wild.csv"
    file.write_text("t,shop,a,b,y\n" + "\n".join(lines) + "\n", encoding="utf-8")
    table = read_table([file], target="y", stream_column="shop", time_column="t")
    engine = small_engine()
    inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    run = online_sgd(engine.model.spec, _report(table), inputs, targets)
    assert np.isfinite(run.score).all()
    assert run.score[45:].mean() < 5
