"""Streams that change, and the comparison of a detector with River's, step by step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from models.detectors import Detector, Signals
from models.types import FloatArray


def signals(values: FloatArray) -> Signals:
    """Rows (S, B) as both signals."""
    streams = values.shape[0]
    return Signals(values, values, np.ones(values.shape, dtype=bool), np.zeros(streams), np.zeros(streams))


def real_values(seeds: int, rows: int = 1500) -> FloatArray:
    """(seeds, rows): Gaussian noise whose level jumps every few hundred rows and drifts in between, now and then."""
    streams = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        abrupt = np.repeat(rng.normal(0, 2, rows // 250 + 1), 250)[:rows]
        gradual = np.interp(np.arange(rows), np.linspace(0, rows, 9), rng.normal(0, 1, 9))
        streams.append(abrupt + gradual * (seed % 2) + rng.normal(0, rng.uniform(0.2, 1.5), rows))
    return np.array(streams)


def error_rates(seeds: int, rows: int = 1500) -> FloatArray:
    """(seeds, rows): rates between 0 and 1 that jump every 250 rows; with odd seeds they glide there instead."""
    streams = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        levels = rng.beta(0.8, 1.6, rows // 250 + 1)
        places = np.arange(rows) / 250
        streams.append(np.interp(places, np.arange(len(levels)), levels) if seed % 2 else levels[places.astype(int)])
    return np.array(streams)


def errors(seeds: int, rows: int = 1500) -> FloatArray:
    """(seeds, rows): 0 or 1, with ``error_rates``."""
    draws = np.random.default_rng(seeds).random((seeds, rows))
    return (draws < error_rates(seeds, rows)).astype(np.float64)


def noisy_rates(seeds: int, rows: int = 1500) -> FloatArray:
    """(seeds, rows): values in [0, 1] around ``error_rates``."""
    noise = np.random.default_rng(seeds).normal(0, 0.2, (seeds, rows))
    return np.clip(error_rates(seeds, rows) + noise, 0.0, 1.0)


def assert_same_alarms(detector: Detector, river: Callable[[], Any], values: FloatArray) -> None:
    """Alarms at River's steps and no others, and warnings where River has them; all streams at once, one by one there.

    A warning of ours stands with every alarm, so an alarm counts as a warning of River's too.
    """
    streams, rows = values.shape
    drift, warning = np.zeros((2, streams, rows), dtype=bool)
    for stream in range(streams):
        theirs = river()
        for step in range(rows):
            theirs.update(values[stream, step].item())
            drift[stream, step] = theirs.drift_detected
            warning[stream, step] = theirs.drift_detected or getattr(theirs, "warning_detected", False)
    state = detector.init(streams)
    for step in range(rows):
        state, verdict = detector.update(state, signals(values[:, step : step + 1]))
        assert np.array_equal(verdict.drift, drift[:, step]), step
        assert np.array_equal(verdict.warning, warning[:, step]), step
    assert drift.sum() >= streams, "a comparison with few alarms would show little"


def assert_batches_count_row_by_row(detector: Detector, values: FloatArray, rows: int = 25) -> None:
    """The state after a batch is the state after its rows; the batch alarms if any row does."""
    streams = values.shape[0]
    by_row, by_batch = detector.init(streams), detector.init(streams)
    for start in range(0, values.shape[1], rows):
        part, alarm = values[:, start : start + rows], np.zeros(streams, dtype=bool)
        for row in range(part.shape[1]):
            by_row, verdict = detector.update(by_row, signals(part[:, row : row + 1]))
            alarm |= verdict.drift
        by_batch, verdict = detector.update(by_batch, signals(part))
        assert np.array_equal(verdict.drift, alarm)
        assert all(np.array_equal(by_row[name], by_batch[name]) for name in by_row)
