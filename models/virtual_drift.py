"""Whether a stream's inputs move: seen without labels, feature by feature.

Inputs have autocorrelation, heavy tails and levels of their own, so each numeric one is whitened by what the stream
itself has shown: with tracked mean μ, variance s² and lag-one correlation φ,

    u_t = clip(((x_t − μ) − φ (x_{t−1} − μ)) / (s √(1 − φ²)), ±3),    v_t = (u_t − E u) / (√Var u · √ω)

where ω ≥ 1 is how much more averages of 32 such values vary than independent ones would. A two-sided CUSUM sums v_t:
S ← max(0, S + v_t − k), the same of −v_t, with slack k = 0.2 + 1/√rows, as the level is known to 1/√rows. It alarms at

    h = log(1 + 2k₀² · 2D · 1000/rate)/θ − 1.166,    θ/2 + g θ²/6 = k₀ = 0.2

with g the skewness of v where it helps the side (Siegmund's approximation, θ the non-zero root of the cumulant function
to third order), so that all 2D sides together alarm ``ALARMS_PER_1000`` times in 1,000 rows where nothing changes.
After an alarm the feature's level is learned anew, from the shift that was found; its other statistics go on. A feature
that alarms again and again is taken to move by nature: its ω doubles, and at each further alarm within some thousand
rows grows by up to eighteen, until the contrary shows.

Pure functions over float64 arrays with a leading stream axis. Within a batch the tracked statistics stand still, for
at most ``CHUNK_ROWS`` rows.

References:
    Page (1954). Continuous inspection schemes. Biometrika 41.
    Siegmund (1985). Sequential analysis. Springer.
    Kendall (1954). Note on bias in the estimation of autocorrelation. Biometrika 41.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.types import Feature, FloatArray

ALARMS_PER_1000 = 0.1
"""False alarms per 1,000 rows of a stream, all its features together."""
BASELINE_ROWS = 200
"""Rows from which a feature's level is known well enough to judge; also how long a warning lasts."""
MEMORY_ROWS = 1_000.0
"""The statistics are those of about so many rows."""
FEATURES_MAX = 256
"""With more numeric inputs than this, such as pixels, a model's streams are not watched."""
CHUNK_ROWS = 64

_SLACK = 0.2
_WHITEN_ROWS = 32  # from here on a feature's variance and correlation are trusted to whiten and to cut
_SPREAD_ROWS = 64  # from here on the mean and variance of what is whitened are trusted
_CUT_STD = 4.0
_CLIP = 3.0
_CORRELATION_MAX = 0.995
_VARIANCE_FLOOR = 1e-3
_SPREAD_FLOOR = 1e-2
_PACE = 1 / 32  # of the average whose variance tells how much the inputs wander
_WANDER_ROWS = 4_000.0
_WANDER_CAP = 9.0
_WANDER_MAX = 400.0  # beyond, the clip alone keeps the sum at zero
_AGAIN = 8.0  # how much stronger than the first a further alarm of a feature counts
_SUSPECT, _LEARN_SUSPECT = 0.4, 0.1  # above this share of the threshold the statistics learn at a tenth of their rate
_OVERSHOOT = 1.166
_SKEWNESS_FLOOR = 0.03


class _Track(NamedTuple):
    """What is kept of each feature, (S, D) each; stacked on the second axis it is a stream's state."""

    rows: FloatArray  # seen
    level_rows: FloatArray  # seen since the level was learned anew
    mean: FloatArray
    var: FloatArray
    lag: FloatArray  # covariance of a row with the one before
    last: FloatArray  # the last row, from the mean
    centre: FloatArray  # mean, variance and skewness of u
    spread: FloatArray
    skewness: FloatArray
    slow: FloatArray  # moving average of v
    wander: FloatArray  # ω
    up: FloatArray  # the CUSUM of each side
    down: FloatArray
    up_rows: FloatArray  # rows since it was zero
    down_rows: FloatArray
    alarms: FloatArray  # alarms so far, fading as ω does


_ANEW = ("level_rows", "slow", "up", "down", "up_rows", "down_rows")


class Moved(NamedTuple):
    """Which streams' inputs were found to have moved, (S,) each; only where ``alarm`` do the others mean anything.

    Attributes:
        alarm: bool.
        feature: Index of the feature that moved most clearly.
        shift: By how many of its standard deviations its mean moved, as far as is known yet.
        statistic: Its CUSUM.
        threshold: Where that alarms.
    """

    alarm: npt.NDArray[np.bool_]
    feature: npt.NDArray[np.int64]
    shift: FloatArray
    statistic: FloatArray
    threshold: FloatArray


def watched_columns(features: Sequence[Feature]) -> list[int]:
    """Those of a model's inputs that are watched: the numeric ones, if they are not too many."""
    numeric = [column for column, feature in enumerate(features) if feature.kind == "numeric"]
    return numeric if len(numeric) <= FEATURES_MAX else []


