"""What a drift detector sees, says and offers. NumPy only: float64 and int64 arrays with a leading stream axis S."""

from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, runtime_checkable

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
        live: (S,) joint log-likelihood of the batch under the live members, believed as they were when the suspicion
            began (with tails for regression), in nats.
        challenger: (S,) the same under the challenger: the meta-initialization plus the rows since the statistic last
            was last in doubt.
        fresh: (S,) the same under the meta-initialization alone; -inf where the challenger is just that. None: -inf.
        gain: (S,) nats by which the stream's own record raises the odds of a change above the model's; None: zero.
        members: (S, M + 1) joint log-likelihood of the batch under each member, the challenger last.
    """

    error: FloatArray
    nll: FloatArray
    mask: BoolArray
    live: FloatArray
    challenger: FloatArray
    fresh: FloatArray | None = None
    gain: FloatArray | None = None
    members: FloatArray | None = None


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
        suspicion: Nats by which the rows that the challenger has learned speak for it against what is served, 0 where
            it starts anew; None from detectors that do not weigh it.
        restart: The challenger starts again with this batch: that explains the rows better than the start it had.
        belief: (S, M + 1) log probabilities of the members for the next batch, the challenger last, from detectors that
            weigh all members themselves.
        place: With ``belief``: the live member whose place the challenger takes; -1: none.
    """

    drift: BoolArray
    warning: BoolArray
    statistic: FloatArray
    threshold: float
    rows_since_change: IntArray
    idle: BoolArray
    suspicion: FloatArray | None = None
    restart: BoolArray | None = None
    belief: FloatArray | None = None
    place: IntArray | None = None


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


@runtime_checkable
class WeighsHypotheses(Detector, Protocol):
    """A detector whose belief over hypotheses is what is served: every member stands for one start of the regime."""

    hypotheses: int
    """Members that it needs, the fresh one included."""
