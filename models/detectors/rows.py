"""Detectors that take one row after the other: the loop over a batch, and the checks of settings, that they share."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from models.detectors.base import BoolArray, DetectorState, IntArray, Signals, Verdict
from models.errors import InputError
from models.types import FloatArray

SIGNALS = ("error", "nll")


class Row(NamedTuple):
    """What one row of each stream led to; all (S,) but the state. Streams without the row may hold anything.

    Attributes:
        state: The state after the row. An alarm sets it back afterwards.
        drift: The row raised an alarm.
        warning: The row left the stream past the detector's warning level.
        statistic: What was compared with the threshold.
        since: Estimated number of rows since the change, if the row raised an alarm; -1: no estimate.
    """

    state: DetectorState
    drift: BoolArray
    warning: BoolArray
    statistic: FloatArray
    since: IntArray


Step: TypeAlias = Callable[[DetectorState, FloatArray, BoolArray], Row]
"""(state, values (S,), seen (S,)) to what the row led to; pure. Values of streams without the row are zero."""


def require(ok: bool, name: str, must: str, value: object) -> None:
    """Refuse a setting.

    Raises:
        InputError: ``ok`` is false; the message says what the setting must do, and the value it has.
    """
    if not ok:
        raise InputError(("config", name), f"must {must}, got {value!r}")


def watched(signals: Signals, name: str) -> FloatArray:
    """The signal (S, B) that a detector is told to watch, one of SIGNALS."""
    return signals.nll if name == "nll" else signals.error


def no_estimate(streams: int) -> IntArray:
    """-1 for every stream."""
    return np.full(streams, -1, dtype=np.int64)


def by_row(
    step: Step, state: DetectorState, start: DetectorState, values: FloatArray, mask: BoolArray, threshold: float
) -> tuple[DetectorState, Verdict]:
    """Take in the rows of a batch one after the other. Rows whose value is not finite are skipped.

    A stream that raises an alarm goes on from ``start`` with its next row. A batch counts as a drift if any of its rows
    raised an alarm; statistic and estimate are then the last alarm's. The stream is idle where the latest statistic
    since the last alarm is at most half the threshold.

    Args:
        step: What one row does.
        state: The state before the batch; ``statistic`` (S,) in it is the latest since the last alarm, kept here.
        start: The state of one stream before any row.
        values: (S, B) the watched signal.
        mask: (S, B); false where a row is padding.
        threshold: What the statistic is compared with.
    """
    streams = values.shape[0]
    drift, warning = np.zeros(streams, dtype=np.bool_), np.zeros(streams, dtype=np.bool_)
    since = no_estimate(streams)
    statistic: FloatArray = state["statistic"].astype(np.float64)
    for index in range(values.shape[1]):
        seen = mask[:, index] & np.isfinite(values[:, index])
        if not seen.any():
            continue
        row = step(state, np.where(seen, values[:, index], 0.0), seen)
        alarm = seen & row.drift
        statistic = np.where(alarm | (seen & ~drift), row.statistic, statistic)
        since = np.where(seen & (since > 0), since + 1, since)
        since = np.where(alarm, row.since, since)
        drift |= alarm
        warning = np.where(seen, row.warning | drift, warning)
        after = row.state | {"statistic": row.statistic}
        state = {name: _pick(seen, after[name], array) for name, array in state.items()}
        if alarm.any():
            state = {name: _pick(alarm, start[name], array) for name, array in state.items()}
    idle = state["statistic"] <= 0.5 * threshold
    return state, Verdict(drift, warning, statistic, threshold, since, idle)


def _pick(which: BoolArray, new: npt.NDArray[Any], old: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``new`` for the streams in question, ``old`` for the others, in the type of ``old``."""
    if which.all() and new.shape == old.shape:
        return new.astype(old.dtype, copy=False)
    return np.where(which.reshape(-1, *[1] * (old.ndim - 1)), new, old).astype(old.dtype, copy=False)
