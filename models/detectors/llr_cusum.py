"""CUSUM of the log-likelihood ratio between the challenger and the live members."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.detectors.base import DetectorState, Signals, Verdict
from models.errors import InputError
from models.types import FloatArray


@dataclass(frozen=True, slots=True)
class LlrCusum:
    """Asks, batch after batch, whether starting afresh would have predicted better.

    ``c ← max(0, c + challenger − live)``; alarm where c + g > h; then c = 0. Live members are weighed as they were when
    c left zero, so that the challenger's lead does not end because the committee moves its weights. The challenger
    starts from the meta-initialization whenever c is zero, and again with a batch whose ``fresh − live`` alone exceeds
    c, so that at an alarm it has learned just the rows since the likeliest change. g ≥ 0 is the gain of the odds of a
    change over the model's where a stream has changed often before. Where nothing has changed, g is zero and e^c of
    each start has mean one under the live members, so a batch starts a run that ends above h with probability e^−h at
    most: sensitivity is stated as ``alarms_per_1000`` = 1000·e^−h.

    Attributes:
        threshold: h in nats, > 0.
        alarms_per_1000: Bound on false alarms per 1,000 batches, between 0 and 1000; given, it determines h.

    Reference:
        Page, E. S. (1954). Continuous inspection schemes. Biometrika 41, 100-115.
    """

    detects: ClassVar[bool] = True
    compares_challenger: ClassVar[bool] = True
    threshold: float = 8.0
    alarms_per_1000: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold > 0.0):
            raise InputError(("config", "threshold"), f"must be a finite number of nats above 0, got {self.threshold}")
        rate = self.alarms_per_1000
        if rate is not None and not 0.0 < rate < 1000.0:  # noqa: PLR2004  # alarms in 1,000 batches
            raise InputError(("config", "alarms_per_1000"), f"must lie between 0 and 1000, both excluded, got {rate}")

    @property
    def h(self) -> float:
        """The threshold in force, in nats."""
        return self.threshold if self.alarms_per_1000 is None else math.log(1000.0 / self.alarms_per_1000)

    def init(self, streams: int) -> DetectorState:
        """State before any row: ``statistic`` c, and ``rows`` since it last left zero."""
        return {"statistic": np.zeros(streams), "rows": np.zeros(streams, dtype=np.int64)}

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Add the batch's log-likelihood ratio. A ratio that is not finite counts as no rows."""
        before, rows_before = state["statistic"].astype(np.float64), state["rows"].astype(np.int64)
        with np.errstate(invalid="ignore"):
            ratio = signals.challenger - signals.live
        seen = signals.mask.any(axis=1) & np.isfinite(ratio)
        moved = np.where(seen, np.maximum(0.0, before + np.where(seen, ratio, 0.0)), before)
        anew = _finite(signals.fresh, signals.live) if signals.fresh is not None else np.full_like(moved, -np.inf)
        restart = seen & (before > 0.0) & (anew > moved)
        statistic = np.where(restart, anew, moved)
        rows_now = signals.mask.sum(axis=1, dtype=np.int64)
        grown = np.where(restart, rows_now, rows_before + rows_now)  # zero before, if the statistic was
        rows = np.where(seen, np.where(statistic > 0.0, grown, 0), rows_before)
        compared = statistic if signals.gain is None else np.where(statistic > 0.0, statistic + signals.gain, 0.0)
        drift = seen & (compared > self.h)
        after = np.where(drift, 0.0, statistic)
        verdict = Verdict(
            drift=drift,
            warning=seen & (compared > 0.5 * self.h),
            statistic=compared,
            threshold=self.h,
            rows_since_change=rows,
            idle=after == 0.0,
            suspicion=after,
            restart=restart,
        )
        return {"statistic": after, "rows": np.where(drift, 0, rows)}, verdict


def _finite(fresh: FloatArray, live: FloatArray) -> FloatArray:
    """Their log ratio, -inf where it is not finite."""
    with np.errstate(invalid="ignore"):
        ratio = fresh - live
    return np.where(np.isfinite(ratio), ratio, -np.inf)
