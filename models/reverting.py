"""Whether a stream is better off with the frozen start: it is served the better of the two.

What a stream has learned can be worse than nothing, for a while: after a change that the detector has missed, or with
an expert that diverges. The adapted parameters' loss less the frozen start's is averaged over about ``WINDOW_ROWS``
rows. Where the mean is above zero by ``SURE`` of its standard errors, the frozen start is served, while the stream goes
on learning; it is back at its own parameters as soon as the mean is below zero, and after an alarm, a reset or a
roll-back, which leave parameters that nobody has judged yet.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.types import FloatArray

KEY = "edge"
"""In a stream's state, (S, 4): means of the difference and of its square, what they weigh, 1 where reverted."""
WIDTH = 4
WINDOW_ROWS = 200
ENOUGH = 0.4
"""Least weight of the mean: about half a window of rows."""
SURE = 4.0
MOST = 10.0
"""Nats a row that a difference counts at most, so that one outlier decides nothing."""

Flags = npt.NDArray[np.bool_]


class Turn(NamedTuple):
    """A stream is served otherwise from here on.

    Attributes:
        to: ``initial`` or ``adapted``.
        statistic: Mean nats a row by which the adapted parameters have been worse.
        threshold: Where that turned it: so many nats are ``SURE`` standard errors; 0 on the way back.
    """

    to: str
    statistic: float
    threshold: float


def reverted(edge: FloatArray) -> Flags:
    """(S,) streams that are served the frozen start."""
    found: Flags = edge[:, 3] > 0
    return found


def follow(
    edge: FloatArray, worse: FloatArray, counts: FloatArray, fresh: Flags, logged: Flags | None
) -> tuple[FloatArray, dict[int, Turn]]:
    """Take a batch of each stream into account.

    The mean of n rows counts as n rows, and n times its square estimates the variance of one.

    Args:
        edge: (S, 4) before the batch.
        worse: (S,) nats a row by which the adapted parameters were worse than the frozen start.
        counts: (S,) rows; a stream without any stays as it is.
        fresh: (S,) streams that were adapted anew with this batch.
        logged: (S,) what was decided then, on replay; ``None`` to decide.

    Returns:
        The next (S, 4), and the streams that turned, by their place.
    """
    rate = 1.0 / WINDOW_ROWS
    kept = (1.0 - rate) ** counts
    worse = np.clip(np.nan_to_num(worse, nan=MOST), -MOST, MOST)
    seen = np.stack([worse, counts * worse**2, np.ones_like(worse)], axis=1)
    sums = kept[:, None] * edge[:, :3] + (1.0 - kept)[:, None] * seen
    sums[fresh] = 0.0
    weight = np.maximum(sums[:, 2], 1e-9)
    mean, square = sums[:, 0] / weight, sums[:, 1] / weight
    rows = weight * (2.0 - rate) / (rate * (2.0 - weight))  # as many equal ones would be as sure
    limit = SURE * np.sqrt(square / rows)
    before = reverted(edge) & ~fresh
    after = np.where(before, mean > 0, (weight >= ENOUGH) & (mean > limit)) if logged is None else logged
    after = after & ~fresh
    turns = {}
    for place in np.flatnonzero(after != before).tolist():
        to, bound = ("initial", float(limit[place])) if after[place] else ("adapted", 0.0)
        turns[place] = Turn(to, float(mean[place]), bound)
    return np.concatenate([sums, after[:, None]], axis=1), turns
