"""Page-Hinkley test on the mean of the error or of the negative log-likelihood."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from models.detectors.base import BoolArray, DetectorState, IntArray, Signals, Verdict
from models.errors import InputError
from models.types import FloatArray

_MODES: Mapping[str, tuple[bool, bool]] = MappingProxyType(
    {"up": (True, False), "down": (False, True), "both": (True, True)},
)
_SIGNALS = ("error", "nll")


@dataclass(frozen=True, slots=True)
class PageHinkley:
    """Alarm where the signal has left its running mean, row by row, as River's detector of that name does.

    With x̄ the mean of the rows since the last alarm, a ← α·a + x − x̄ − δ and b ← α·b + x − x̄ + δ; alarm where
    a − min a > λ (the signal went up) or max b − b > λ (down), from ``min_instances`` rows on. An alarm starts it anew.
    The estimated change is the row after which a was last at its minimum, or b at its maximum.

    Attributes:
        threshold: λ, in units of the signal, > 0.
        delta: δ, change of the mean that is tolerated.
        min_instances: Rows since the last alarm before the next can come.
        alpha: α, forgetting factor of the sums, in (0, 1].
        mode: Which changes count: ``up``, ``down`` or ``both``.
        signal: ``nll`` (negative log-likelihood of a row) or ``error`` (its squared or 0/1 error).

    Reference:
        Page, E. S. (1954). Continuous inspection schemes. Biometrika 41, 100-115.
    """

    detects: ClassVar[bool] = True
    compares_challenger: ClassVar[bool] = False
    threshold: float = 20.0
    delta: float = 0.5
    min_instances: int = 10
    alpha: float = 1 - 0.0001
    mode: str = "up"
    signal: str = "nll"

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise InputError(("config", "mode"), f"must be one of {', '.join(_MODES)}, got {self.mode!r}")
        if self.signal not in _SIGNALS:
            raise InputError(("config", "signal"), f"must be one of {', '.join(_SIGNALS)}, got {self.signal!r}")
        if not self.threshold > 0.0:
            raise InputError(("config", "threshold"), f"must be above 0, got {self.threshold}")
        if not 0.0 < self.alpha <= 1.0:
            raise InputError(("config", "alpha"), f"must lie in (0, 1], got {self.alpha}")

    def init(self, streams: int) -> DetectorState:
        """State before any row: ``rows`` and ``mean`` since the last alarm, both sums, their extremes, rows since."""
        names = ("mean", "up_sum", "up_least", "down_sum", "down_most")
        state: DetectorState = {name: np.zeros(streams) for name in names}
        return state | {name: np.zeros(streams, dtype=np.int64) for name in ("rows", "up_rows", "down_rows")}

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Take in the rows one after the other. Rows whose signal is not finite are skipped.

        A batch counts as a drift if any of its rows raised an alarm; statistic and estimate are then the last alarm's.
        """
        values = signals.nll if self.signal == "nll" else signals.error
        streams = values.shape[0]
        drift, warning = np.zeros(streams, dtype=np.bool_), np.zeros(streams, dtype=np.bool_)
        since: IntArray = np.full(streams, -1, dtype=np.int64)
        statistic = self._statistics(state)[2]
        for row in range(values.shape[1]):
            seen = signals.mask[:, row] & np.isfinite(values[:, row])
            state = self._row(state, values[:, row], seen)
            up, down, latest = self._statistics(state)
            ready = seen & (state["rows"] >= self.min_instances)
            alarm = ready & (latest > self.threshold)
            statistic = np.where(alarm | (seen & ~drift), latest, statistic)
            since = np.where(seen & drift & ~alarm, since + 1, since)
            since = np.where(alarm, np.where(up >= down, state["up_rows"], state["down_rows"]), since)
            drift |= alarm
            warning = np.where(seen, (ready & (latest > 0.5 * self.threshold)) | drift, warning)
            state = {name: np.where(alarm, 0, array).astype(array.dtype) for name, array in state.items()}
        up, down, latest = self._statistics(state)
        suspected = np.where(up >= down, state["up_rows"], state["down_rows"])
        return state, Verdict(
            drift=drift,
            warning=warning,
            statistic=statistic,
            threshold=self.threshold,
            rows_since_change=np.where(drift, since, suspected),
            idle=latest == 0.0,
        )

    def _row(self, state: DetectorState, values: FloatArray, seen: BoolArray) -> DetectorState:
        """State after one row of each stream that has one. The operations are River's, in River's order."""
        x = np.where(seen, values, 0.0)
        rows = state["rows"] + 1
        mean = state["mean"] + (1.0 / rows) * (x - state["mean"])
        deviation = x - mean
        up_sum = self.alpha * state["up_sum"] + deviation - self.delta
        down_sum = self.alpha * state["down_sum"] + deviation + self.delta
        first = state["rows"] == 0
        lower = first | (up_sum < state["up_least"])
        higher = down_sum > np.where(first, -1.0, state["down_most"])  # River's start
        new: DetectorState = {
            "mean": mean,
            "up_sum": up_sum,
            "up_least": np.where(lower, up_sum, state["up_least"]),
            "down_sum": down_sum,
            "down_most": np.where(higher, down_sum, np.where(first, -1.0, state["down_most"])),
            "rows": rows,
            "up_rows": np.where(lower, 0, state["up_rows"] + 1),
            "down_rows": np.where(higher, 0, state["down_rows"] + 1),
        }
        return {name: np.where(seen, new[name], array).astype(array.dtype) for name, array in state.items()}

    def _statistics(self, state: DetectorState) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Both tests, 0 where the mode leaves one out, and the greater of the two."""
        use_up, use_down = _MODES[self.mode]
        up = (state["up_sum"] - state["up_least"]) * use_up
        down = (state["down_most"] - state["down_sum"]) * use_down
        return up.astype(np.float64), down.astype(np.float64), np.maximum(up, down).astype(np.float64)
