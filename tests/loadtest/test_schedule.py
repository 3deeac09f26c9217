"""The plan of a run: constant spacing, popularity of streams, share of feedback."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.schedule import Schedule, ScheduleError, plan, popularity


def planned(rate: float = 100.0, seconds: float = 2.0, warmup_s: float = 0.0, share: float = 0.0) -> Schedule:
    """A plan over five streams from a fixed seed."""
    rng = np.random.default_rng(0)
    return plan(rate, seconds, warmup_s=warmup_s, streams=5, zipf=0.0, feedback_share=share, rng=rng)


def test_requests_are_due_at_constant_spacing() -> None:
    """200 requests at 100 a second are due every 10 ms from 0."""
    schedule = planned()
    assert schedule.at_s.size == 200
    np.testing.assert_allclose(schedule.at_s, np.arange(200) * 0.01)


def test_warmup_comes_before_the_measured_part() -> None:
    """A second of warm-up adds its requests at the head and leaves the measured number alone."""
    schedule = planned(warmup_s=1.0)
    assert (schedule.warmup, schedule.at_s.size) == (100, 300)


def test_a_plan_without_a_request_is_refused() -> None:
    """Less than one request is an error that says what to raise."""
    with pytest.raises(ScheduleError, match="raise the rate or the time"):
        planned(rate=0.1, seconds=1.0)


def test_the_same_seed_plans_the_same_run() -> None:
    """Two plans from equal generators are equal."""
    np.testing.assert_array_equal(planned(share=0.3).streams, planned(share=0.3).streams)


@given(share=st.floats(0.0, 1.0), seconds=st.floats(0.1, 20.0))
def test_feedback_is_spread_evenly(share: float, seconds: float) -> None:
    """Every head of the run holds its share of feedback, to within one request."""
    schedule = planned(seconds=seconds, share=share)
    expected = np.arange(1, schedule.at_s.size + 1) * share
    assert np.all(np.abs(np.cumsum(schedule.feedback) - expected) <= 1.0)


def test_popularity_follows_zipf() -> None:
    """With exponent 1 the first stream is asked twice as often as the second, ten times as often as the tenth."""
    shares = popularity(100, 1.0)
    np.testing.assert_allclose(shares[0] / shares[[1, 9]], [2.0, 10.0])
    np.testing.assert_allclose(shares.sum(), 1.0)
