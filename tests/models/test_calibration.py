"""Calibration figures against closed forms and counting by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Alarm, after_alarms, expected_calibration_error, inside
from tests.models.examples import small_table


def _by_hand(confidence: list[float], correct: list[float], bins: int) -> float:
    """The definition, bin by bin, for confidences that all differ."""
    order = sorted(range(len(confidence)), key=lambda row: confidence[row])
    each, left = divmod(len(order), bins)
    found, start = 0.0, 0
    for number in range(bins):
        rows = order[start : start + each + (number < left)]
        start += len(rows)
        if rows:
            gap = sum(correct[row] for row in rows) / len(rows) - sum(confidence[row] for row in rows) / len(rows)
            found += len(rows) / len(order) * abs(gap)
    return found


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80, unique_by=lambda row: row[0]))
def test_calibration_error_is_the_definition(rows: list[tuple[float, bool]]) -> None:
    """Bins of equal mass, each weighed by its rows."""
    confidence, correct = [row[0] for row in rows], [float(row[1]) for row in rows]
    found = expected_calibration_error(np.array(confidence), np.array(correct))
    assert found == pytest.approx(_by_hand(confidence, correct, 15), abs=1e-9)


@pytest.mark.parametrize(("stated", "true"), [(0.8, 0.6), (0.5, 0.5), (0.9, 1.0)])
def test_calibration_error_of_one_confidence_is_its_gap(stated: float, true: float) -> None:
    """Rows of one confidence are alike, whatever their order."""
    correct = np.repeat([1.0, 0.0], [round(1000 * true), 1000 - round(1000 * true)])
    confidence = np.full(1000, stated)
    for order in (np.arange(1000), np.random.default_rng(0).permutation(1000)):
        assert expected_calibration_error(confidence, correct[order]) == pytest.approx(abs(stated - true))


def test_calibration_error_tells_the_overconfident_from_the_honest() -> None:
    """Labels drawn with the stated probability leave the noise of the estimate; sharpened ones a known gap."""
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.5, 1.0, 100_000)
    correct = (rng.random(100_000) < truth).astype(np.float64)
    assert expected_calibration_error(truth, correct) < math.sqrt(15 / 100_000) / 2 * 1.5
    sharpened = (truth + 1) / 2  # stated − true = (1 − true) / 2, which is .125 on average
    assert expected_calibration_error(sharpened, correct) == pytest.approx(0.125, abs=0.005)


def test_calibration_error_without_rows_is_not_a_number() -> None:
    """It is not zero: nothing was calibrated."""
    assert math.isnan(expected_calibration_error(np.zeros(0), np.zeros(0)))


def test_intervals_of_a_normal_hold_what_they_promise() -> None:
    """1.645 standard deviations to both sides are nine tenths; an end belongs to the interval."""
    truth = np.random.default_rng(2).normal(size=100_000)
    reach = np.full(100_000, 1.6448536)
    assert inside(-reach, reach, truth).mean() == pytest.approx(0.9, abs=0.003)
    np.testing.assert_array_equal(inside(np.array([0.0, 1.0]), np.array([1.0, 2.0]), np.array([1.0, 2.1])), [1, 0])


def test_rows_after_alarms_are_of_the_alarm_s_own_stream(tmp_path: Path) -> None:
    """From the row after it on, as many as asked for; overlapping alarms count rows once."""
    table = small_table(tmp_path, 90)
    alarms = [Alarm(table.stream_names[1], row, 0, "never", 0.0, -1) for row in (3, 5)]
    mine = np.flatnonzero(table.streams == 1)
    expected = np.zeros(90, dtype=bool)
    expected[mine[4:10]] = True
    np.testing.assert_array_equal(after_alarms(table, alarms, rows=4), expected)
    assert not after_alarms(table, []).any()
