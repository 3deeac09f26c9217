"""Drift detection by McDiarmid's bound on moving weighted averages (HDDM, W-test)."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from models.detectors.base import BoolArray, DetectorState, IntArray, Signals, Verdict
from models.detectors.rows import Row, by_row, require
from models.types import FloatArray


class _Side(NamedTuple):
    """One direction's outcome of a row, all (S,) but the state."""

    state: DetectorState
    drift: BoolArray
    warning: BoolArray
    statistic: FloatArray
    since: IntArray


@dataclass(frozen=True, slots=True)
class HddmW:
    """Alarm where recent rows are certainly above those before a cut, as River's detector ``HDDMW`` does.

    With z the exponentially weighted mean of the rows since the last alarm, v its sum of squared weights (from
    v ← λ² + (1 − λ)²·v) and ε(v) = √(v·ln(1/c)/2), the cut is the row at which z + ε(v) was least; x and v_x are its z
    and v there, y and v_y those of the rows after it alone. Alarm where y − x > ε(v_x + v_y). With ``two_sided_test`` a
    fall counts too, from the cut at which z − ε(v) was greatest. An alarm starts it anew. The statistic is the
    difference of the means in units of its bound; the change is dated to the cut.

    Attributes:
        drift_confidence: c of an alarm, in (0, 1): the chance of an alarm where nothing has changed.
        warning_confidence: c of a warning, from ``drift_confidence`` to 1.
        lambda_val: λ, weight of the latest row, in (0, 1].
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
    lambda_val: float = 0.05
    two_sided_test: bool = False
    error_max: float = 1.0

    def __post_init__(self) -> None:
        drift, warning = self.drift_confidence, self.warning_confidence
        require(0.0 < drift < 1.0, "drift_confidence", "lie between 0 and 1, both excluded", drift)
        require(drift <= warning < 1.0, "warning_confidence", "lie from drift_confidence to 1, excluded", warning)
        require(0.0 < self.lambda_val <= 1.0, "lambda_val", "lie in (0, 1]", self.lambda_val)
        require(0.0 < self.error_max < math.inf, "error_max", "be a finite number above 0", self.error_max)

    def init(self, streams: int) -> DetectorState:
        """State before any row: rows, mean and squared weights of all since the last alarm; for either side its cut."""
        state: DetectorState = {"statistic": np.zeros(streams)}
        for part in ("all", "up_before", "up_after", "down_before", "down_after"):
            state |= {f"{part}_mean": np.zeros(streams), f"{part}_squares": np.ones(streams)}
        rows = {f"{part}_rows": np.zeros(streams, dtype=np.int64) for part in ("all", "up_after", "down_after")}
        return state | rows | {"up_cut": np.zeros(streams), "down_cut": np.zeros(streams)}

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Take in the rows one after the other; see ``by_row``."""
        finite = np.isfinite(signals.error)
        values = np.where(finite, np.clip(signals.error / self.error_max, 0.0, 1.0), np.nan)
        return by_row(self._row, state, self.init(1), values, signals.mask, 1.0)

    def _row(self, state: DetectorState, x: FloatArray, _: BoolArray) -> Row:
        """One row of each stream. The operations are River's, in River's order."""
        total = self._weigh(state, "all", x)
        up = self._side(state, total, x, "up")
        down = self._side(state, total, x, "down")
        after = total | up.state | down.state
        if not self.two_sided_test:
            return Row(after, up.drift, up.warning, up.statistic, up.since)
        return Row(
            state=after,
            drift=up.drift | down.drift,
            warning=up.warning | down.warning,
            statistic=np.maximum(up.statistic, down.statistic),
            since=np.where(up.drift, up.since, down.since),
        )

    def _weigh(self, state: DetectorState, part: str, x: FloatArray) -> DetectorState:
        """Rows, mean and sum of squared weights of a part after one more row."""
        rows, mean, squares = (state[f"{part}_{what}"] for what in ("rows", "mean", "squares"))
        weight = self.lambda_val
        return {
            f"{part}_rows": rows + 1,
            f"{part}_mean": np.where(rows == 0, x, weight * x + (1 - weight) * mean),
            f"{part}_squares": weight * weight + (1 - weight) ** 2 * squares,
        }

    def _side(self, state: DetectorState, total: DetectorState, x: FloatArray, side: str) -> _Side:
        """Move one side's cut, or its rows after the cut, and compare what was before with what came after."""
        sign = 1.0 if side == "up" else -1.0
        extreme = total["all_mean"] + sign * self._bound(total["all_squares"], self.drift_confidence)
        cut = (total["all_rows"] == 1) | (sign * extreme < sign * state[f"{side}_cut"])
        later = self._weigh(state, f"{side}_after", x)
        rows = np.where(cut, 0, later[f"{side}_after_rows"])
        after = np.where(cut, 0.0, later[f"{side}_after_mean"])
        after_squares = np.where(cut, 1.0, later[f"{side}_after_squares"])
        before = np.where(cut, total["all_mean"], state[f"{side}_before_mean"])
        before_squares = np.where(cut, total["all_squares"], state[f"{side}_before_squares"])
        difference = np.where(cut, 0.0, sign * (after - before))
        bound = self._bound(before_squares + after_squares, self.drift_confidence)
        warning_bound = self._bound(before_squares + after_squares, self.warning_confidence)
        moved = {
            f"{side}_cut": np.where(cut, extreme, state[f"{side}_cut"]),
            f"{side}_before_mean": before,
            f"{side}_before_squares": before_squares,
            f"{side}_after_rows": rows,
            f"{side}_after_mean": after,
            f"{side}_after_squares": after_squares,
        }
        return _Side(
            state=moved,
            drift=difference > bound,
            warning=difference > warning_bound,
            statistic=np.maximum(difference, 0.0) / bound,
            since=rows,
        )

    def _bound(self, squares: FloatArray, confidence: float) -> FloatArray:
        """ε of a weighted mean with so large a sum of squared weights."""
        return np.sqrt(squares * math.log(1 / confidence) / 2)
