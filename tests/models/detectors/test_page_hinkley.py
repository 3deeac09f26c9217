"""Page-Hinkley against River's, and what River's does not have: estimates and batches."""

from typing import Any

import numpy as np
import pytest
from river.drift import PageHinkley as RiverPageHinkley

from models.detectors import PageHinkley, Signals
from models.errors import InputError
from models.types import FloatArray

RIVER = {"threshold": 50.0, "delta": 0.005, "min_instances": 30, "alpha": 1 - 0.0001, "mode": "both"}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"threshold": 2.0, "delta": 0.01, "min_instances": 5},
    {"threshold": 8.0, "mode": "up", "alpha": 0.99},
    {"threshold": 8.0, "mode": "down", "alpha": 1.0, "delta": 0.0},
    {"threshold": 0.5, "min_instances": 1, "delta": 0.2},
)


def jumping(seed: int, levels: int = 30, rows: int = 100) -> FloatArray:
    """A signal whose level jumps every 100 rows."""
    rng = np.random.default_rng(seed)
    signal: FloatArray = np.repeat(rng.normal(0, 1, levels), rows) + rng.normal(0, 0.5, levels * rows)
    return signal


def signals(values: FloatArray) -> Signals:
    """Rows (S, B) as the error signal."""
    streams = values.shape[0]
    return Signals(values, np.zeros_like(values), np.ones(values.shape, bool), np.zeros(streams), np.zeros(streams))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_page_hinkley_raises_rivers_alarms_at_rivers_steps(settings: dict[str, Any]) -> None:
    """Over 3,000 rows of four streams, alarm by alarm, restarts included; all at once here, one by one in River."""
    streams = np.stack([jumping(seed) for seed in range(4)])
    theirs = []
    for index, stream in enumerate(streams):
        river = RiverPageHinkley(**{**RIVER, **settings})
        for step, value in enumerate(stream):
            river.update(value)
            if river.drift_detected:
                theirs.append((step, index))
    detector = PageHinkley(**{**RIVER, **settings}, signal="error")
    state, ours = detector.init(4), []
    for step in range(streams.shape[1]):
        state, verdict = detector.update(state, signals(streams[:, step : step + 1]))
        ours += [(step, int(index)) for index in np.flatnonzero(verdict.drift)]
    assert ours == sorted(theirs)
    assert {index for _, index in ours} == {0, 1, 2, 3}, "a comparison without alarms would show nothing"


def test_page_hinkley_rows_of_a_batch_count_one_by_one() -> None:
    """The state after a batch of 50 is the state after its rows; the batch alarms if any row does."""
    stream = jumping(7, levels=15)
    detector = PageHinkley(threshold=8.0, min_instances=5, signal="error")
    by_row, by_batch = detector.init(1), detector.init(1)
    for start in range(0, len(stream), 50):
        part = stream[None, start : start + 50]
        alarm = False
        for row in range(50):
            by_row, verdict = detector.update(by_row, signals(part[:, row : row + 1]))
            alarm |= bool(verdict.drift[0])
        by_batch, verdict = detector.update(by_batch, signals(part))
        assert bool(verdict.drift[0]) == alarm
        assert all(np.array_equal(by_row[name], by_batch[name]) for name in by_row)


def test_page_hinkley_estimates_when_the_signal_left_its_mean() -> None:
    """A clean jump is dated to its row, wherever in a batch the alarm comes."""
    stream = np.concatenate([np.zeros(100), np.full(20, 5.0)])
    detector = PageHinkley(threshold=12.0, delta=0.1, min_instances=10, signal="error")
    state = detector.init(1)
    for start in range(0, 100, 10):
        state, verdict = detector.update(state, signals(stream[None, start : start + 10]))
        assert not verdict.drift[0]
    _, verdict = detector.update(state, signals(stream[None, 100:110]))
    assert verdict.drift[0]
    assert verdict.rows_since_change[0] == 10


def test_page_hinkley_watches_the_signal_it_is_told_to() -> None:
    """With ``nll`` a jump of the error goes unnoticed, and the other way round."""
    calm, loud = np.zeros((1, 50)), np.concatenate([np.zeros((1, 30)), np.full((1, 20), 99.0)], axis=1)
    mask, none = np.ones((1, 50), dtype=bool), np.zeros(1)
    for signal in ("error", "nll"):
        detector = PageHinkley(signal=signal)
        for watched in ("error", "nll"):
            seen = Signals(loud if watched == "error" else calm, loud if watched == "nll" else calm, mask, none, none)
            assert detector.update(detector.init(1), seen)[1].drift[0] == (signal == watched)


@pytest.mark.parametrize(
    "settings", [{"mode": "sideways"}, {"signal": "loss"}, {"threshold": 0.0}, {"alpha": 1.5}], ids=str
)
def test_page_hinkley_refuses_settings_without_meaning(settings: dict[str, Any]) -> None:
    """The error names the setting."""
    with pytest.raises(InputError) as caught:
        PageHinkley(**settings)
    assert caught.value.loc == ("config", next(iter(settings)))
