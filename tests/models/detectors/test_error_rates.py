"""The detectors of error rates (DDM, EDDM, HDDM) against River's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from river.drift.binary import DDM, EDDM, HDDMA, HDDMW

from models.detectors import DETECTORS
from models.errors import InputError
from tests.models.detectors.oracle import (
    assert_batches_count_row_by_row,
    assert_same_alarms,
    errors,
    noisy_rates,
    signals,
)

RIVER: Mapping[str, Any] = {"ddm": DDM, "eddm": EDDM, "hddm_a": HDDMA, "hddm_w": HDDMW}
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ddm", {}),
    ("ddm", {"warm_start": 0}),
    ("ddm", {"warm_start": 100, "warning_threshold": 1.5, "drift_threshold": 2.5}),
    ("eddm", {}),
    ("eddm", {"warm_start": 5}),
    ("eddm", {"alpha": 0.8, "beta": 0.75}),
    ("hddm_a", {}),
    ("hddm_a", {"two_sided_test": True}),
    ("hddm_a", {"drift_confidence": 0.02, "warning_confidence": 0.1, "two_sided_test": True}),
    ("hddm_w", {}),
    ("hddm_w", {"two_sided_test": True}),
    ("hddm_w", {"drift_confidence": 0.02, "warning_confidence": 0.1, "lambda_val": 0.2}),
)


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_error_detectors_raise_rivers_alarms_and_warnings(name: str, settings: dict[str, Any]) -> None:
    """On four streams of 1,500 zeros and ones, whose rate jumps or glides, restarts included."""
    assert_same_alarms(DETECTORS[name](**settings), lambda: RIVER[name](**settings), errors(4))


@pytest.mark.parametrize("name", ["hddm_a", "hddm_w"])
def test_hddm_raises_rivers_alarms_on_values_between_0_and_1(name: str) -> None:
    """Its bounds hold for any value in [0, 1], not for zeros and ones alone."""
    settings = {"two_sided_test": True}
    assert_same_alarms(DETECTORS[name](**settings), lambda: RIVER[name](**settings), noisy_rates(4))


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_error_detectors_rows_of_a_batch_count_one_by_one(name: str, settings: dict[str, Any]) -> None:
    """Batches of 25 rows end where their rows one by one do."""
    assert_batches_count_row_by_row(DETECTORS[name](**settings), errors(2, rows=500))


@pytest.mark.parametrize("name", RIVER)
def test_error_detectors_see_numbers_by_their_scale(name: str) -> None:
    """Squared errors of a number count in the setting's unit: eight times both changes nothing."""
    scale = "miss_from" if name in {"ddm", "eddm"} else "error_max"
    values = 2.0 * noisy_rates(4, rows=1000)
    one, eight = DETECTORS[name](**{scale: 1.0}), DETECTORS[name](**{scale: 8.0})
    state, other = one.init(4), eight.init(4)
    for start in range(0, 1000, 100):
        part = values[:, start : start + 100]
        state, verdict = one.update(state, signals(part))
        other, scaled = eight.update(other, signals(8.0 * part))
        assert np.array_equal(verdict.drift, scaled.drift)
    assert all(np.array_equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("name", ["hddm_a", "hddm_w"])
def test_hddm_dates_a_clean_jump_to_its_row(name: str) -> None:
    """Two hundred right answers, then wrong ones: the rows since the change are the wrong ones."""
    detector = DETECTORS[name]()
    state, _ = detector.update(detector.init(1), signals(np.zeros((1, 200))))
    wrong, alarm = 0, False
    while not alarm and wrong < 40:
        state, verdict = detector.update(state, signals(np.ones((1, 1))))
        wrong, alarm = wrong + 1, bool(verdict.drift[0])
    assert alarm
    assert verdict.rows_since_change[0] == wrong


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ddm", {"warm_start": -1}),
        ("ddm", {"warning_threshold": 4.0}),
        ("ddm", {"drift_threshold": 0.0}),
        ("ddm", {"miss_from": 0.0}),
        ("eddm", {"alpha": 0.5}),
        ("eddm", {"beta": 1.0}),
        ("eddm", {"warm_start": -1}),
        ("eddm", {"miss_from": -1.0}),
        ("hddm_a", {"drift_confidence": 0.0}),
        ("hddm_a", {"warning_confidence": 0.0001}),
        ("hddm_a", {"error_max": 0.0}),
        ("hddm_w", {"drift_confidence": 1.0}),
        ("hddm_w", {"warning_confidence": 1.0}),
        ("hddm_w", {"lambda_val": 0.0}),
        ("hddm_w", {"error_max": float("inf")}),
    ],
    ids=str,
)
def test_error_detectors_refuse_settings_without_meaning(name: str, settings: dict[str, Any]) -> None:
    """The error names the setting."""
    with pytest.raises(InputError) as caught:
        DETECTORS[name](**settings)
    assert caught.value.loc == ("config", next(iter(settings)))
