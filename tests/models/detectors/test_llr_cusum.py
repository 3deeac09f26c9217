"""The CUSUM of log-likelihood ratios, against its recursion written out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.detectors import LlrCusum, Signals
from models.errors import InputError


def signals(ratio: float, rows: int = 1) -> Signals:
    """One stream's batch with a given log-likelihood ratio."""
    zeros = np.zeros((1, rows))
    return Signals(zeros, zeros, np.ones((1, rows), dtype=bool), np.zeros(1), np.array([ratio]))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(-6, 6), st.integers(1, 5)), max_size=60))
def test_llr_cusum_follows_its_recursion(batches: list[tuple[float, int]]) -> None:
    """Statistic, alarms, warnings, rows since it left zero and idleness are those of the plain loop."""
    detector = LlrCusum(threshold=8.0)
    state, c, rows = detector.init(1), 0.0, 0
    for ratio, count in batches:
        state, verdict = detector.update(state, signals(ratio, count))
        c = max(0.0, c + ratio)
        rows = rows + count if c > 0.0 else 0
        assert verdict.statistic[0] == c
        assert verdict.rows_since_change[0] == rows
        assert verdict.drift[0] == (c > 8.0)
        assert verdict.warning[0] == (c > 4.0)
        if c > 8.0:
            c, rows = 0.0, 0
        assert verdict.idle[0] == (c == 0.0)


def test_llr_cusum_sensitivity_is_the_rate_of_false_alarms() -> None:
    """``alarms_per_1000`` is 1000·e^−h."""
    assert LlrCusum().h == 8.0
    assert LlrCusum(alarms_per_1000=1000 * math.exp(-8.0)).h == pytest.approx(8.0)
    assert LlrCusum(threshold=3.0, alarms_per_1000=1.0).h == pytest.approx(math.log(1000.0))


def test_llr_cusum_keeps_its_promise_on_streams_without_change() -> None:
    """Gaussian rows from the live model, a challenger half a standard deviation off: fewer alarms than stated."""
    rng = np.random.default_rng(0)
    streams, batches, stated = 500, 400, 20.0
    detector = LlrCusum(alarms_per_1000=stated)
    state, alarms = detector.init(streams), 0
    mask, zeros = np.ones((streams, 1), dtype=bool), np.zeros((streams, 1))
    for _ in range(batches):
        y = rng.normal(size=streams)
        state, verdict = detector.update(state, Signals(zeros, zeros, mask, -0.5 * y**2, -0.5 * (y - 0.5) ** 2))
        alarms += int(verdict.drift.sum())
    assert 0 < alarms <= stated * streams * batches / 1000


@pytest.mark.parametrize("rate", [0.0, 1000.0, -1.0, math.nan])
def test_llr_cusum_refuses_rates_without_meaning(rate: float) -> None:
    """A rate that gives no positive threshold is refused by the field's name."""
    with pytest.raises(InputError) as caught:
        LlrCusum(alarms_per_1000=rate)
    assert caught.value.loc == ("config", "alarms_per_1000")


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.inf, math.nan])
def test_llr_cusum_refuses_thresholds_without_meaning(threshold: float) -> None:
    """A threshold is a positive number of nats."""
    with pytest.raises(InputError) as caught:
        LlrCusum(threshold=threshold)
    assert caught.value.loc == ("config", "threshold")
