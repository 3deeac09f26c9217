"""From rows as clients send them to the network's inputs, the same in training and in serving.

Three stages: ``encode_rows`` (Python values → float64 columns, every check of a value is here), ``standardise``
(bundle statistics, in float64, then float32) and ``network_inputs`` (the stream's online standardiser, one-hot
categories, missing values; batched over streams).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from models.errors import InputError
from models.targets import yeo_johnson
from models.types import Feature, FloatArray, ModelSpec, Tensors, Value

INPUT_CLIP = 5.0
"""Standardised inputs beyond this are cut: an outlier may not throw a linear head."""
POWER_CLIP = 1e3
"""Standardised values beyond this are cut before a power is taken."""
LAG_CLIP = 10.0
VAR_FLOOR = 1e-3
"""Least variance of an online-standardised input, in units of the bundle's variance."""


def encode_rows(features: Sequence[Feature], rows: Sequence[Sequence[Value] | Mapping[str, Value]]) -> FloatArray:
    """Check rows and turn them into columns.

    Args:
        features: The model's inputs, in order.
        rows: Each a list of values in that order, or an object by feature name.

    Returns:
        (rows, D) float64; a category is its index in the vocabulary, an unknown one the vocabulary's length, a
        missing value NaN.

    Raises:
        InputError: With the row, the feature and the reason.
    """
    fast = _encode_numeric(features, rows)
    if fast is not None:
        return fast
    names = {feature.name: column for column, feature in enumerate(features)}
    encoded = np.empty((len(rows), len(features)))
    for index, row in enumerate(rows):
        values = _in_order(features, names, index, row)
        for column, (feature, value) in enumerate(zip(features, values, strict=True)):
            encoded[index, column] = _encode_value(feature, index, value)
    return encoded


def _encode_numeric(features: Sequence[Feature], rows: Sequence[object]) -> FloatArray | None:
    """The usual case, all numbers and all there, at NumPy's speed; None where a row needs a closer look."""
    width = len(features)
    if any(feature.kind != "numeric" for feature in features) or not set(map(type, rows)) <= {list}:
        return None
    listed = cast("Sequence[list[float]]", rows)
    if not set(map(len, listed)) <= {width} or not set(map(type, chain.from_iterable(listed))) <= {float, int}:
        return None
    try:
        encoded = np.array(listed, dtype=np.float64).reshape(len(listed), width)
    except OverflowError:
        return None
    return encoded if np.isfinite(encoded).all() else None


def _in_order(
    features: Sequence[Feature], names: Mapping[str, int], index: int, row: Sequence[Value] | Mapping[str, Value]
) -> Sequence[Value]:
    if isinstance(row, Mapping):
        for name in row:
            if name not in names:
                known = ", ".join(names)
                raise InputError(
                    ("inputs", index, str(name)[:64]), f"unknown feature; the model's features are {known}"
                )
        return [row.get(name) for name in names]
    if isinstance(row, str | bytes) or not isinstance(row, Sequence):
        raise InputError(
            ("inputs", index), "a row is a list of values in the model's feature order, or an object by name"
        )
    if len(row) != len(features):
        raise InputError(("inputs", index), f"the row has {len(row)} values, the model takes {len(features)}")
    return row


