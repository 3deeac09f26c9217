"""Drift detection by Hoeffding's bound on moving averages (HDDM, A-test)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.detectors.base import BoolArray, DetectorState, Signals, Verdict
from models.detectors.rows import Row, by_row, require
from models.types import FloatArray


@dataclass(frozen=True, slots=True)
class HddmA:
    """Alarm where the mean of all rows is certainly above the mean up to a cut, as River's detector ``HDDMA`` does.

    With z the mean of the n rows since the last alarm and ε(k) = √(ln(1/c)/(2·k)), the cut is the row k at which
    z + ε(k) was least, and x the mean there. Alarm where z − x ≥ √(m/2·ln(2/c)) with m = (n − k)/(k·n). With
    ``two_sided_test`` a fall counts too, from the cut at which z − ε(k) was greatest. An alarm starts it anew. The
    statistic is the difference of the means in units of its bound; the change is dated to the cut.

    Attributes:
        drift_confidence: c of an alarm, in (0, 1): the chance of an alarm where nothing has changed.
        warning_confidence: c of a warning, from ``drift_confidence`` to 1.
        two_sided_test: Whether the error's fall counts as well as its rise.
        error_max: Value of the error signal that counts as 1, > 0; what is above it is cut off. A row's value is the
            error signal over this one: 0 or 1 for classes, the squared error in standardised units for numbers.

    Reference:
        Frías-Blanco, I. et al. (2015). Online and non-parametric drift detection methods based on Hoeffding's bounds.
        IEEE Transactions on Knowledge and Data Engineering 27(3), 810-823.
    """

    detects: ClassVar[bool] = True
    compares_challenger: ClassVar[bool] = False
    drift_confidence: float = 0.001
    warning_confidence: float = 0.005
    two_sided_test: bool = False
    error_max: float = 1.0

    def __post_init__(self) -> None:
        drift, warning = self.drift_confidence, self.warning_confidence
        require(0.0 < drift < 1.0, "drift_confidence", "lie between 0 and 1, both excluded", drift)
        require(drift <= warning < 1.0, "warning_confidence", "lie from drift_confidence to 1, excluded", warning)
        require(0.0 < self.error_max < math.inf, "error_max", "be a finite number above 0", self.error_max)

    def init(self, streams: int) -> DetectorState:
        """State before any row: ``rows`` since the last alarm and their ``mean``; the same up to either cut."""
        state: DetectorState = {name: np.zeros(streams) for name in ("mean", "low_mean", "high_mean", "statistic")}
        return state | {name: np.zeros(streams, dtype=np.int64) for name in ("rows", "low_rows", "high_rows")}

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Take in the rows one after the other; see ``by_row``."""
        finite = np.isfinite(signals.error)
        values = np.where(finite, np.clip(signals.error / self.error_max, 0.0, 1.0), np.nan)
        return by_row(self._row, state, self.init(1), values, signals.mask, 1.0)

    def _row(self, state: DetectorState, x: FloatArray, _: BoolArray) -> Row:
        """One row of each stream. The operations are River's, in River's order."""
        rows = state["rows"] + 1
        mean = state["mean"] + (1.0 / rows) * (x - state["mean"])
        first = state["rows"] == 0
        margin = self._margin(rows)
        low_margin = self._margin(np.where(first, rows, state["low_rows"]))
        high_margin = self._margin(np.where(first, rows, state["high_rows"]))
        low = first | (state["low_mean"] + low_margin >= mean + margin)
        high = first | (state["high_mean"] - high_margin <= mean - margin)
        low_rows, low_mean = np.where(low, rows, state["low_rows"]), np.where(low, mean, state["low_mean"])
        high_rows, high_mean = np.where(high, rows, state["high_rows"]), np.where(high, mean, state["high_mean"])
        after: DetectorState = {
            "rows": rows,
            "mean": mean,
            "low_rows": low_rows,
            "low_mean": low_mean,
            "high_rows": high_rows,
            "high_mean": high_mean,
        }
        drift, warning, statistic = self._risen(mean - low_mean, rows, low_rows)
        since = rows - low_rows
        if self.two_sided_test:
            fallen, falling, fall = self._risen(high_mean - mean, rows, high_rows)
            since = np.where(drift, since, rows - high_rows)
            drift, warning, statistic = drift | fallen, warning | falling, np.maximum(statistic, fall)
        return Row(after, drift, warning, statistic, since)

    def _margin(self, rows: FloatArray) -> FloatArray:
        """ε of a mean of so many rows."""
        return np.sqrt(1.0 / (2 * rows) * math.log(1.0 / self.drift_confidence))

    def _risen(
        self, difference: FloatArray, rows: FloatArray, cut: FloatArray
    ) -> tuple[BoolArray, BoolArray, FloatArray]:
        """Whether means differ enough for an alarm, or for a warning; and the difference over the alarm's bound."""
        later = cut != rows
        m = (rows - cut) / cut * (1.0 / rows)
        bound = np.sqrt(m / 2 * math.log(2.0 / self.drift_confidence))
        warning_bound = np.sqrt(m / 2 * math.log(2.0 / self.warning_confidence))
        statistic = np.maximum(difference, 0.0) / np.where(later, bound, 1.0) * later
        return later & (difference >= bound), later & (difference >= warning_bound), statistic
