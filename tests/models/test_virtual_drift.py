"""Whether inputs move: how soon a shift is found, how often none is found, and what rows do to the statistics."""

from collections.abc import Callable

import numpy as np
import pytest

from models.types import Feature, FloatArray
from models.virtual_drift import (
    ALARMS_PER_1000,
    FEATURES_MAX,
    Moved,
    _cusum,
    init_watch,
    watch,
    watched_columns,
)

RNG = np.random.Generator
FEATURES = 8
Draw = Callable[[RNG, tuple[int, int, int]], FloatArray]


def autocorrelated(rng: RNG, shape: tuple[int, int, int]) -> FloatArray:
    """AR(1) with coefficient 0.9 and unit variance."""
    x = rng.normal(size=shape)
    for row in range(1, shape[1]):
        x[:, row] = 0.9 * x[:, row - 1] + np.sqrt(1 - 0.9**2) * x[:, row]
    return x


DRAWS: dict[str, Draw] = {
    "white": lambda rng, shape: rng.normal(size=shape),
    "AR(1) 0.9": autocorrelated,
    "Student-t, 3 degrees": lambda rng, shape: rng.standard_t(3, size=shape),
    "1% outliers": lambda rng, shape: rng.normal(size=shape) * np.where(rng.random(shape) < 0.01, 10.0, 1.0),
    "log-normal": lambda rng, shape: rng.lognormal(sigma=1.5, size=shape),
    "5% ones": lambda rng, shape: np.where(rng.random(shape) < 0.05, 4.0, 0.0),
    "level far off": lambda rng, shape: 40.0 + 0.2 * rng.normal(size=shape),
}


def run(x: FloatArray, batch: int = 40, state: FloatArray | None = None) -> tuple[FloatArray, list[Moved]]:
    """Watch (S, rows, D) in batches."""
    state = init_watch(len(x), x.shape[2]) if state is None else state
    found = []
    for start in range(0, x.shape[1], batch):
        rows = x[:, start : start + batch]
        state, moved = watch(state, rows, np.ones(rows.shape[:2], dtype=np.bool_))
        found.append(moved)
    return state, found


@pytest.mark.parametrize("kind", DRAWS)
def test_inputs_that_stay_seldom_alarm(kind: str) -> None:
    """At most as often as stated, and two standard deviations: whatever distribution and autocorrelation they have."""
    streams, rows = 60, 2_000
    _, found = run(DRAWS[kind](np.random.default_rng(0), (streams, rows, FEATURES)))
    expected = ALARMS_PER_1000 * streams * rows / 1_000
    assert sum(int(moved.alarm.sum()) for moved in found) <= expected + 2 * np.sqrt(expected)


@pytest.mark.parametrize("shift", [1.0, -2.0])
def test_a_shift_of_one_feature_is_found_and_named(shift: float) -> None:
    """A standard deviation of one feature of eight within 80 rows, in 57 of 60 streams; its size roughly, its side."""
    x = np.random.default_rng(1).normal(size=(60, 680, FEATURES))
    x[:, 600:, 3] += shift
    state, before = run(x[:, :600])
    quiet = ~np.any([moved.alarm for moved in before[-5:]], axis=0)
    _, found = run(x[:, 600:], batch=4, state=state)
    alarms = np.array([moved.alarm for moved in found])
    assert alarms[:, quiet].any(axis=0).sum() >= 57
    named = np.concatenate([moved.feature[moved.alarm] for moved in found])
    assert (named == 3).mean() > 0.95
    assert np.median(np.concatenate([moved.shift[moved.alarm] for moved in found])) == pytest.approx(shift, rel=0.3)


def test_after_an_alarm_the_new_level_is_the_usual_one() -> None:
    """The level is learned anew: the alarm comes once, and the way back is found, if a little later."""
    x = np.random.default_rng(2).normal(size=(20, 1_500, 2))
    x[:, 500:1_000, 0] += 4.0
    state, found = run(x, batch=10)
    alarms = np.array([moved.alarm for moved in found])  # (batches, S)
    assert alarms[50:54].any(axis=0).all()
    assert alarms[54:100].sum() <= 1
    assert alarms[100:110].any(axis=0).all()
    assert np.abs(state[:, 2]).max() < 0.5
    assert (state[:, 0] == 1_500).all()


