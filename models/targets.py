"""Labels to the learners' scale and back: Yeo-Johnson and standardising for numbers, indices for classes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.errors import InputError
from models.types import FloatArray, Label, ModelSpec, Target


def encode_targets(spec: ModelSpec, targets: Sequence[Any]) -> FloatArray:
    """Check labels as a client sends them.

    Returns:
        (rows, O) label values for regression, (rows, 1) class indices for classification.

    Raises:
        InputError: With the row and the reason.
    """
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
    moved = yeo_johnson(torch.from_numpy(labels), target.power).numpy()
    scaled = (moved - np.array(target.mean)) / np.array(target.std)
    return np.asarray(np.clip(scaled, -1e6, 1e6), dtype=np.float64)


def from_scale(target: Target, scaled: Tensor) -> Tensor:
    """The inverse of ``to_scale`` for a tensor (…, O).

    What lies further outside the training labels than their whole range (in the transformed scale) is cut: a linear
    head extrapolates without bound, and a power transform's inverse can explode.
    """
    mean = torch.tensor(target.mean, dtype=scaled.dtype)
    std = torch.tensor(target.std, dtype=scaled.dtype)
    moved = scaled * std + mean
    if target.low:
        low = yeo_johnson(torch.tensor(target.low, dtype=scaled.dtype), target.power)
        high = yeo_johnson(torch.tensor(target.high, dtype=scaled.dtype), target.power)
        reach = high - low
        moved = moved.clamp(low - reach, high + reach)
    return yeo_johnson_inverse(moved, target.power)


def yeo_johnson(y: Tensor, power: float) -> Tensor:
    """Yeo-Johnson transform; ``power`` 1 is the identity, 0 is log(1+y) for y ≥ 0.

    Reference:
        Yeo, Johnson: A new family of power transformations, Biometrika 2000.
    """
    if power == 1.0:
        return y
    up, down = y.clamp_min(0.0), (-y).clamp_min(0.0)
    positive = up.log1p() if power == 0.0 else ((up + 1) ** power - 1) / power
    other = 2.0 - power
    negative = down.log1p() if other == 0.0 else ((down + 1) ** other - 1) / other
    return torch.where(y >= 0, positive, -negative)


def yeo_johnson_inverse(t: Tensor, power: float) -> Tensor:
    """Inverse of ``yeo_johnson``; beyond the transform's range the value at its edge."""
    if power == 1.0:
        return t
    up, down = t.clamp_min(0.0), (-t).clamp_min(0.0)
    positive = up.expm1() if power == 0.0 else (up * power + 1).clamp_min(1e-6) ** (1 / power) - 1
    other = 2.0 - power
    negative = down.expm1() if other == 0.0 else (down * other + 1).clamp_min(1e-6) ** (1 / other) - 1
    return torch.where(t >= 0, positive, -negative)


def log_slope(target: Target, labels: Tensor) -> Tensor:
    """log |d scaled / d label| (…, O): what turns a density in the learners' scale into one in label units."""
    signed = torch.where(labels >= 0, target.power - 1.0, 1.0 - target.power)
    return signed * labels.abs().log1p() - torch.tensor(target.std, dtype=labels.dtype).log()


def labels_of(target: Target, index: Sequence[int]) -> list[Label]:
    """Class labels by position."""
    return [target.classes[position] for position in index]
