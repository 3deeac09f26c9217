"""Lag columns of rows that training sees: known labels of the row's own stream, at the stated label delay."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.features import LAG_CLIP, lag_columns, lag_width
from models.tasks.table import Table
from models.types import FloatArray, Lags, ModelSpec


def lag_values(spec: ModelSpec, table: Table, labels: FloatArray, delay: int) -> FloatArray:
    """(rows, L) lag columns of every row: the labels of its own stream that are known after ``delay`` rows.

    Args:
        spec: The model; its lags say which columns.
        table: Rows in time order.
        labels: (rows, V) known-label vectors in the learners' scale.
        delay: Rows of the table after which a label is known.
    """
    columns = np.full((table.rows, lag_columns(spec)), np.nan)
    width = labels.shape[1]
    for code in range(len(table.stream_names)):
        places = np.flatnonzero(table.streams == code)
        known = np.searchsorted(places, places - delay, side="left")  # labels known before each row
        own = labels[places]
        for position, offset in enumerate(spec.lags.offsets):
            there = known >= offset
            block = slice(position * width, (position + 1) * width)
            columns[places[there], block] = own[known[there] - offset]
        for position, rate in enumerate(spec.lags.rates, start=len(spec.lags.offsets)):
            means = _weighted_means(own, rate)
            there = known > 0
            block = slice(position * width, (position + 1) * width)
            columns[places[there], block] = means[known[there] - 1]
    return columns


def _weighted_means(own: FloatArray, rate: float) -> FloatArray:
    """Exponentially weighted mean after each label, plain mean at first; as ``adaptation`` keeps it."""
    means = np.empty_like(own)
    mean = np.zeros(own.shape[1])
    for row, label in enumerate(own):
        gain = max(rate, 1.0 / (row + 1))
        mean = (1 - gain) * mean + gain * label
        means[row] = mean
    return means


def label_vectors(spec: ModelSpec, y: FloatArray) -> FloatArray:
    """(rows, V): targets in the learners' scale; ±1 for two classes, one-hot for more."""
    if spec.task == "regression":
        return y
    index = y[:, 0].astype(np.int64)
    width = lag_width(spec)
    return np.asarray((2.0 * index - 1.0)[:, None] if width == 1 else np.eye(width)[index], dtype=np.float64)


class Known(NamedTuple):
    """What the lag columns of a table's rows are made of.

    Attributes:
        lags: Which columns.
        labels: (rows, V) known-label vectors in the learners' scale.
        delay: Rows of a stream after which a label is known.
    """

    lags: Lags
    labels: Tensor
    delay: int


def cold_lags(known: Known, labels: Tensor) -> Tensor:
    """Lag columns of streams that begin here: no label from before is known.

    Args:
        known: Which columns, and when a label is known.
        labels: (T, n, V) label vectors of T stretches of n rows.

    Returns:
        (T, n, L + 1), as the network sees them: 0 where unknown; the last column is 1 where no label is known.
    """
    rows = labels.shape[1]
    count = (torch.arange(rows) - known.delay).clamp_min(0)  # labels known to each row
    columns = []
    for offset in known.lags.offsets:
        there = (count >= offset).to(labels.dtype)[:, None]
        columns.append(labels[:, (count - offset).clamp_min(0)] * there)
    columns += [_mean_weights(rows, rate)[count].to(labels.dtype) @ labels for rate in known.lags.rates]
    unknown = (count == 0).to(labels.dtype)[None, :, None].expand(len(labels), -1, 1)
    return torch.cat([*(column.clamp(-LAG_CLIP, LAG_CLIP) for column in columns), unknown], dim=-1)


def _mean_weights(rows: int, rate: float) -> Tensor:
    """(rows, rows): row n weighs the first n labels as the mean after n of them does."""
    weights = torch.zeros(rows, rows)
    for n in range(1, rows):
        gain = max(rate, 1.0 / n)
        weights[n] = (1 - gain) * weights[n - 1]
        weights[n, n - 1] = gain
    return weights