def test_inputs_that_move_again_and_again_are_reported_less_and_less() -> None:
    """A cycle of 288 rows: of all alarms in 6,000 rows the second half has less than a third."""
    rng = np.random.default_rng(6)
    phase = rng.random((20, 1, 3)) * 2 * np.pi
    x = np.sin(2 * np.pi * np.arange(6_000)[None, :, None] / 288 + phase) + 0.3 * rng.normal(size=(20, 6_000, 3))
    _, found = run(x)
    alarms = np.array([moved.alarm.sum() for moved in found])
    assert alarms[75:].sum() < alarms.sum() / 3


def test_batches_count_by_their_rows() -> None:
    """One row at a time or forty, the statistics become alike, and so do the alarms."""
    x = autocorrelated(np.random.default_rng(3), (30, 800, 3))
    x[:, 600:, 1] += 6.0
    (single, one), (many, forty) = run(x, batch=1), run(x, batch=40)
    assert np.array_equal(
        np.any([moved.alarm for moved in one], axis=0), np.any([moved.alarm for moved in forty], axis=0)
    )
    single, many = run(x[:, :600], batch=1)[0], run(x[:, :600], batch=40)[0]
    same = (single[:, 1] == 600).all(axis=1) & (many[:, 1] == 600).all(axis=1)
    assert same.sum() >= 25  # the others have alarmed
    assert np.abs(single[same, 2] - many[same, 2]).max() < 0.2
    assert np.abs(single[same, 3:5].mean(0) / many[same, 3:5].mean(0) - 1).max() < 0.1


def test_padding_and_missing_values_say_nothing() -> None:
    """Padding changes no bit, a missing value nothing about its feature's counts, and no rows nothing at all."""
    rng = np.random.default_rng(4)
    state, _ = run(rng.normal(size=(3, 300, 2)))
    rows = rng.normal(size=(3, 5, 2))
    padded = np.concatenate([rows, np.full((3, 7, 2), 99.0)], axis=1)
    mask = np.arange(12) < np.full((3, 1), 5)
    plain, _ = watch(state, rows, np.ones((3, 5), dtype=np.bool_))
    assert np.allclose(watch(state, padded, mask)[0], plain, rtol=1e-12, atol=1e-14)
    rows[:, :, 1] = np.nan
    partly, _ = watch(state, rows, np.ones((3, 5), dtype=np.bool_))
    assert np.array_equal(partly[:, 0], state[:, 0] + [5, 0])
    assert np.array_equal(partly[:, 1:5, 1], state[:, 1:5, 1])
    none, moved = watch(state, rows, np.zeros((3, 5), dtype=np.bool_))
    assert np.array_equal(none, state)
    assert not moved.alarm.any()


def test_whatever_comes_the_statistics_stay_finite() -> None:
    """Constants, steps of a million standard deviations, and a model without numeric inputs."""
    x = np.zeros((4, 900, 3))
    x[1, 300:] = 1e6
    x[2, ::2] = -1e6
    x[3] = np.nan
    state, found = run(x, batch=7)
    assert np.isfinite(state).all()
    assert all(np.isfinite(column).all() for moved in found for column in moved)
    nothing, moved = watch(init_watch(4, 0), x[:, :5, :0], np.ones((4, 5), dtype=np.bool_))
    assert nothing.shape == (4, state.shape[1], 0)
    assert not moved.alarm.any()


def test_the_sum_in_closed_form_is_the_recursion() -> None:
    """Levels and their ages, against Page's S ← max(0, S + step) row by row."""
    rng = np.random.default_rng(5)
    steps = rng.normal(size=(6, 50, 2)) - 0.3
    level, age = rng.random((6, 2)), rng.integers(1, 9, size=(6, 2)).astype(np.float64)
    levels, ages = _cusum(level, age, steps, np.ones(steps.shape, dtype=np.bool_))
    for row in range(steps.shape[1]):
        level = np.maximum(0.0, level + steps[:, row])
        age = np.where(level == 0.0, 0.0, age + 1)
        assert np.allclose(levels[:, row], level, atol=1e-12)
        assert np.array_equal(ages[:, row], age)


def test_numeric_inputs_are_watched_unless_they_are_very_many() -> None:
    """Categories are not, and an image's pixels are not."""
    features = [Feature("a"), Feature("b", "categorical", categories=("x",)), Feature("c")]
    assert watched_columns(features) == [0, 2]
    assert watched_columns([Feature(str(number)) for number in range(FEATURES_MAX + 1)]) == []
