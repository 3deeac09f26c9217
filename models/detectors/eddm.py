"""Early Drift Detection Method: errors come closer together than they did."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.detectors.base import BoolArray, DetectorState, Signals, Verdict
from models.detectors.rows import Row, by_row, no_estimate, require
from models.types import FloatArray


@dataclass(frozen=True, slots=True)
class Eddm:
    """Alarm where the rows between errors have become fewer than at best, as River's detector ``EDDM`` does.

    With m and s the mean and standard deviation of the number of rows from one error to the next since the last alarm,
    and q the greatest m + 2·s so far: warning where (m + 2·s)/q < α, alarm where it is below β, from more than
    ``warm_start`` errors on. An alarm starts it anew; a warning stands until an error is found not to deserve one. The
    statistic is 1 − (m + 2·s)/q. It has no estimate of when the change was.

    Attributes:
        warm_start: Rows, and errors, since the last alarm that come before anything is compared.
        alpha: α, the warning level, at least β.
        beta: β, the alarm level, in (0, 1).
        miss_from: A row counts as an error from this value of the error signal on, > 0: with 1, a wrong class, or a
            number that is off by one standard deviation of the target or more.

    Reference:
        Baena-García, M. et al. (2006). Early drift detection method. Fourth International Workshop on Knowledge
        Discovery from Data Streams.
    """

    detects: ClassVar[bool] = True
    compares_challenger: ClassVar[bool] = False
    warm_start: int = 30
    alpha: float = 0.95
    beta: float = 0.9
    miss_from: float = 1.0

    def __post_init__(self) -> None:
        require(self.warm_start >= 0, "warm_start", "be a number of rows, 0 or more", self.warm_start)
        require(0.0 < self.beta < 1.0, "beta", "lie between 0 and 1, both excluded", self.beta)
        require(self.alpha >= self.beta, "alpha", "be at least beta", self.alpha)
        require(self.miss_from > 0.0, "miss_from", "be above 0", self.miss_from)

    def init(self, streams: int) -> DetectorState:
        """State before any row: counts since the last alarm, moments of the distances, their best, the warning."""
        state: DetectorState = {name: np.zeros(streams) for name in ("mean", "squares", "statistic")}
        state |= {name: np.zeros(streams, dtype=np.int64) for name in ("rows", "errors", "last_error", "warned")}
        return state | {"best": np.full(streams, -1.0)}

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Take in the rows one after the other; see ``by_row``."""
        misses = np.where(np.isfinite(signals.error), signals.error >= self.miss_from, np.nan)
        return by_row(self._row, state, self.init(1), misses, signals.mask, 1.0 - self.beta)

    def _row(self, state: DetectorState, miss: FloatArray, _: BoolArray) -> Row:
        """One row of each stream; only errors change more than the count. The operations are River's, in its order."""
        error = miss > 0.0
        rows = state["rows"] + 1
        errors = state["errors"] + 1
        distance = rows - state["last_error"]
        mean = state["mean"] + (1.0 / errors) * (distance - state["mean"])
        squares = state["squares"] + (distance - state["mean"]) * (distance - mean)
        variance = np.where(errors > 1, squares / np.maximum(errors - 1, 1), 0.0)
        reach = mean + 2 * np.sqrt(variance)
        ready = error & (rows > self.warm_start)
        better = ready & (reach > state["best"])
        judged = ready & ~better & (errors > self.warm_start)
        level = reach / state["best"]
        drift = judged & (level < self.beta)
        warned = np.where(judged, level < self.alpha, state["warned"] > 0)
        after = {
            "rows": rows,
            "errors": np.where(error, errors, state["errors"]),
            "last_error": np.where(error, rows, state["last_error"]),
            "mean": np.where(error, mean, state["mean"]),
            "squares": np.where(error, squares, state["squares"]),
            "best": np.where(better, reach, state["best"]),
            "warned": warned,
        }
        statistic = np.where(judged, 1.0 - level, np.where(better, 0.0, state["statistic"]))
        return Row(after, drift, warned, statistic, no_estimate(len(rows)))
