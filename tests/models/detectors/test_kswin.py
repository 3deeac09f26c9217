"""KSWIN against River's, draws included."""

from typing import Any

import numpy as np
import pytest
from river.drift import KSWIN
from scipy import stats

from models.detectors import Kswin
from models.errors import InputError
from tests.models.detectors.oracle import (
    assert_batches_count_row_by_row,
    assert_same_alarms,
    noisy_rates,
    real_values,
    signals,
)

SETTINGS: tuple[dict[str, Any], ...] = (
    {"seed": 0},
    {"seed": 42, "alpha": 0.05, "window_size": 40, "stat_size": 20},
    {"seed": 7, "alpha": 0.0001, "window_size": 300, "stat_size": 20},  # drawn from a set, not from a pool
)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_kswin_raises_rivers_alarms_at_rivers_steps(settings: dict[str, Any]) -> None:
    """On three streams of 700 numbers whose level jumps and drifts: every draw is River's, restarts included."""
    assert_same_alarms(Kswin(**settings), lambda: KSWIN(**settings), real_values(3, rows=700))


def test_kswin_raises_rivers_alarms_where_values_tie() -> None:
    """On values rounded to tenths: equal values make the distributions step by more than one."""
    values = np.round(noisy_rates(2, rows=800), 1)
    assert_same_alarms(Kswin(alpha=0.01), lambda: KSWIN(alpha=0.01, seed=0), values)


@pytest.mark.parametrize(("alpha", "rows"), [(0.005, 30), (0.0001, 30), (0.3, 3), (0.01, 5), (0.05, 300), (0.99, 500)])
def test_kswin_threshold_is_the_greatest_distance_without_alarm(alpha: float, rows: int) -> None:
    """One step more has a probability of at most alpha in SciPy's exact test, and is above 0.1."""
    threshold = Kswin(alpha=alpha, window_size=2 * rows, stat_size=rows).threshold
    steps = round(threshold * rows)

    def alarms(distance: int) -> bool:
        first, second = np.arange(rows), np.arange(rows) + distance
        found = stats.ks_2samp(first, second, method="exact")
        assert round(found.statistic * rows) == distance
        return bool(found.pvalue <= alpha and found.statistic > 0.1)

    assert alarms(steps + 1)
    assert not alarms(steps)


def test_kswin_dates_a_change_to_the_latest_rows() -> None:
    """At an alarm the rows since the change are those that stood for the present, and the rows after it."""
    stream = np.concatenate([np.random.default_rng(0).normal(0, 1, 100), np.full(30, 9.0)])
    detector = Kswin(window_size=100, stat_size=30)
    state, verdict = detector.update(detector.init(1), signals(stream[None, :100]))
    assert verdict.rows_since_change[0] == -1
    for row in range(100, 130):
        state, verdict = detector.update(state, signals(stream[None, row : row + 1]))
        if verdict.drift[0]:
            break
    assert verdict.drift[0]
    assert verdict.rows_since_change[0] == 30
    assert state["rows"][0] == 0


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_kswin_rows_of_a_batch_count_one_by_one(settings: dict[str, Any]) -> None:
    """Batches of 25 rows end where their rows one by one do, generator included."""
    assert_batches_count_row_by_row(Kswin(**settings), real_values(2, rows=400))


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 0.0},
        {"alpha": 0.001, "window_size": 10, "stat_size": 4},  # the least probability of four against four is 1/35
        {"window_size": 59},
        {"window_size": 10_001},
        {"stat_size": 0},
        {"seed": -1},
        {"signal": "loss"},
    ],
    ids=str,
)
def test_kswin_refuses_settings_without_meaning(settings: dict[str, Any]) -> None:
    """The error names the setting."""
    with pytest.raises(InputError) as caught:
        Kswin(**settings)
    assert caught.value.loc == ("config", next(iter(settings)))
