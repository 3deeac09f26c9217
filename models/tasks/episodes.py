"""A table as a source of tasks: stretches of its streams, seen as the server will see them.

Rows become network inputs by the same code as in serving: bundle statistics, lag columns at the stated label delay.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.features import (
    POWER_CLIP,
    Scales,
    encode_rows,
    init_standardiser,
    network_inputs,
    standardise,
    start_columns,
)
from models.targets import to_scale, yeo_johnson
from models.tasks.labels import shuffle_slots, table_targets
from models.tasks.lags import Known, cold_lags, label_vectors, lag_values
from models.tasks.table import IntArray, Table
from models.types import Batch, Episode, Feature, FloatArray, ModelSpec, Target

LENGTHS = (16, 64, 128, 256)
"""Rows of an episode, drawn evenly: short ones teach a cold start, long ones a warm stream."""
EPISODE_ROWS = 2048
"""Rows of a meta-batch, all its episodes together."""
INPUT_NOISE = 0.1
"""Standard deviation of the noise on inputs in training, in standardised units."""
DISTINCT_MIN = 10
"""A feature with fewer distinct values in training is not straightened."""
COLD_SHARE = 0.5
"""Share of episodes that are a stream's first rows: labels from before are not known."""
LAG_DROPOUT = 0.1
"""Share of episodes that see no known labels, as the frozen start does."""


class Prepared(NamedTuple):
    """A table's rows as tensors.

    Attributes:
        x: (rows, F) network inputs under the bundle's statistics.
        y: (rows, O) targets in the learners' scale, or (rows,) class indices.
        streams: Indices of each stream's rows, in time order.
        known: What the lag columns are made of: L of them after the features, and one that says that none is known.
        start_columns: K, the number of columns at the end of ``x`` that are a frozen start's answer.
        ways: Where each stream names its classes itself, how many at most; else 0.
    """

    x: Tensor
    y: Tensor
    streams: list[IntArray]
    known: Known
    start_columns: int = 0
    ways: int = 0


def fit_features(table: Table) -> tuple[Feature, ...]:
    """Statistics and vocabularies of a table's feature columns."""
    features = []
    for name, column in table.columns.items():
        if isinstance(column, list):
            known = sorted({value for value in column if value is not None})
            missing = any(value is None for value in column)
            features.append(Feature(name, "categorical", categories=tuple(known), missing=missing))
            continue
        there = column[~np.isnan(column)]
        mean, std = (float(there.mean()), float(there.std())) if len(there) else (0.0, 1.0)
        small = 1e-9 * max(1.0, abs(mean))
        feature = Feature(name, mean=mean, std=std if std > small else 1.0, missing=len(there) < len(column))
        features.append(_straightened(feature, there))
    return tuple(features)


def _straightened(feature: Feature, values: FloatArray) -> Feature:
    """The feature with the power that suits its values; few distinct ones stay as they are."""
    scaled = np.clip((values - feature.mean) / feature.std, -POWER_CLIP, POWER_CLIP)
    if len(np.unique(scaled)) < DISTINCT_MIN:
        return feature
    power = likely_power(scaled, least=0.0)
    moved = yeo_johnson(scaled, power)
    return replace(feature, power=power, power_mean=float(moved.mean()), power_std=float(moved.std()) or 1.0)


def fit_target(table: Table, power: float, ways: int = 0) -> Target:
    """Classes, or how many each stream names itself, or the scale of a numeric target after a Yeo-Johnson transform."""
    if table.task == "classification":
        return Target(table.target_name, ways=ways) if ways else Target(table.target_name, classes=table.classes)
    labels = np.asarray(table.target, dtype=np.float64)
    moved = yeo_johnson(labels, power)
    std = float(moved.std())
    return Target(
        table.target_name,
        mean=(float(moved.mean()),),
        std=(std if std > 0 else 1.0,),
        power=power,
        low=(float(labels.min()),),
        high=(float(labels.max()),),
    )


def likely_power(labels: FloatArray, least: float = -1.0) -> float:
    """Yeo-Johnson exponent of greatest likelihood, on a grid of tenths from ``least`` to 2."""
    signed = (np.sign(labels) * np.log1p(np.abs(labels))).sum()
    grid = [round(least + 0.1 * k, 1) for k in range(round(10 * (2 - least)) + 1)]
    score = [
        -0.5 * len(labels) * math.log(yeo_johnson(labels, power).var() + 1e-12) + (power - 1) * signed for power in grid
    ]
    return grid[int(np.argmax(score))]


def season_rows(table: Table, longest: int = 200) -> int | None:
    """Lag, in rows of a stream, at which the target's differences repeat most; None where nothing clearly does.

    A peak of the autocorrelation (averaged over streams) above 0.2 that also beats the way there.
    """
    if table.task == "classification":
        return None
    labels = np.asarray(table.target, dtype=np.float64)
    total, count = np.zeros(longest + 1), 0
    for code in range(len(table.stream_names)):
        series = np.diff(labels[table.streams == code])
        if len(series) < 4 * longest:
            continue
        centred = series - series.mean()
        spectrum = np.abs(np.fft.rfft(centred, 2 * len(centred))) ** 2
        correlation = np.fft.irfft(spectrum)[: longest + 1]
        total, count = total + correlation / max(correlation[0], 1e-12), count + 1
    if not count:
        return None
    correlation = total / count
    peak = int(np.argmax(correlation[3:]) + 3)
    return peak if correlation[peak] > 0.2 else None  # noqa: PLR2004 - stated above