def _encode_value(feature: Feature, index: int, value: Value) -> float:
    loc = ("inputs", index, feature.name)
    if value is None:
        if feature.missing:
            return math.nan
        raise InputError(loc, "missing; this feature had no missing values in training, send a value")
    if feature.kind == "categorical":
        if not isinstance(value, str | bool | int):
            raise InputError(loc, f"a category is a string, got a {type(value).__name__}")
        text = str(value)
        return float(feature.categories.index(text) if text in feature.categories else len(feature.categories))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(loc, f"expected a number, got a {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(loc, "not a finite number; send null for a missing value")
    return number


class Scales(NamedTuple):
    """The bundle's statistics of D features as columns (D,): categories have mean 0, deviation 1 and power 1."""

    mean: FloatArray
    std: FloatArray
    power: FloatArray
    power_mean: FloatArray
    power_std: FloatArray

    @classmethod
    def of(cls, features: Sequence[Feature]) -> "Scales":
        """Collect them from the features, whose defaults are those of categories."""
        rows = [(one.mean, one.std, one.power, one.power_mean, one.power_std) for one in features]
        return cls(*np.array(rows).reshape(len(rows), 5).T)


def standardise(scales: Scales, encoded: FloatArray) -> FloatArray:
    """(rows, D) raw columns to bundle-standardised ones, skewed ones straightened; categories and NaN pass through."""
    scaled = np.asarray(np.clip((encoded - scales.mean) / scales.std, -1e6, 1e6), dtype=np.float64)
    skewed = np.flatnonzero(scales.power != 1.0)
    if len(skewed):
        cut = np.clip(scaled[:, skewed], -POWER_CLIP, POWER_CLIP)
        moved = yeo_johnson(cut, scales.power[skewed])
        scaled[:, skewed] = (moved - scales.power_mean[skewed]) / scales.power_std[skewed]
    return scaled


def lag_width(spec: ModelSpec) -> int:
    """V: columns that one known label takes as an input: O outputs, one ±1 for two classes, C one-hot for more."""
    if spec.task == "regression":
        return len(spec.target.mean)
    return 1 if spec.outputs == 2 else spec.outputs  # noqa: PLR2004 - two classes are one bit


def lag_columns(spec: ModelSpec) -> int:
    """L: number of lag columns that follow the features in a row."""
    return lag_width(spec) * (len(spec.lags.offsets) + len(spec.lags.rates))


def input_width(spec: ModelSpec) -> int:
    """F: width of ``network_inputs``."""
    width = 0
    for feature in spec.features:
        width += 1 if feature.kind == "numeric" else len(feature.categories)
        width += 1 if feature.kind == "numeric" and feature.missing else 0
    known = 1 if lag_columns(spec) else 0
    return width + lag_columns(spec) + known + start_columns(spec)


def start_columns(spec: ModelSpec) -> int:
    """K: number of network inputs, the last ones, that are the frozen start's answer."""
    return spec.outputs if spec.start else 0


def init_standardiser(spec: ModelSpec, streams: int) -> Tensors:
    """Online mean and variance of each feature, in units of the bundle's statistics."""
    width = len(spec.features)
    return {"x_mean": torch.zeros(streams, width), "x_var": torch.ones(streams, width)}


def network_inputs(spec: ModelSpec, x_mean: Tensor, x_var: Tensor, z: Tensor, answers: Tensor | None = None) -> Tensor:
    """Network inputs of bundle-standardised rows.

    Args:
        spec: The model.
        x_mean: (S, D) online means.
        x_var: (S, D) online variances.
        z: (S, B, D + L) bundle-standardised features, then lag columns; NaN is missing.
        answers: (S, B, K) what the frozen start says of the rows, where the model has one.

    Returns:
        (S, B, F), finite.
    """
    features = z[..., : len(spec.features)]
    numeric = [column for column, feature in enumerate(spec.features) if feature.kind == "numeric"]
    scaled = (features - x_mean[:, None]) * x_var[:, None].clamp_min(VAR_FLOOR).rsqrt()
    scaled = scaled.clamp(-INPUT_CLIP, INPUT_CLIP)
    parts = [scaled if len(numeric) == len(spec.features) else scaled[..., numeric]]
    optional = [column for column in numeric if spec.features[column].missing]
    if optional:
        parts.append(features[..., optional].isnan().to(z.dtype))
    for column, feature in enumerate(spec.features):
        if feature.kind == "categorical":
            codes = torch.arange(len(feature.categories), dtype=z.dtype, device=z.device)
            parts.append((features[..., column, None] == codes).to(z.dtype))
    if lag_columns(spec):
        lags = z[..., len(spec.features) :]
        parts += [lags.clamp(-LAG_CLIP, LAG_CLIP), lags[..., :1].isnan().to(z.dtype)]
    if answers is not None:
        parts.append(answers.to(z.dtype))
    return torch.cat(parts, dim=-1).nan_to_num(nan=0.0)


def update_standardiser(
    spec: ModelSpec, x_mean: Tensor, x_var: Tensor, z: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Move the online mean and variance by the rows of a batch, each row with rate 1/``standardiser_rows``.

    A batch of b rows counts as much as b batches of one; missing values leave a column as it is.
    """
    if spec.standardiser_rows <= 0:
        return x_mean, x_var
    rate = 1.0 / spec.standardiser_rows
    values = z[..., : len(spec.features)]
    there = mask[..., None] & ~values.isnan()  # (S, B, D)
    later = there.flip(1).cumsum(1).flip(1) - there.to(torch.int64)
    weight = rate * (1 - rate) ** later * there
    total = weight.sum(1)  # (S, D) = 1 - (1-rate)^rows
    values = values.nan_to_num(nan=0.0)
    safe = total.clamp_min(1e-12)
    batch_mean = (weight * values).sum(1) / safe
    batch_var = (weight * (values - batch_mean[:, None]).square()).sum(1) / safe
    step = batch_mean - x_mean
    mean = x_mean + total * step
    var = (1 - total) * (x_var + total * step.square()) + total * batch_var
    seen = total > 0
    return torch.where(seen, mean, x_mean), torch.where(seen, var, x_var)