def init_watch(streams: int, features: int) -> FloatArray:
    """(S, 16, D): nothing is known yet."""
    track = np.zeros((streams, len(_Track._fields), features))
    track[:, _Track._fields.index("wander")] = 1.0
    return track


def watch(state: FloatArray, x: FloatArray, mask: npt.NDArray[np.bool_]) -> tuple[FloatArray, Moved]:
    """Move the statistics by a batch, and look for a shift.

    Args:
        state: (S, 16, D) as ``init_watch`` makes it.
        x: (S, B, D) numeric inputs in units of the training rows' standard deviation; NaN is missing.
        mask: (S, B), false where a row is padding, at the end.

    Returns:
        The new state, and what was found.
    """
    streams, features = state.shape[0], state.shape[2]
    found = _nothing(streams)
    if features == 0:
        return state, found
    for start in range(0, mask.shape[1], CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        state, one = _chunk(state, x[:, rows], mask[:, rows])
        if one.alarm.any():  # the first of several stands
            found = Moved(*(np.where(found.alarm, old, new) for old, new in zip(found, one, strict=True)))
    return state, found


def _nothing(streams: int) -> Moved:
    none = np.zeros(streams)
    return Moved(none > 0, none.astype(np.int64), none, none, none)


def _chunk(state: FloatArray, x: FloatArray, mask: npt.NDArray[np.bool_]) -> tuple[FloatArray, Moved]:
    """A few rows, judged by the statistics before them."""
    now = _Track(*state.transpose(1, 0, 2))
    there = mask[..., None] & ~np.isnan(x)  # (S, B, D)
    var = np.maximum(now.var, _VARIANCE_FLOOR)
    std = np.sqrt(var)
    bound = np.where(now.rows >= _WHITEN_ROWS, _CUT_STD * std, np.inf)[:, None]
    off = np.where(there, x - now.mean[:, None], 0.0)
    away = off.clip(-bound, bound)
    phi = now.lag / var
    phi = (phi + (1 + 3 * phi) / np.maximum(now.rows, _WHITEN_ROWS)).clip(-_CORRELATION_MAX, _CORRELATION_MAX)
    last = np.where(now.rows > 0, now.last, away[:, 0])
    before = np.concatenate([last[:, None], away[:, :-1]], axis=1)
    scale = std * np.sqrt(1 - phi**2)
    u = ((away - phi[:, None] * before) / scale[:, None]).clip(-_CLIP, _CLIP)
    spread = np.sqrt(np.maximum(now.spread, _SPREAD_FLOOR))
    v = np.where(there, (u - now.centre[:, None]) / spread[:, None], 0.0)

    wander = np.sqrt(np.maximum(now.wander, 1.0))
    slack = _SLACK + 1 / np.sqrt(np.maximum(now.level_rows, 1.0))
    judged = there & (now.level_rows >= BASELINE_ROWS)[:, None]
    sides = []
    for sign, level, since in ((1.0, now.up, now.up_rows), (-1.0, now.down, now.down_rows)):
        threshold = _threshold(sign * now.skewness)
        steps = np.where(judged, sign * v / wander[:, None] - slack[:, None], 0.0)
        sides.append((*_cusum(level, since, steps, judged), threshold))
    suspect = np.maximum(now.up / sides[0][2], now.down / sides[1][2]) > _SUSPECT
    level = np.where((now.level_rows < _WHITEN_ROWS)[:, None], off, away).sum(1)
    moved = _learn(now, (away, before, u, v), level, there, mask.sum(1), np.where(suspect, _LEARN_SUSPECT, 1.0))
    moved = moved._replace(
        up=sides[0][0][:, -1], down=sides[1][0][:, -1], up_rows=sides[0][1][:, -1], down_rows=sides[1][1][:, -1]
    )
    units = wander * spread * np.sqrt((1 + phi) / (1 - phi))
    return _judged(moved, sides, slack, units, std)


def _threshold(skewness: FloatArray) -> FloatArray:
    """Where a side of a feature alarms: (S, D) skewness in its direction to (S, D)."""
    sides = 2 * skewness.shape[1]
    length = math.log1p(2 * _SLACK**2 * sides * 1_000 / ALARMS_PER_1000)
    g = np.maximum(skewness, _SKEWNESS_FLOOR)
    theta = (np.sqrt(0.25 + 2 * g * _SLACK / 3) - 0.5) * 3 / g
    return np.asarray(length / theta - _OVERSHOOT)


def _cusum(
    level: FloatArray, since: FloatArray, steps: FloatArray, judged: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """After each row, (S, B, D): S ← max(0, S + step) in closed form, and rows since it was zero."""
    sums = steps.cumsum(axis=1)
    levels = sums - np.minimum(np.minimum.accumulate(sums, axis=1), -level[:, None])
    count = since[:, None] + judged.cumsum(axis=1)
    return levels, count - np.maximum.accumulate(np.where(levels == 0.0, count, 0.0), axis=1)


def _learn(
    now: _Track,
    values: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    level: FloatArray,
    there: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.int64],
    rate: FloatArray,
) -> _Track:
    """Statistics after the rows.

    Args:
        now: Those before.
        values: (S, B, D) each: x − μ, that of the row before, u and v.
        level: (S, D) sum of what the level learns from.
        there: (S, B, D).
        rows: (S,) rows that are no padding.
        rate: (S, D) share of the usual rate.
    """
    away, before, u, v = values
    count = there.sum(1)  # (S, D)
    safe = np.maximum(count, 1)
    newest = np.arange(len(rows)), np.maximum(rows - 1, 0)  # of each stream, its last row
    some = (rows > 0)[:, None]

    share = rate * count / np.minimum(now.rows + safe, MEMORY_ROWS)
    step, earlier = away.sum(1) / safe, np.where(there, before, 0.0).sum(1) / safe
    around = np.where(there, away - step[:, None], 0.0)
    products = (around * (before - earlier[:, None])).sum(1) / safe
    var = (1 - share) * (now.var + share * step**2) + share * (around**2).sum(1) / safe
    lag = (1 - share) * (now.lag + share * step * earlier) + share * products

    known, third = (
        rate * np.where(now.rows >= first, count, 0) / np.minimum(np.maximum(now.rows - first, 0) + safe, MEMORY_ROWS)
        for first in (_WHITEN_ROWS, _SPREAD_ROWS)
    )
    middle = np.where(there, u, 0.0).sum(1) / safe
    off = middle - now.centre
    within = np.where(there, (u - middle[:, None]) ** 2, 0.0).sum(1) / safe

    places = np.arange(1, v.shape[1] + 1)
    fade = ((1 - _PACE) ** places)[None, :, None]
    slow = fade * (now.slow[:, None] + _PACE * (v / fade).cumsum(axis=1))
    move = rate * level / np.minimum(now.level_rows + safe, MEMORY_ROWS)
    pace = rate * np.where(now.rows >= _SPREAD_ROWS, count, 0) / _WANDER_ROWS
    squares = np.where(there, np.minimum(slow**2 * (2 - _PACE) / _PACE, _WANDER_CAP), 0.0).sum(1) / safe
    return now._replace(
        rows=now.rows + count,
        level_rows=now.level_rows + count,
        mean=now.mean + move,
        var=var,
        lag=lag,
        last=np.where(some, away[newest], now.last) - move,
        centre=now.centre + known * off,
        spread=(1 - known) * (now.spread + known * off**2) + known * within,
        skewness=(1 - third) * now.skewness + third * (v**3).sum(1) / safe,
        slow=np.where(some & (now.rows >= _SPREAD_ROWS), slow[newest], now.slow),
        wander=now.wander + pace * (squares - now.wander),
        alarms=now.alarms * (1 - count / _WANDER_ROWS),
    )


def _judged(
    moved: _Track,
    sides: list[tuple[FloatArray, FloatArray, FloatArray]],
    slack: FloatArray,
    units: FloatArray,
    std: FloatArray,
) -> tuple[FloatArray, Moved]:
    """Look for alarms, and let the levels that have moved begin anew where they are found.

    Args:
        moved: The statistics after the rows.
        sides: Up and down: CUSUM and its age after each row, (S, B, D), and the threshold (S, D).
        slack: (S, D).
        units: (S, D) standard deviations of the feature in one of v.
        std: (S, D) that standard deviation.
    """
    tops = [levels.max(axis=1) for levels, _, _ in sides]
    over = (tops[0] > sides[0][2]) | (tops[1] > sides[1][2])  # (S, D)
    if not over.any():
        return np.stack(moved, axis=1), _nothing(len(over))
    ratios = [top / threshold for top, (_, _, threshold) in zip(tops, sides, strict=True)]
    down = ratios[1] > ratios[0]

    def chosen(values: list[FloatArray]) -> FloatArray:
        return np.where(down, values[1], values[0])

    ages = [
        np.take_along_axis(age, levels.argmax(axis=1)[:, None], axis=1)[:, 0] for levels, age, _ in sides
    ]  # at the top
    statistic, threshold = chosen(tops), chosen([side[2] for side in sides])
    pull = statistic / np.maximum(chosen(ages), 1.0) + slack
    shift = np.where(down, -1.0, 1.0) * pull * units
    jump = np.where(over, shift * std, 0.0)
    growth = np.where(over, 2.0 * (1.0 + _AGAIN * np.minimum(moved.alarms, 1.0)), 1.0)
    anew = {name: np.where(over, 0.0, getattr(moved, name)) for name in _ANEW}
    moved = moved._replace(
        **anew,
        mean=moved.mean + jump,
        last=moved.last - jump,
        wander=np.minimum(growth * moved.wander, _WANDER_MAX),
        alarms=moved.alarms + over,
    )
    at = np.arange(len(over)), np.maximum(*ratios).argmax(axis=1)
    return np.stack(moved, axis=1), Moved(over.any(axis=1), at[1], shift[at], statistic[at], threshold[at])
