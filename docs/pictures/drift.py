"""A stream of the shipped model `sinusoid` whose curve jumps twice: what it answers, and when it notices."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from docs.generating.drawing import DRIFT, FROZEN, OURS, SHIPPED, figure, plain, save, styled
from models import Engine, Feedback, FloatArray, read_bundle

CHANGES = (60, 120)
ROWS = 180
CURVES = ((3.0, 0.3), (4.0, 2.4), (1.5, 1.2))
"""Amplitude and phase of each stretch."""
SPAN = 10


class Course(NamedTuple):
    """Absolute errors of the adapted stream and of the frozen start, row by row, and the rows of alarms."""

    adapted: FloatArray
    frozen: FloatArray
    alarms: list[int]


@cache
def course() -> Course:
    """Test, then train, one row at a time."""
    chance = np.random.default_rng(5)
    x = chance.uniform(-5, 5, (ROWS, 1))
    stretch = np.searchsorted(CHANGES, np.arange(ROWS), side="right")
    amplitude, phase = np.array(CURVES)[stretch].T
    y = (amplitude * np.sin(x[:, 0] - phase))[:, None] + chance.normal(0, 0.1, (ROWS, 1))
    engine = Engine(read_bundle(SHIPPED / "sinusoid.safetensors"))
    stream = engine.create()
    adapted, frozen, alarms = np.zeros(ROWS), np.zeros(ROWS), []
    for row in range(ROWS):
        tick = engine.step([Feedback(stream, x[[row]], y[[row]])])
        engine.apply(tick)
        (outcome,) = tick.outcomes
        adapted[row], frozen[row] = outcome.score, outcome.initial_score
        if outcome.event == "drift":
            alarms.append(row)
    return Course(adapted, frozen, alarms)


def rolling(errors: FloatArray) -> FloatArray:
    """Means of the last ``SPAN`` rows."""
    sums = np.cumsum(np.insert(errors, 0, 0.0))
    rows = np.arange(1, len(errors) + 1)
    first = np.maximum(rows - SPAN, 0)
    return (sums[rows] - sums[first]) / (rows - first)


@styled
def draw(folder: Path) -> Path:
    """Errors over time, changes and alarms."""
    found = course()
    made = figure(9.5, 3.3)
    axes = made.subplots()
    plain(axes, f"absolute error, mean of the last {SPAN} rows; each row is predicted before it is learned")
    axes.plot(rolling(found.frozen), color=FROZEN, linestyle="--", label=f"frozen start: {found.frozen.mean():.2f}")
    axes.plot(rolling(found.adapted), color=OURS, linewidth=2, label=f"adapted: {found.adapted.mean():.2f}")
    for change in CHANGES:
        first = change == CHANGES[0]
        axes.axvline(change, color="black", linewidth=1, linestyle=":", label="the curve jumps" * first)
    for alarm in found.alarms:
        axes.axvline(alarm, color=DRIFT, linewidth=1.2, label="alarm: starts afresh" * (alarm == found.alarms[0]))
    axes.set_xlabel("labelled rows of the stream")
    axes.set_xlim(0, ROWS)
    axes.set_ylim(0)
    made.legend(loc="outside lower center", ncols=4, frameon=False)
    return save(made, "concept-drift", folder)


if __name__ == "__main__":
    draw()
