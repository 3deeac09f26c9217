"""Labels to the learners' scale and back: Yeo-Johnson and standardising for numbers, indices for classes."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from models.errors import InputError
from models.types import FloatArray, ModelSpec, Target
from models.vocabulary import Names, assign

NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
NODE_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
"""Gauss-Hermite quadrature for a standard normal distribution."""


def encode_targets(
    spec: ModelSpec, targets: Sequence[Any], names: Names = (), rows: Sequence[int] | None = None
) -> FloatArray:
    """Check labels as a client sends them.

    Args:
        spec: The model.
        targets: One label a row.
        names: The stream's labels so far, where classes are open.
        rows: Rows that are asked for; all by default. Others are checked.

    Returns:
        (rows, O) label values for regression, (rows, 1) class indices for classification.

    Raises:
        InputError: With the row and the reason.
    """
    if spec.target.ways:
        return assign(names, targets, spec.target.ways, rows)
    encoded = _encoded(spec, targets)
    return encoded if rows is None else encoded[list(rows)]


def _encoded(spec: ModelSpec, targets: Sequence[Any]) -> FloatArray:
    if spec.task == "classification":
        index = {(type(label), label): position for position, label in enumerate(spec.target.classes)}
        encoded = np.empty((len(targets), 1))
        for row, label in enumerate(targets):
            position = index.get((type(label), label)) if isinstance(label, str | int | bool) else None
            if position is None:
                known = ", ".join(repr(label) for label in spec.target.classes)
                raise InputError(("targets", row), f"unknown class; the model's classes are {known}")
            encoded[row, 0] = position
        return encoded
    outputs = len(spec.target.mean)
    encoded = np.empty((len(targets), outputs))
    for row, label in enumerate(targets):
        values = label if isinstance(label, list | tuple) else [label]
        if len(values) != outputs:
            raise InputError(("targets", row), f"expected {outputs} number(s), got {len(values)}")
        for column, value in enumerate(values):
            encoded[row, column] = _number(row, value)
    return encoded


def _number(row: int, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(("targets", row), f"expected a number, got a {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(("targets", row), "not a finite number")
    return number


def to_scale(target: Target, labels: FloatArray) -> FloatArray:
    """Label values (…, O) to the standardised scale that learners work in."""
    scaled = (yeo_johnson(labels, target.power) - np.array(target.mean)) / np.array(target.std)
    return np.asarray(np.clip(scaled, -1e6, 1e6), dtype=np.float64)


def from_scale(target: Target, scaled: FloatArray) -> FloatArray:
    """The inverse of ``to_scale`` for values (…, O).

    What lies further outside the training labels than their whole range (in the transformed scale) is cut: a linear
    head extrapolates without bound, and a power transform's inverse can explode.
    """
    moved = scaled * np.array(target.std) + np.array(target.mean)
    if target.low:
        low = yeo_johnson(np.array(target.low), target.power)
        high = yeo_johnson(np.array(target.high), target.power)
        moved = np.clip(moved, low - (high - low), high + (high - low))
    return yeo_johnson_inverse(moved, target.power)


def yeo_johnson(y: FloatArray, power: float | FloatArray) -> FloatArray:
    """Yeo-Johnson transform; ``power`` 1 is the identity, 0 is log(1+y) for y ≥ 0.

    Args:
        y: Any shape.
        power: One for all values, or an array that broadcasts against ``y``.

    Reference:
        Yeo, Johnson: A new family of power transformations, Biometrika 2000.
    """
    if np.all(power == 1.0):
        return y
    positive = _power_or_log(np.maximum(y, 0.0), np.asarray(power))
    negative = _power_or_log(np.maximum(-y, 0.0), np.asarray(2.0 - power))
    return np.asarray(np.where(y >= 0, positive, -negative), dtype=np.float64)


def _power_or_log(y: FloatArray, power: FloatArray) -> FloatArray:
    """((1+y)^power - 1) / power, and its limit log(1+y) where the power is 0."""
    flat = power == 0.0
    return np.asarray(np.where(flat, np.log1p(y), ((y + 1) ** power - 1) / np.where(flat, 1.0, power)))


def yeo_johnson_inverse(t: FloatArray, power: float) -> FloatArray:
    """Inverse of ``yeo_johnson``; beyond the transform's range the value at its edge."""
    if power == 1.0:
        return t
    up, down = np.maximum(t, 0.0), np.maximum(-t, 0.0)
    positive = np.expm1(up) if power == 0.0 else np.maximum(up * power + 1, 1e-6) ** (1 / power) - 1
    other = 2.0 - power
    negative = np.expm1(down) if other == 0.0 else np.maximum(down * other + 1, 1e-6) ** (1 / other) - 1
    return np.asarray(np.where(t >= 0, positive, -negative), dtype=np.float64)


def log_slope(target: Target, labels: FloatArray) -> FloatArray:
    """Log |d scaled / d label| (…, O): what turns a density in the learners' scale into one in label units."""
    signed = np.where(labels >= 0, target.power - 1.0, 1.0 - target.power)
    return np.asarray(signed * np.log1p(np.abs(labels)) - np.log(np.array(target.std)), dtype=np.float64)


def label_std(target: Target, mean: FloatArray, std: FloatArray) -> FloatArray:
    """Standard deviation in label units of N(mean, std²) (…, O); through a power transform by quadrature."""
    if target.power == 1.0:
        return np.asarray(std * np.array(target.std), dtype=np.float64)
    points = from_scale(target, mean[..., None, :] + std[..., None, :] * NODES[:, None])  # (…, 9, O)
    weights = NODE_WEIGHTS[:, None]
    centre = (weights * points).sum(-2, keepdims=True)
    return np.asarray(np.sqrt((weights * (points - centre) ** 2).sum(-2)), dtype=np.float64)


def label_interval(target: Target, mean: FloatArray, std: FloatArray, coverage: float) -> tuple[FloatArray, FloatArray]:
    """Ends, in label units, of the central interval of N(mean, std²) (…, O) in the learners' scale."""
    reach = NormalDist().inv_cdf(0.5 + coverage / 2) * std
    return from_scale(target, mean - reach), from_scale(target, mean + reach)
