"""River's models run in the same loop: each row is predicted before its label is learned, in the order stated."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from river import linear_model, preprocessing

from models import RIVER_MODELS, Report, Run, Table, TrainingError
from models.contest import Course, course_of
from models.lockstep import events, events_in_order
from models.rivers import river_factory, river_rival
from models.targets import from_scale
from tests.models.examples import small_engine, small_table


def _run(table: Table, task: str, model: str, *, shared: bool, batch: int = 1, delay: int = 0) -> tuple[Course, Run]:
    engine = small_engine(task)
    inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    nothing = Run("nothing", *np.full((3, table.rows), np.nan))
    scored = np.ones(table.rows, dtype=np.bool_)
    report = Report(nothing, nothing, np.zeros((table.rows, 0)), scored, table, batch, delay)
    spec = engine.model.spec
    return course_of(spec, report, inputs, targets, plain=True), river_rival(
        spec, report, inputs, targets, model=model, shared=shared
    )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("delay", [0, 6])
def test_the_run_is_river_s_own_loop(tmp_path: Path, delay: int, *, shared: bool) -> None:
    """Predict a row, learn the rows whose labels are due: by hand over the file, one model a stream or one for all."""
    table = small_table(tmp_path, 80)
    course, run = _run(table, "regression", "linear", shared=shared, delay=delay)
    made: dict[int, Any] = {}

    def model(row: int) -> Any:
        key = 0 if shared else int(table.streams[row])
        return made.setdefault(key, preprocessing.StandardScaler() | linear_model.LinearRegression())

    features = [dict(enumerate(row)) for row in course.x.tolist()]
    for row in range(table.rows):
        if row > delay:
            due = row - delay - 1
            model(due).learn_one(features[due], course.y[due, 0])
        expected = from_scale(course.spec.target, np.array([model(row).predict_one(features[row])]))[0]
        assert run.score[row] == pytest.approx(abs(expected - course.labels[row, 0]), abs=1e-9)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_every_model_of_the_table_learns(tmp_path: Path, task: str) -> None:
    """Later rows of a stream are predicted better than a constant would; names say what ran."""
    table = small_table(tmp_path, 260, streams=1, task=task)
    for model in RIVER_MODELS[small_engine(task).model.spec.task]:
        course, run = _run(table, task, model, shared=False)
        assert run.name == f"River {model}"
        late = run.score[60:130].mean()
        if task == "regression":
            assert late < np.abs(course.labels[60:130, 0]).mean()
            assert np.isnan(run.loss).all()
            assert run.inside is None
        else:
            assert late > 0.6
            assert run.confidence is not None
            assert np.isfinite(run.loss).all()


@pytest.mark.parametrize(("batch", "delay"), [(1, 0), (1, 4), (3, 0), (3, 5)])
def test_order_of_the_file_keeps_each_stream_s_own_order(tmp_path: Path, batch: int, delay: int) -> None:
    """Of each stream, the rows known at a prediction are those of the loop over streams; of the file, none is early."""
    table = small_table(tmp_path, 70)
    known: dict[int, set[int]] = {code: set() for code in range(3)}
    seen: dict[int, set[int]] = {}
    for stream, event in events_in_order(table.streams, batch, delay):
        if event.learn:
            known[stream] |= set(event.rows.tolist())
        else:
            (row,) = event.rows.tolist()
            seen[row] = set(known[stream])
            assert all(each + delay < row for rows in known.values() for each in rows)
    assert sorted(seen) == list(range(70))
    for code in range(3):
        learned: set[int] = set()
        for event in events(np.flatnonzero(table.streams == code), batch, delay):
            if event.predict:
                assert all(seen[row] == learned for row in event.rows.tolist())
            if event.learn:
                learned |= set(event.rows.tolist())


def test_without_river_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line: what is missing, and what to install."""
    real = builtins.__import__

    def absent(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "river":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(TrainingError, match=r"acclimate\[compare\]"):
        river_factory("regression", "HAT", 0)
