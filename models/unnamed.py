"""Probabilities over slots of which the first have labels: what is answered, and what it costs.

A label that has no slot yet takes the next free one: the free slots together stand for "a label not seen yet". Nothing
of that can be said in an answer, which is the named slots' share, scaled to sum to one. A loss counts both: −log of
what a named slot had, and for a label seen for the first time −log of what the free ones had together.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.types import FloatArray

IntArray = npt.NDArray[np.int64]
PROBABILITY_FLOOR = 1e-12


class Shares(NamedTuple):
    """Probabilities (rows, k) of the labels known, among themselves; (rows,) of a label not seen yet."""

    named: FloatArray
    unnamed: FloatArray


def shares(log_p: FloatArray, named: int) -> Shares:
    """Answers of rows (rows, N) of log probabilities, the first ``named`` slots having labels."""
    if not named:
        return Shares(np.zeros((len(log_p), 0)), np.ones(len(log_p)))
    raised = np.exp(log_p[:, :named] - log_p[:, :named].max(1, keepdims=True))
    unnamed = np.exp(log_p[:, named:]).sum(1)
    return Shares(np.asarray(raised / raised.sum(1, keepdims=True), dtype=np.float64), np.asarray(unnamed))


def likeliest(log_p: FloatArray, named: IntArray) -> IntArray:
    """(…, B) slots that are answered for log probabilities (…, B, N) with ``named`` (…, B) of them; -1 for none."""
    there = np.arange(log_p.shape[-1]) < named[..., None]
    best = np.where(there, log_p, -np.inf).argmax(-1)
    return np.asarray(np.where(named > 0, best, -1), dtype=np.int64)


def certainty(log_p: FloatArray, named: IntArray) -> FloatArray:
    """(…, B) probability that is answered with the likeliest slot; 0 where no slot has a label."""
    there = np.arange(log_p.shape[-1]) < named[..., None]
    likely = np.where(there, np.exp(log_p), 0.0)
    return np.asarray(likely.max(-1) / np.maximum(likely.sum(-1), PROBABILITY_FLOOR), dtype=np.float64)


def losses(log_p: FloatArray, slots: IntArray, named: IntArray) -> FloatArray:
    """(…, B) nats of the labels at ``slots`` (…, B), with ``named`` (…, B) slots that had labels."""
    own = np.take_along_axis(log_p, slots[..., None], -1)[..., 0]
    free = np.arange(log_p.shape[-1]) >= named[..., None]
    first_seen = np.where(free, np.exp(log_p), 0.0).sum(-1)
    return np.asarray(np.where(slots < named, -own, -np.log(np.maximum(first_seen, PROBABILITY_FLOOR))))
