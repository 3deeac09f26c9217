"""The plot shows the best rivals, draws every kind of evaluation, and says why it could not be written."""

from pathlib import Path

import pytest

from models import Alarm
from service.commands.console import CommandError
from service.commands.plot import plot, shown_runs
from tests.models.examples import small_table
from tests.models.test_evaluation import made_evaluation

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(("task", "best"), [("regression", ["a", "b"]), ("classification", ["d", "c"])])
def test_the_best_two_rivals_are_drawn(tmp_path: Path, task: str, best: list[str]) -> None:
    """Least error or greatest accuracy; the frozen start first, the adapted streams last and on top."""
    rivals = {"c": 0.3, "a": 0.1, "d": 0.4, "b": 0.2}
    evaluation = made_evaluation(small_table(tmp_path, 40, task=task), rivals=rivals)
    assert [run.name for run, _ in shown_runs(evaluation)] == ["frozen start", *best, "adapted"]


@pytest.mark.parametrize(("task", "alarms"), [("regression", 0), ("regression", 3), ("classification", 60)])
def test_every_kind_of_evaluation_is_drawn(tmp_path: Path, task: str, alarms: int) -> None:
    """With no alarms, some, or more than can be marked through the curves."""
    table = small_table(tmp_path, 120, task=task)
    raised = tuple(Alarm(f"shop-{row % 3}", row // 3, row, "llr_cusum", 9.0, -1) for row in range(alarms))
    plot(made_evaluation(table, raised), tmp_path / "plot.png", "title", "detail")
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


def test_an_unknown_ending_is_one_line(tmp_path: Path) -> None:
    """With what to do instead."""
    evaluation = made_evaluation(small_table(tmp_path, 40))
    with pytest.raises(CommandError, match=r"ends in \.png"):
        plot(evaluation, tmp_path / "plot.docx", "title", "detail")
