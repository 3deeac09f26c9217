"""Which figures moved from one run to another beyond what their turns differ by themselves."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from loadtest.bench.figures import FIGURES, Better

ERROR = 0.05
"""Chance that two runs of the same program are told to differ in any figure at all."""
LEAST_CHANGE = 0.10
"""A change smaller than this share is not told of, however well the turns of each run agree: they have the state of the
machine in common, which alone moved a figure by 7% between two runs of the same program."""
TURNS_MIN = 3
"""A figure of fewer turns, in either run, is not compared."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)

Verdict = Literal["better", "worse", "same", "not compared"]


class Change(NamedTuple):
    """One figure in two runs.

    Attributes:
        key: Its name.
        before: Geometric mean of the last run's turns; NaN without any.
        now: That of this run's.
        p: Chance of so great a difference between runs of the same program; NaN where it is not compared.
        verdict: What is said of it.
    """

    key: str
    before: float
    now: float
    p: float
    verdict: Verdict

    @property
    def share(self) -> float:
        """By how much it rose, as a share of what it was."""
        return self.now / self.before - 1


def compare(before: Mapping[str, Sequence[float]], now: Mapping[str, Sequence[float]]) -> list[Change]:
    """Every figure of this run, by Welch's test on the logarithms of its turns with Holm's correction for all.

    Args:
        before: Positive values by figure, one a turn; those of the last run.
        now: Those of this run.

    Returns:
        A figure moved if it did so by ``LEAST_CHANGE`` at least and with so small a p that no more than a share
        ``ERROR`` of comparisons between equal programs would say so of any.
    """
    keys = [figure.key for figure in FIGURES if figure.key in now]
    pairs = {key: (_finite(before.get(key, ())), _finite(now[key])) for key in keys}
    p = {key: welch_p(*pair) for key, pair in pairs.items() if min(map(len, pair)) >= TURNS_MIN}
    certain = holm(p, ERROR)
    better = {figure.key: figure.better for figure in FIGURES}
    found = []
    for key, (old, new) in pairs.items():
        change = Change(key, _mean(old), _mean(new), p.get(key, math.nan), "not compared")
        if key in p:
            moved = key in certain and abs(math.log(change.now / change.before)) >= math.log1p(LEAST_CHANGE)
            change = change._replace(verdict=_verdict(better[key], change) if moved else "same")
        found.append(change)
    return found


def _verdict(better: Better, change: Change) -> Verdict:
    return "better" if (change.share < 0) == (better == "less") else "worse"


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value) and value > 0]


def _mean(values: Sequence[float]) -> float:
    return statistics.geometric_mean(values) if values else math.nan


def welch_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of Welch's t-test on the logarithms: the two may spread differently.

    Args:
        first: At least two positive values.
        second: At least two positive values.

    Reference:
        Welch, The generalization of "Student's" problem when several different population variances are involved,
        Biometrika 34 (1947).
    """
    logs = [np.log(values) for values in (first, second)]
    gap = float(logs[1].mean() - logs[0].mean())
    errors = [float(log.var(ddof=1)) / log.size for log in logs]
    error = sum(errors)
    if error <= 1e-24:  # turns that do not differ at all
        return float(abs(gap) <= 1e-12)
    freedom = error**2 / sum(each**2 / (log.size - 1) for each, log in zip(errors, logs, strict=True))
    return student_p(gap / math.sqrt(error), freedom)


def student_p(t: float, freedom: float) -> float:
    """Chance that Student's t is farther from 0 than ``t``.

    With t = √ν·tan θ its density becomes cos^(ν-1) θ, and the chance ∫ from θ to π/2 over that from 0, by
    Gauss and Legendre.

    Args:
        t: Any number.
        freedom: ν ≥ 1.
    """

    def area(low: float) -> float:
        half = (math.pi / 2 - low) / 2
        return half * float(_WEIGHTS @ np.cos(low + half * (_NODES + 1)) ** (freedom - 1))

    return area(math.atan(abs(t) / math.sqrt(freedom))) / area(0.0)


def holm(p: Mapping[str, float], error: float) -> set[str]:
    """Those of several tests that may be rejected, with a chance of at most ``error`` of any wrongly.

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    rejected: set[str] = set()
    for key in sorted(p, key=p.__getitem__):
        if p[key] > error / (len(p) - len(rejected)):
            break
        rejected.add(key)
    return rejected


def summary(changes: Sequence[Change]) -> str:
    """How many figures moved, and which."""
    compared = [change for change in changes if change.verdict != "not compared"]
    moved = [change for change in compared if change.verdict != "same"]
    head = f"{len(moved)} of {len(compared)} figures moved beyond noise"
    left = len(changes) - len(compared)
    tail = f"; {left} not compared, with fewer than {TURNS_MIN} turns that count" if left else ""
    said = ", ".join(f"{change.key} {change.share:+.0%} ({change.verdict})" for change in moved)
    return head + (f": {said}" if moved else "") + tail
