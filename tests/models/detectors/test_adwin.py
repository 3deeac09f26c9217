"""ADWIN against River's, and what River's does not have: an end of its histogram."""

from typing import Any

import numpy as np
import pytest
from river.drift import ADWIN

from models.detectors import Adwin
from models.errors import InputError
from tests.models.detectors.oracle import (
    assert_batches_count_row_by_row,
    assert_same_alarms,
    errors,
    real_values,
    signals,
)

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"delta": 0.2, "clock": 1},
    {"delta": 0.05, "clock": 7, "max_buckets": 2, "min_window_length": 1, "grace_period": 0},
    {"clock": 4, "max_buckets": 9, "min_window_length": 20, "grace_period": 100},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_adwin_raises_rivers_alarms_at_rivers_steps(settings: dict[str, Any]) -> None:
    """On four streams of 1,500 numbers whose level jumps and drifts, restarts included."""
    assert_same_alarms(Adwin(**settings), lambda: ADWIN(**settings), real_values(4))


def test_adwin_raises_rivers_alarms_on_errors() -> None:
    """On zeros and ones, where many means tie."""
    assert_same_alarms(Adwin(delta=0.2, clock=4), lambda: ADWIN(delta=0.2, clock=4), errors(4))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_adwin_keeps_rivers_window_at_an_alarm(settings: dict[str, Any]) -> None:
    """The rows since the change are the width that River's window is cut to; before an alarm there is no estimate."""
    stream, river, detector = real_values(1, rows=1000)[0], ADWIN(**settings), Adwin(**settings)
    state, alarms = detector.init(1), 0
    for value in stream:
        river.update(value.item())
        state, verdict = detector.update(state, signals(value.reshape(1, 1)))
        assert verdict.rows_since_change[0] == (river.width if river.drift_detected else -1)
        alarms += river.drift_detected
    assert alarms


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_adwin_rows_of_a_batch_count_one_by_one(settings: dict[str, Any]) -> None:
    """Batches of 25 rows end where their rows one by one do."""
    assert_batches_count_row_by_row(Adwin(**settings), real_values(2, rows=400))


def test_adwin_at_its_last_level_lets_the_oldest_rows_go() -> None:
    """Three levels of five buckets hold at most 35 rows, with their very sum and spread; it still alarms."""
    rng = np.random.default_rng(0)
    stream = rng.normal(0, 0.1, 500)
    detector = Adwin(levels=3, clock=1)
    state = detector.init(1)
    for row in range(500):
        state, verdict = detector.update(state, signals(stream[None, row : row + 1]))
        assert not verdict.drift[0]
        width = int(state["width"][0])
        assert min(row + 1, 28) <= width <= 35
        window = stream[row + 1 - width : row + 1]
        assert state["total"][0] == pytest.approx(window.sum(), abs=1e-9)
        assert state["squares"][0] == pytest.approx(window.var() * width, abs=1e-9)
    _, verdict = detector.update(state, signals(np.full((1, 10), 9.0)))
    assert verdict.drift[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"delta": 0.0},
        {"clock": 0},
        {"max_buckets": 1},
        {"min_window_length": 0},
        {"grace_period": -1},
        {"levels": 49},
        {"signal": "loss"},
    ],
    ids=str,
)
def test_adwin_refuses_settings_without_meaning(settings: dict[str, Any]) -> None:
    """The error names the setting."""
    with pytest.raises(InputError) as caught:
        Adwin(**settings)
    assert caught.value.loc == ("config", next(iter(settings)))
