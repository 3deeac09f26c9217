"""ADWIN: a window that is as long as its mean is one."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.detectors.base import BoolArray, DetectorState, IntArray, Signals, Verdict
from models.detectors.rows import SIGNALS, Row, by_row, no_estimate, require, watched
from models.types import FloatArray

_LEVELS_MAX = 48  # 2^48 rows are counted exactly in float64


@dataclass(frozen=True, slots=True)
class Adwin:
    """Alarm where some cut of the window leaves two parts whose means differ, as River's detector ``ADWIN`` does.

    The window holds the rows since the last alarm as an exponential histogram: up to ``max_buckets`` buckets of 2^l
    rows on each level l, with their sum and their squared deviations. With parts of n₀ and n₁ rows, W rows in all, of
    variance σ², μ = ``min_window_length``, L = ln(2·ln W/δ) and r = 1/(n₀ − μ + 1) + 1/(n₁ − μ + 1), a cut between two
    buckets stands out if the means differ by more than √(2·r·σ²·L) + 2/3·L·r. While one does, the oldest bucket goes;
    that is an alarm, and what is kept at its end dates the change. The next row starts an empty window, as in River.
    The statistic is the greatest difference of means at the latest comparison, in units of its bound. It has no warning
    level.

    River's histogram has no end. Here it has ``levels`` levels, about ``max_buckets``·2^levels rows (five million with
    the defaults); a longer stretch without alarm loses its oldest bucket.

    Attributes:
        delta: δ, confidence, in (0, 1); less is less sensitive.
        clock: Rows from one comparison to the next.
        max_buckets: Buckets kept on a level, 2 or more.
        min_window_length: μ, rows that either part must have.
        grace_period: Rows that the window must exceed before anything is compared.
        levels: Levels of the histogram, at most 48. A stream's state is 2·levels·(max_buckets + 1) numbers.
        signal: ``nll`` (negative log-likelihood of a row) or ``error`` (its squared or 0/1 error).

    Reference:
        Bifet, A. and Gavaldà, R. (2007). Learning from time-changing data with adaptive windowing. SDM, 443-448.
    """

    detects: ClassVar[bool] = True
    compares_challenger: ClassVar[bool] = False
    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10
    levels: int = 20
    signal: str = "nll"

    def __post_init__(self) -> None:
        require(0.0 < self.delta < 1.0, "delta", "lie between 0 and 1, both excluded", self.delta)
        require(self.clock >= 1, "clock", "be 1 or more", self.clock)
        require(self.max_buckets >= 2, "max_buckets", "be 2 or more", self.max_buckets)  # noqa: PLR2004  # pairs merge
        require(self.min_window_length >= 1, "min_window_length", "be 1 or more", self.min_window_length)
        require(self.grace_period >= 0, "grace_period", "be 0 or more", self.grace_period)
        require(1 <= self.levels <= _LEVELS_MAX, "levels", f"lie from 1 to {_LEVELS_MAX}", self.levels)
        require(self.signal in SIGNALS, "signal", f"be one of {', '.join(SIGNALS)}", self.signal)

    def init(self, streams: int) -> DetectorState:
        """State before any row: the window's ``width``, ``total`` and ``squares``, and its buckets, oldest first."""
        buckets = (streams, self.levels, self.max_buckets + 1)  # one more, before a pair merges
        state: DetectorState = {name: np.zeros(streams) for name in ("total", "squares", "statistic")}
        state |= {name: np.zeros(streams, dtype=np.int64) for name in ("rows", "width")}
        state |= {"bucket_total": np.zeros(buckets), "bucket_squares": np.zeros(buckets)}
        return state | {"buckets": np.zeros((streams, self.levels), dtype=np.int64)}

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Take in the rows one after the other; see ``by_row``."""
        return by_row(self._row, state, self.init(1), watched(signals, self.signal), signals.mask, 1.0)

    def _row(self, state: DetectorState, x: FloatArray, seen: BoolArray) -> Row:
        """One row of each stream. The operations are River's, in River's order."""
        new = {name: array.copy() for name, array in state.items()}
        some = np.flatnonzero(seen)
        new["rows"][some] += 1
        self._insert(new, x, some)
        due = seen & (new["rows"] % self.clock == 0) & (new["width"] > self.grace_period)
        drift = np.zeros(len(seen), dtype=np.bool_)
        asked = np.flatnonzero(due)
        while asked.size:
            cut, statistic = self._compare(new, asked)
            first = asked[~drift[asked]]
            new["statistic"][first] = statistic[~drift[asked]]
            asked = asked[cut]
            drift[asked] = True
            for stream in asked.tolist():
                _drop_oldest(new, stream)
        return Row(new, drift, drift, new["statistic"], np.where(drift, new["width"], no_estimate(len(seen))))

    def _insert(self, new: DetectorState, x: FloatArray, some: IntArray) -> None:
        """Write a row into a bucket of its own, then merge pairs where a level overflows."""
        width = new["width"][some].astype(np.float64) + 1.0
        from_mean = x[some] - new["total"][some] / np.maximum(width - 1.0, 1.0)
        new["squares"][some] += np.where(width > 1.0, (width - 1.0) * from_mean * from_mean / width, 0.0)
        new["total"][some] += x[some]
        new["width"][some] += 1
        new["bucket_total"][some, 0, new["buckets"][some, 0]] = x[some]
        new["buckets"][some, 0] += 1
        for level in range(self.levels):
            full = np.flatnonzero(new["buckets"][:, level] > self.max_buckets)
            if not full.size:
                return
            if level == self.levels - 1:
                for stream in full.tolist():
                    _drop_oldest(new, stream)
                return
            total, squares = new["bucket_total"][full, level], new["bucket_squares"][full, level]  # (full, buckets)
            apart = total[:, 0] / 2.0**level - total[:, 1] / 2.0**level
            place = new["buckets"][full, level + 1]
            new["bucket_total"][full, level + 1, place] = total[:, 0] + total[:, 1]
            merged = squares[:, 0] + squares[:, 1] + 2.0**level * 0.5 * apart * apart
            new["bucket_squares"][full, level + 1, place] = merged
            new["buckets"][full, level + 1] += 1
            new["buckets"][full, level] -= 2
            for name, array in (("bucket_total", total), ("bucket_squares", squares)):
                new[name][full, level] = np.pad(array[:, 2:], ((0, 0), (0, 2)))

    def _compare(self, new: DetectorState, asked: IntArray) -> tuple[BoolArray, FloatArray]:
        """Whether some cut of the asked streams' windows stands out, and the greatest difference over its bound."""
        counts = new["buckets"][asked]  # (asked, levels)
        top = int(np.flatnonzero(counts.any(axis=0))[-1]) + 1
        there = np.arange(self.max_buckets + 1) < counts[:, :top, None]
        oldest_first = (len(asked), top * (self.max_buckets + 1))
        sizes = (there * 2.0 ** np.arange(top)[:, None])[:, ::-1].reshape(oldest_first)
        totals = new["bucket_total"][asked, :top][:, ::-1].reshape(oldest_first)
        width = new["width"][asked].astype(np.float64)
        n0 = np.cumsum(sizes, axis=1)
        n1 = width[:, None] - n0
        u0 = np.cumsum(totals, axis=1)
        u1 = np.subtract.accumulate(np.concatenate([new["total"][asked, None], totals], axis=1), axis=1)[:, 1:]
        least = self.min_window_length
        valid = (sizes > 0.0) & (n0 >= least) & (n1 >= least)
        # math.log, one by one: NumPy's may differ in the last place
        log = np.array([math.log(2.0 * math.log(max(w, 2.0)) / self.delta) for w in width.tolist()])[:, None]
        variance = (new["squares"][asked] / width)[:, None]
        reciprocal = 1.0 / np.where(valid, n0 - least + 1.0, 1.0) + 1.0 / np.where(valid, n1 - least + 1.0, 1.0)
        bound = np.sqrt(np.maximum(2.0 * reciprocal * variance * log, 0.0)) + 2.0 / 3.0 * log * reciprocal
        apart = np.where(valid, np.abs(u0 / np.maximum(n0, 1.0) - u1 / np.maximum(n1, 1.0)), 0.0)
        return (apart > bound).any(axis=1), (apart / bound).max(axis=1)


def _drop_oldest(new: DetectorState, stream: int) -> None:
    """Take the oldest bucket of one stream out of its window, in place."""
    level = int(np.flatnonzero(new["buckets"][stream])[-1])
    size = 2.0**level
    total, squares = new["bucket_total"][stream, level, 0], new["bucket_squares"][stream, level, 0]
    new["width"][stream] -= int(size)
    new["total"][stream] -= total
    width = float(new["width"][stream])
    apart = total / size - new["total"][stream] / width
    new["squares"][stream] -= squares + size * width * apart * apart / (size + width)
    for name in ("bucket_total", "bucket_squares"):
        new[name][stream, level] = np.append(new[name][stream, level, 1:], 0.0)
    new["buckets"][stream, level] -= 1
