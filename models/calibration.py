"""Whether stated certainty holds: confidence against how often it is right, intervals against what falls inside."""

import numpy as np

from models.types import FloatArray

BINS = 15
LEVEL = 0.9
"""Coverage of the intervals that runs over files state."""


def expected_calibration_error(confidence: FloatArray, correct: FloatArray, bins: int = BINS) -> float:
    """Mean gap between stated confidence and accuracy, over bins of equal mass.

    Σ_b (n_b / n) · |accuracy_b − confidence_b|, where bins hold equally many rows in the order of their confidence (the
    first ones one more where that does not divide). Rows of one confidence count alike, whatever their order. A
    perfectly calibrated model of n rows still has about √(bins / n) / 2 of it.

    Args:
        confidence: (rows,) probability that was given to the answered class.
        correct: (rows,) 1 where the answer was right, else 0.
        bins: Number of bins; with fewer rows, one row a bin.

    Returns:
        A number from 0 to 1; NaN without rows.

    Reference:
        Nguyen, O'Connor: Posterior calibration and exploratory analysis for natural language processing models, 2015;
        Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks, 2017.

    Example:
        >>> round(expected_calibration_error(np.full(10, 0.8), np.array([1.0] * 6 + [0.0] * 4)), 6)
        0.2
    """
    if not len(confidence):
        return float("nan")
    levels, level_of, size = np.unique(confidence, return_inverse=True, return_counts=True)
    excess = np.bincount(level_of, correct) / size - levels
    gaps = np.array_split(excess[np.sort(level_of)], bins)
    return float(sum(abs(gap.sum()) for gap in gaps) / len(confidence))


def inside(low: FloatArray, high: FloatArray, truth: FloatArray) -> FloatArray:
    """(rows,) 1 where the truth lies in the closed interval, else 0; their mean is the coverage."""
    return np.asarray((low <= truth) & (truth <= high), dtype=np.float64)
