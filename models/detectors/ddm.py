"""Drift Detection Method: the rate of errors has risen above its least."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.detectors.base import BoolArray, DetectorState, Signals, Verdict
from models.detectors.rows import Row, by_row, no_estimate, require
from models.types import FloatArray

_LEAST_DEVIATION = 1e-12  # keeps the statistic finite where the least deviation is zero


@dataclass(frozen=True, slots=True)
class Ddm:
    """Alarm where the error rate is too many standard deviations above its least, as River's detector ``DDM`` does.

    With p the rate of errors among the n rows since the last alarm and s = √(p·(1 − p)/n), the least p + s so far is
    kept as p_min and s_min; warning where p + s > p_min + w·s_min, alarm where p + s > p_min + d·s_min, from more than
    ``warm_start`` rows on. An alarm starts it anew. The statistic is (p + s − p_min)/s_min. It has no estimate of when
    the change was.

    Attributes:
        warm_start: Rows since the last alarm that come before anything is compared.
        warning_threshold: w, in standard deviations of the least rate.
        drift_threshold: d, in standard deviations of the least rate, > 0.
        miss_from: A row counts as an error from this value of the error signal on, > 0: with 1, a wrong class, or a
            number that is off by one standard deviation of the target or more.

    Reference:
        Gama, J., Medas, P., Castillo, G. and Rodrigues, P. (2004). Learning with drift detection. SBIA, 286-295.
    """

    detects: ClassVar[bool] = True
    compares_challenger: ClassVar[bool] = False
    warm_start: int = 30
    warning_threshold: float = 2.0
    drift_threshold: float = 3.0
    miss_from: float = 1.0

    def __post_init__(self) -> None:
        require(self.warm_start >= 0, "warm_start", "be a number of rows, 0 or more", self.warm_start)
        require(self.drift_threshold > 0.0, "drift_threshold", "be above 0", self.drift_threshold)
        ordered = self.warning_threshold <= self.drift_threshold
        require(ordered, "warning_threshold", "be at most drift_threshold", self.warning_threshold)
        require(self.miss_from > 0.0, "miss_from", "be above 0", self.miss_from)

    def init(self, streams: int) -> DetectorState:
        """State before any row: ``rows`` since the last alarm, their error ``rate``, the least rate's two numbers."""
        state: DetectorState = {
            name: np.zeros(streams) for name in ("rate", "least_rate", "least_deviation", "statistic")
        }
        return state | {"rows": np.zeros(streams, dtype=np.int64)}

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Take in the rows one after the other; see ``by_row``."""
        misses = np.where(np.isfinite(signals.error), signals.error >= self.miss_from, np.nan)
        return by_row(self._row, state, self.init(1), misses, signals.mask, self.drift_threshold)

    def _row(self, state: DetectorState, miss: FloatArray, _: BoolArray) -> Row:
        """One row of each stream. The operations are River's, in River's order."""
        rows = state["rows"] + 1
        rate = state["rate"] + (1.0 / rows) * (miss - state["rate"])
        deviation = np.sqrt(np.maximum(rate * (1 - rate) / rows, 0.0))
        ready = rows > self.warm_start
        first = rows == self.warm_start + 1
        level = rate + deviation
        least = ready & (first | (level <= state["least_rate"] + state["least_deviation"]))
        least_rate = np.where(least, rate, state["least_rate"])
        least_deviation = np.where(least, deviation, state["least_deviation"])
        statistic = np.where(ready, (level - least_rate) / np.maximum(least_deviation, _LEAST_DEVIATION), 0.0)
        after = {"rows": rows, "rate": rate, "least_rate": least_rate, "least_deviation": least_deviation}
        return Row(
            state=after,
            drift=ready & (level > least_rate + self.drift_threshold * least_deviation),
            warning=ready & (level > least_rate + self.warning_threshold * least_deviation),
            statistic=statistic,
            since=no_estimate(len(rows)),
        )
