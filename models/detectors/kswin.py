"""KSWIN: the latest rows are distributed otherwise than those before them."""

import math
import random
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from models.detectors.base import BoolArray, DetectorState, IntArray, Signals, Verdict
from models.detectors.rows import SIGNALS, Row, by_row, require, watched
from models.types import FloatArray

_WINDOW_MAX = 10_000
_LEAST_DISTANCE = 0.1


@dataclass(frozen=True, slots=True)
class Kswin:
    """Alarm by the two-sample Kolmogorov-Smirnov test, row by row, as River's detector ``KSWIN`` does.

    The window holds the last ``window_size`` rows since the last alarm. Once it is full, its latest ``stat_size`` rows
    are compared with as many drawn without replacement from those before them: alarm where the greatest distance of the
    two empirical distributions is above 0.1 and has a probability of at most α. An alarm starts an empty window; the
    change is dated to the latest ``stat_size`` rows. The statistic is the distance, the threshold the greatest distance
    that is no alarm. It has no warning level.

    Which rows are drawn is River's choice to the last: Python's ``random.Random(seed).sample``, whose generator (the
    Mersenne Twister) starts from ``seed`` again after each alarm. Its 625 integers are part of the stream's state, two
    words to an int64, so that the same rows always lead to the same alarms, restored streams included. Two streams with
    one seed draw the same places.

    Attributes:
        alpha: α, probability of so great a distance by chance, in (0, 1). Each row is a test, so it should be small.
        window_size: Rows in the window, at most 10,000 and at least twice ``stat_size``.
        stat_size: Rows that stand for the present.
        seed: Where the draws start, 0 or more.
        signal: ``nll`` (negative log-likelihood of a row) or ``error`` (its squared or 0/1 error).

    Reference:
        Raab, C., Heusinger, M. and Schleif, F.-M. (2020). Reactive soft prototype computing for concept drift streams.
        Neurocomputing 416, 340-351.
    """

    detects: ClassVar[bool] = True
    compares_challenger: ClassVar[bool] = False
    alpha: float = 0.005
    window_size: int = 100
    stat_size: int = 30
    seed: int = 0
    signal: str = "nll"

    def __post_init__(self) -> None:
        require(0.0 < self.alpha < 1.0, "alpha", "lie between 0 and 1, both excluded", self.alpha)
        require(self.stat_size >= 1, "stat_size", "be 1 or more", self.stat_size)
        size = self.window_size
        require(2 * self.stat_size <= size, "window_size", f"be {2 * self.stat_size} (twice stat_size) or more", size)
        require(size <= _WINDOW_MAX, "window_size", f"be at most {_WINDOW_MAX}", size)
        possible = _least_alarm(self.alpha, self.stat_size) <= self.stat_size
        require(possible, "alpha", f"be reached by some distance of {self.stat_size} rows", self.alpha)
        require(self.seed >= 0, "seed", "be 0 or more", self.seed)
        require(self.signal in SIGNALS, "signal", f"be one of {', '.join(SIGNALS)}", self.signal)

    @property
    def threshold(self) -> float:
        """The greatest distance between the distributions that raises no alarm."""
        return (_least_alarm(self.alpha, self.stat_size) - 1) / self.stat_size

    def init(self, streams: int) -> DetectorState:
        """State before any row: ``rows`` since the last alarm, the ring of the latest, the generator at its seed."""
        generator = _packed(random.Random(self.seed))  # noqa: S311  # a sample, not a secret
        return {
            "rows": np.zeros(streams, dtype=np.int64),
            "window": np.zeros((streams, self.window_size)),
            "generator": np.tile(generator, (streams, 1)),
            "statistic": np.zeros(streams),
        }

    def update(self, state: DetectorState, signals: Signals) -> tuple[DetectorState, Verdict]:
        """Take in the rows one after the other; see ``by_row``."""
        return by_row(self._row, state, self.init(1), watched(signals, self.signal), signals.mask, self.threshold)

    def _row(self, state: DetectorState, x: FloatArray, seen: BoolArray) -> Row:
        """One row of each stream; a draw and a test where the window is full."""
        new = {name: array.copy() for name, array in state.items()}
        some = np.flatnonzero(seen)
        new["window"][some, new["rows"][some] % self.window_size] = x[some]
        new["rows"][some] += 1
        earlier = self.window_size - self.stat_size
        for stream in np.flatnonzero(seen & (new["rows"] >= self.window_size)):
            generator = _unpacked(new["generator"][stream])
            drawn = generator.sample(range(earlier), self.stat_size)
            new["generator"][stream] = _packed(generator)
            window = np.roll(new["window"][stream], -int(new["rows"][stream] % self.window_size))  # oldest first
            new["statistic"][stream] = _steps_apart(window[drawn], window[earlier:]) / self.stat_size
        drift = new["statistic"] > self.threshold
        return Row(new, drift, drift, new["statistic"], np.where(drift, self.stat_size, np.int64(-1)))


def _steps_apart(first: FloatArray, second: FloatArray) -> int:
    """Greatest distance of two empirical distributions of as many values, in steps of one value."""
    values = np.concatenate([first, second])
    counts = [np.searchsorted(np.sort(sample), values, side="right") for sample in (first, second)]
    return int(np.abs(counts[0] - counts[1]).max())


@lru_cache(maxsize=64)
def _least_alarm(alpha: float, rows: int) -> int:
    """Steps from which on a distance is an alarm; ``rows`` + 1 if none is.

    Two samples of n rows are h or more steps apart with probability 2·Σ_k (−1)^(k−1)·C(2n, n − k·h)/C(2n, n), which
    falls with h: bisection, in exact numbers.
    """
    ways, most = math.comb(2 * rows, rows), Fraction(alpha)
    low, high = 1, rows + 1
    while low < high:
        steps = (low + high) // 2
        outside = sum((-1) ** (k - 1) * math.comb(2 * rows, rows - k * steps) for k in range(1, rows // steps + 1))
        low, high = (low, steps) if 2 * outside <= most * ways else (steps + 1, high)
    while low / rows <= _LEAST_DISTANCE:
        low += 1
    return low


def _packed(generator: random.Random) -> IntArray:
    """(313,) a generator's state: two words to an integer, and the place."""
    *words, place = generator.getstate()[1]
    packed: npt.NDArray[np.int64] = np.array(words, dtype="<u4").view("<i8").astype(np.int64)
    return np.append(packed, np.int64(place))


def _unpacked(state: IntArray) -> random.Random:
    """The generator of a state."""
    generator = random.Random()  # noqa: S311  # a sample, not a secret
    words = state[:-1].astype("<i8").view("<u4").tolist()
    generator.setstate((3, (*words, int(state[-1])), None))
    return generator
