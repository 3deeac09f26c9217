"""Every detector passes the one examination."""

from collections.abc import Callable

import pytest

from models.detectors import DETECTORS, Detector
from tests.checks.detectors import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", DETECTORS)
def test_detector_passes(name: str, check: Callable[[Detector], None]) -> None:
    """An entry of the table, with its default settings, does what every detector does."""
    check(DETECTORS[name]())