def own_delay(table: Table, delay: int) -> int:
    """Median number of a stream's own rows among the last ``delay`` rows of the table: labels not known yet."""
    if not delay:
        return 0
    waits = []
    for code in range(len(table.stream_names)):
        places = np.flatnonzero(table.streams == code)
        waits.append(np.arange(len(places)) - np.searchsorted(places, places - delay, side="left"))
    return int(np.median(np.concatenate(waits)))


def prepare(spec: ModelSpec, table: Table, delay: int, answers: Tensor | None = None) -> Prepared:
    """All rows of a table as the network will see them; ``answers`` (rows, K) are the frozen start's."""
    encoded = table_targets(spec, table)
    y = to_scale(spec.target, encoded) if spec.task == "regression" else encoded
    z = standardise(Scales.of(spec.features), encode_rows(spec.features, table.values()))
    labels = label_vectors(spec, y)
    lags = lag_values(spec, table, labels, delay)
    fresh = init_standardiser(spec, 1)
    rows = torch.from_numpy(np.concatenate([z, lags], axis=1)).to(torch.float32)
    told = None if answers is None else answers[None]
    x = network_inputs(spec, fresh["x_mean"], fresh["x_var"], rows[None], told)[0]
    target = torch.from_numpy(y)
    return Prepared(
        x,
        target.to(torch.float32) if spec.task == "regression" else target[:, 0].to(torch.int64),
        [np.flatnonzero(table.streams == code) for code in range(len(table.stream_names))],
        Known(spec.lags, torch.from_numpy(labels).to(torch.float32), own_delay(table, delay)),
        start_columns(spec),
        spec.target.ways,
    )


class Stretches(NamedTuple):
    """Draws meta-batches: stretches of consecutive rows of the streams, first part support, rest query.

    Attributes:
        data: The rows.
        streams: Indices of the rows that may be drawn, stream by stream.
        sequential: Whether the learner judges every row given the rows before it; else half is support.
        lengths: Rows of an episode, drawn evenly.
    """

    data: Prepared
    streams: Sequence[IntArray]
    sequential: bool
    lengths: tuple[int, ...] = LENGTHS

    def draw(self, generator: torch.Generator) -> Episode:
        """Draw one meta-batch."""
        longest = max(len(places) for places in self.streams)
        rows = min(int(_draw(len(self.lengths), generator, self.lengths)), longest)
        usable = [places for places in self.streams if len(places) >= rows]
        sizes = torch.tensor([float(len(places)) for places in usable])
        tasks = max(1, EPISODE_ROWS // rows)
        chosen = torch.multinomial(sizes, tasks, replacement=True, generator=generator)
        starts = torch.rand(tasks, generator=generator)
        index = np.stack(
            [
                usable[code][(first := int(start * (len(usable[code]) - rows + 1))) : first + rows]
                for code, start in zip(chosen.tolist(), starts.tolist(), strict=True)
            ]
        )
        x = self.data.x[index]
        own = x.shape[-1] - self.data.start_columns
        noise = INPUT_NOISE * torch.randn(x.shape, generator=generator)
        noise[..., own:] = 0.0
        x = x + noise
        known = self.data.known
        count = known.labels.shape[1] * (len(known.lags.offsets) + len(known.lags.rates))
        first = own - 1 - count
        if count:
            drawn = torch.rand(tasks, generator=generator)
            cold, blind = drawn < COLD_SHARE, drawn > 1 - LAG_DROPOUT
            x[cold, :, first:own] = cold_lags(known, known.labels[index[cold.numpy()]])
            x[blind, :, first : own - 1] = 0.0
            x[blind, :, own - 1] = 1.0
        y = self.data.y[index]
        if self.data.ways:
            x, y = shuffle_slots(x, y, slice(first, first + count), self.data.ways, generator)
        return _episode(x, y, 0 if self.sequential else rows // 2)


def held_out(data: Prepared, streams: Sequence[IntArray], *, sequential: bool, rows: int) -> list[Episode]:
    """Consecutive stretches of ``rows`` rows that cover the streams, for meta-validation; shorter streams in full."""
    episodes = []
    for places in streams:
        size = min(rows, len(places))
        if size < 2:  # noqa: PLR2004 - one row to adapt on and one to judge
            continue
        index = np.stack([places[start : start + size] for start in range(0, len(places) - size + 1, size)])
        parts = np.array_split(index, max(1, len(index) // 32))
        episodes += [_episode(data.x[part], data.y[part], 0 if sequential else size // 2) for part in parts]
    return episodes


def _episode(x: Tensor, y: Tensor, support: int) -> Episode:
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    return Episode(
        Batch(x[:, :support], y[:, :support], mask[:, :support]),
        Batch(x[:, support:], y[:, support:], mask[:, support:]),
    )


def _draw(count: int, generator: torch.Generator, values: Sequence[int]) -> int:
    return values[int(torch.randint(count, (1,), generator=generator))]
