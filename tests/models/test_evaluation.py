"""An evaluation looks at the rows after alarms apart, and says everything in its JSON."""

from pathlib import Path

import numpy as np
import pytest

from models import Alarm, Evaluation, Report, Run, Table
from tests.models.examples import small_table


def made_evaluation(table: Table, alarms: tuple[Alarm, ...] = (), rivals: dict[str, float] | None = None) -> Evaluation:
    """Runs that are made up: every score of a run is its number, and the first half of the intervals hold."""
    half = (np.arange(table.rows) < table.rows // 2).astype(np.float64)

    def run(name: str, value: float, raised: tuple[Alarm, ...] | None = None) -> Run:
        score, nothing = np.full(table.rows, value), np.full(table.rows, np.nan)
        found = Run(name, score, score**2, nothing, 0.1, raised)
        if table.task == "classification":
            return found._replace(confidence=np.full(table.rows, 0.75))
        return found.with_intervals(half - 1, half, half / 2 - (1 - half))._replace(inside=half)

    frozen, adapted = run("frozen start", 0.5), run("adapted", 0.25, alarms)
    scored = np.ones(table.rows, dtype=np.bool_)
    report = Report(adapted, frozen, np.zeros((table.rows, 0)), scored, table, 1, 0)
    return Evaluation(report, (frozen, *(run(name, value) for name, value in (rivals or {}).items()), adapted))


def test_rows_after_alarms_have_figures_of_their_own(tmp_path: Path) -> None:
    """Of every run, at the same rows: those that follow the model's alarms."""
    table = small_table(tmp_path, 100, streams=1)
    evaluation = made_evaluation(table, (Alarm("shop-0", 39, 39, "llr_cusum", 9.0, 30),))
    frozen, adapted = evaluation.after_alarms
    assert (frozen.name, adapted.name) == ("frozen start", "adapted")
    assert adapted.rows == 50
    assert adapted.coverage == pytest.approx(10 / 50)
    written = evaluation.as_dict()["after_alarms"]
    assert written == {"rows_each": 50, "results": [frozen.as_dict(), adapted.as_dict()]}


def test_without_alarms_there_are_no_such_rows(tmp_path: Path) -> None:
    """Nothing is made up for them."""
    evaluation = made_evaluation(small_table(tmp_path, 40))
    assert evaluation.after_alarms == []
    assert evaluation.as_dict()["after_alarms"]["results"] == []
