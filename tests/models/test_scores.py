"""Figures of a run: means over the scored rows, cold starts, alarms and rolling means."""

from pathlib import Path

import numpy as np
import pytest

from models import Alarm, Run, rolling_score, summarise, summarise_streams
from tests.models.examples import small_table


def _run(score: np.ndarray, alarms: tuple[Alarm, ...] = ()) -> Run:
    return Run("run", score, score**2, np.full(len(score), np.nan), 0.5, alarms)


def test_figures_are_means_over_the_scored_rows(tmp_path: Path) -> None:
    """Score, root mean square and cold start; a loss that is not stated is None; CPU time is over all rows."""
    table = small_table(tmp_path, 100)
    score = np.random.default_rng(1).random(100)
    scored = np.arange(100) >= 10
    figures = summarise(_run(score), table, scored)
    cold = [score[row] for code in range(3) for row in np.flatnonzero(table.streams == code)[:20] if scored[row]]
    assert figures.rows == 90
    assert figures.score == pytest.approx(score[10:].mean())
    assert figures.rmse == pytest.approx(np.sqrt((score[10:] ** 2).mean()))
    assert figures.first20 == pytest.approx(np.mean(cold))
    assert figures.loss is None
    assert figures.cpu_us_per_row == pytest.approx(5000.0)


def test_streams_are_summarised_apart(tmp_path: Path) -> None:
    """Only those with scored rows; their rows add up."""
    table = small_table(tmp_path, 90)
    scored = table.streams < 2
    found = summarise_streams(_run(np.ones(90)), table, scored)
    assert set(found) == set(table.stream_names[:2])
    assert sum(each.rows for each in found.values()) == scored.sum()


def test_alarms_count_at_scored_rows(tmp_path: Path) -> None:
    """An alarm before the scored part is the training's."""
    table = small_table(tmp_path, 50)
    alarms = tuple(Alarm("shop-0", 1, row, "never", 0.0, -1) for row in (5, 30, 40))
    assert summarise(_run(np.ones(50), alarms), table, np.arange(50) >= 25).alarms == 2


def test_rolling_score_is_the_mean_of_a_window() -> None:
    """At every point shown, over the scored rows before it."""
    score = np.random.default_rng(2).random(300)
    scored = np.arange(300) % 3 != 0
    rows, values = rolling_score(_run(score), scored, window=10)
    places = np.flatnonzero(scored)
    for row, value in zip(rows, values, strict=True):
        last = np.searchsorted(places, row)
        assert value == pytest.approx(score[places[last - 9 : last + 1]].mean())


def test_calibration_is_over_the_scored_rows(tmp_path: Path) -> None:
    """Of what a run states: probabilities, or intervals; what it does not state is None."""
    table = small_table(tmp_path, 100)
    score = (np.arange(100) % 2).astype(np.float64)
    scored = np.arange(100) >= 50
    silent = summarise(_run(score), table, scored)
    assert (silent.ece, silent.coverage, silent.width) == (None, None, None)
    sure = np.where(scored, 0.9, 0.0)
    assert summarise(_run(score)._replace(confidence=sure), table, scored).ece == pytest.approx(0.4)
    truth = np.where(scored, 1.0, 9.0)
    wide = np.where(np.arange(100) < 60, 2.0, 0.5)
    figures = summarise(_run(score).with_intervals(-wide, wide, truth), table, scored)
    assert figures.coverage == pytest.approx(0.2)
    assert figures.width == pytest.approx(0.2 * 4 + 0.8 * 1)
