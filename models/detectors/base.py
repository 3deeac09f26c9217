"""What a drift detector sees, says and offers. NumPy only: float64 and int64 arrays with a leading stream axis S."""

from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from models.types import FloatArray

BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]
DetectorState: TypeAlias = dict[str, npt.NDArray[Any]]
"""Named float64 and int64 arrays that lead with S; all finite, so that a snapshot can be checked."""


class Signals(NamedTuple):
    """How well a batch was predicted, before it is learned.

    Attributes:
        error: (S, B) squared error in standardised units, summed over outputs; or 1 for a wrong class, else 0.
        nll: (S, B) negative log-likelihood of each row on its own, in nats.
        mask: (S, B); false where a row is padding.
        live: (S,) joint log-likelihood of the batch under what is served (heavy-tailed for regression), in nats.
        challenger: (S,) the same under the challenger: the meta-initialization plus the rows since the statistic last
            left zero.
    """

    error: FloatArray
    nll: FloatArray
    mask: BoolArray
    live: FloatArray
    challenger: FloatArray


class Verdict(NamedTuple):
    """What a detector says about a batch; all (S,) but the threshold. Streams without rows: no drift, no warning.

    Attributes:
        drift: The change is certain enough to act on.
        warning: The statistic is past the algorithm's warning level: half the threshold for `llr_cusum` and
            `page_hinkley`, none for `adwin` and `kswin`. True with every drift.
        statistic: Its value that was compared with the threshold, before an alarm sets it back.
        threshold: What the statistic is compared with.
        rows_since_change: Estimated number of rows since the change, this batch's included; -1: no estimate.
        idle: There is no suspicion: the statistic the next batch starts from is zero, or at most half the threshold for
            detectors whose statistic is never quite zero. After an alarm too.
    """

    drift: BoolArray
    warning: BoolArray
    statistic: FloatArray
    threshold: float
    rows_since_change: IntArray
    idle: BoolArray


class Detector(Protocol):
    """A frozen dataclass of settings; the state is a value that comes in and goes out."""

    detects: ClassVar[bool]
    """Whether it ever raises an alarm."""
    compares_challenger: ClassVar[bool]
    """Whether at an alarm the challenger has learned just the rows since the estimated change."""

    def init(self, streams: int) -> DetectorState:
        """State of ``streams`` streams before any row."""
        ...

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Take in a batch. A stream whose mask is empty keeps its state."""
        ...
