"""Every detector passes the one examination."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from models.detectors import DETECTORS, Detector
from tests.checks.detectors import CHECKS

SMALL: Mapping[str, Mapping[str, Any]] = {
    "adwin": {"clock": 1, "min_window_length": 1},
    "ddm": {},
    "eddm": {"warm_start": 0},
    "hddm_a": {"drift_confidence": 0.5, "warning_confidence": 0.6},
    "hddm_w": {"drift_confidence": 0.5, "warning_confidence": 0.6, "lambda_val": 0.3},
    "kswin": {"alpha": 0.05, "window_size": 8, "stat_size": 4},
    "llr_cusum": {},
    "never": {},
    "page_hinkley": {},
    "run_length": {},
}
"""Settings with which a batch of four shocking rows is enough for an alarm."""


def test_every_detector_is_examined() -> None:
    """A new entry of the table gets its settings here, and can be made without any."""
    assert SMALL.keys() == DETECTORS.keys()
    assert all(DETECTORS[name]() is not None for name in DETECTORS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "settings"), SMALL.items())
def test_detector_passes(name: str, settings: Mapping[str, Any], check: Callable[[Detector], None]) -> None:
    """An entry of the table does what every detector does."""
    check(DETECTORS[name](**settings))
