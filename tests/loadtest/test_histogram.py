"""Histograms of latencies: quantiles to three digits, whatever their size."""

import numpy as np
import pytest

from loadtest.histogram import HIGHEST_US, Histogram


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1.0, 1e3])
def test_quantiles_are_those_of_all_values_to_three_digits(scale: float) -> None:
    """Against NumPy, over eight orders of magnitude."""
    values = scale * np.random.default_rng(0).lognormal(size=5_000)
    histogram = Histogram.of(values.tolist())
    assert len(histogram) == 5_000
    for share in (0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0):
        expected = np.quantile(values, share, method="inverted_cdf") * 1e3
        assert histogram.at(share) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_histograms_are_added_and_read_back() -> None:
    """As if all values had been counted in one."""
    values = np.random.default_rng(1).exponential(0.01, 2_000)
    parts = [Histogram.of(values[:500].tolist()), Histogram.of(values[500:].tolist())]
    parts[0].add(Histogram.from_json(parts[1].as_json()))
    assert parts[0].as_json() == Histogram.of(values.tolist()).as_json()


def test_what_cannot_be_is_counted_at_the_ends() -> None:
    """A clock that goes back, and a wait beyond all measure; without values there is no quantile."""
    histogram = Histogram.of([-1.0, 1e12])
    assert histogram.at(0.0) == 0.0
    assert histogram.at(1.0) == pytest.approx(HIGHEST_US / 1e3, rel=1e-3)
    assert np.isnan(Histogram().at(0.5))
