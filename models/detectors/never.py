"""The detector that never raises an alarm: adaptation goes on without resets."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.detectors.base import DetectorState, Signals, Verdict


@dataclass(frozen=True, slots=True)
class Never:
    """No state, no settings, no alarm; always idle."""

    detects: ClassVar[bool] = False
    compares_challenger: ClassVar[bool] = False

    def init(self, streams: int) -> DetectorState:  # noqa: ARG002  # the interface of all detectors
        """Return an empty state."""
        return {}

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Return the state as it is, and no alarm."""
        streams = signals.mask.shape[0]
        no = np.zeros(streams, dtype=np.bool_)
        return state, Verdict(
            drift=no,
            warning=no.copy(),
            statistic=np.zeros(streams),
            threshold=0.0,
            rows_since_change=np.full(streams, -1, dtype=np.int64),
            idle=np.ones(streams, dtype=np.bool_),
        )
