"""The run-length posterior: how probable each start of the present regime is."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.detectors.base import BoolArray, DetectorState, IntArray, Signals, Verdict
from models.detectors.rows import require
from models.types import FloatArray

NEVER_LIKELY = -1e6
"""Log probability, in nats, of a place that no hypothesis has taken: e to this power is zero."""


@dataclass(frozen=True, slots=True)
class RunLength:
    """Bayesian online changepoint detection over K hypotheses, each a member that has learned the rows since one start.

    b holds log probabilities of the starts, the last place that of a regime which begins with the next row. A batch of
    B rows moves it by its joint likelihood under each member, b ← b + log p; then the next row begins a new regime with
    probability 1 − (1 − hazard)^B. Of the K starts that have learned the batch the K − 1 most probable stay; before
    there are K of them nothing is forgotten and b is exact.

    The statistic is the probability that the regime has begun after the start that was acknowledged last: the stream's
    first row, then the most probable start at each alarm. What is served is the mixture of the members under b, which
    needs no alarm to adapt: an alarm tells.

    Attributes:
        hypotheses: K, the fresh one included, 2 or more.
        hazard: Probability, per row, that a new regime begins, in (0, 1).
        threshold: Probability of a change from which it counts as one, in (0, 1).

    Reference:
        Adams, MacKay: Bayesian online changepoint detection, 2007. Harrison et al.: Continuous meta-learning without
        tasks (MOCA), 2020.
    """

    detects: ClassVar[bool] = True
    compares_challenger: ClassVar[bool] = False
    hypotheses: int = 4
    hazard: float = 0.01
    threshold: float = 0.9

    def __post_init__(self) -> None:
        require(self.hypotheses >= 2, "hypotheses", "be 2 or more", self.hypotheses)  # noqa: PLR2004  # one old, one new
        require(0.0 < self.hazard < 1.0, "hazard", "lie between 0 and 1, both excluded", self.hazard)
        require(0.0 < self.threshold < 1.0, "threshold", "lie between 0 and 1, both excluded", self.threshold)

    def init(self, streams: int) -> DetectorState:
        """State before any row: ``belief`` (S, K); rows since each start, ``age``, and the known one, ``run``.

        An age of 0 is an empty place.
        """
        belief = np.full((streams, self.hypotheses), NEVER_LIKELY)
        belief[:, -1] = 0.0
        return {
            "belief": belief,
            "age": np.zeros((streams, self.hypotheses - 1), dtype=np.int64),
            "run": np.zeros(streams, dtype=np.int64),
        }

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Move the belief by a batch. Where a member's likelihood is not finite the batch counts as no rows."""
        belief, age, run = state["belief"], state["age"], state["run"]
        rows = signals.mask.sum(axis=1, dtype=np.int64)
        gained = np.full_like(belief, -np.inf) if signals.members is None else signals.members
        there = np.concatenate([age > 0, np.ones_like(age[:, :1], dtype=np.bool_)], axis=1)
        seen = (rows > 0) & (np.isfinite(gained) | ~there).all(axis=1)
        there &= seen[:, None]
        joint = np.where(there, belief + np.where(there, gained, 0.0), -np.inf)
        joint = np.where(seen[:, None], joint, 0.0)
        grown = np.maximum(_normalised(joint), NEVER_LIKELY)  # (S, K), the last of them began with this batch
        ages = np.concatenate([np.where(age > 0, age + rows[:, None], 0), rows[:, None]], axis=1)
        before = run + rows
        recent = np.where(ages < before[:, None], np.exp(grown), 0.0) * (ages > 0)
        statistic = np.minimum(recent.sum(axis=1), 1.0)
        likeliest = ages[np.arange(len(rows)), recent.argmax(axis=1)]
        drift = seen & (statistic > self.threshold)
        place = self._place(grown, seen)
        chosen = np.arange(self.hypotheses - 1) == place[:, None]  # the newest stands in the place that it takes
        kept = np.where(chosen, grown[:, -1:], grown[:, :-1])
        aged = np.where(chosen, ages[:, -1:], ages[:, :-1])
        stay = rows * math.log1p(-self.hazard)
        new = np.concatenate([_normalised(kept) + stay[:, None], _log_any(stay)[:, None]], axis=1)
        moved: DetectorState = {
            "belief": np.where(seen[:, None], np.maximum(new, NEVER_LIKELY), belief),
            "age": np.where(seen[:, None], aged, age),
            "run": np.where(seen, np.where(drift, likeliest, before), run),
        }
        return moved, Verdict(
            drift=drift,
            warning=seen & (statistic > 0.5 * self.threshold),
            statistic=np.where(seen, statistic, 0.0),
            threshold=self.threshold,
            rows_since_change=np.where(seen & (statistic > 0.0), likeliest, -1),
            idle=seen,
            belief=moved["belief"],
            place=place,
        )

    def _place(self, grown: FloatArray, seen: BoolArray) -> IntArray:
        """The least probable hypothesis gives way to the one that began with the batch; -1 where it is that itself."""
        least = grown.argmin(axis=1)  # an empty place comes first
        return np.where(seen & (least < self.hypotheses - 1), least, -1)


def _normalised(logs: FloatArray) -> FloatArray:
    """Log probabilities that sum to one, row by row; at least one is finite."""
    top = logs.max(axis=1, keepdims=True)
    return np.asarray(logs - top - np.log(np.exp(logs - top).sum(axis=1, keepdims=True)), dtype=np.float64)


def _log_any(log_none: FloatArray) -> FloatArray:
    """log(1 − e^x) for x ≤ 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(-np.expm1(log_none)), dtype=np.float64)
