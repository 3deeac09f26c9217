"""A network for tables, fitted offline and handed over as plain tensors: what trees are good at, in one smooth body.

Numbers are scaled by median and quartiles, and embedded piecewise linearly between their quantiles; K members share the
weights of one body and differ in vectors that scale what goes in and comes out of each layer; AdamW decays weights.

References:
    Gorishniy, Rubachev, Babenko (2022). On embeddings for numerical features in tabular deep learning. NeurIPS.
    Gorishniy, Kotelnikov, Babenko (2024). TabM: advancing tabular deep learning with parameter-efficient ensembling.
    Holzmüller, Grinsztajn, Steinwart (2024). Better by default: strong pre-tuned MLPs (RealMLP). NeurIPS.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, dropout

from models.errors import TrainingError
from models.types import FloatArray, TaskKind, Tensors

BINS_MIN, BINS_IN_ALL = 16, 2048
"""Quantile bins of a feature: the fewer, the more features there are."""
WIDTH_MAX, WIDTH_MIN, WIDTH_IN_ALL = 12, 4, 512
"""Numbers that a feature is embedded in."""
SOFT_CLIP = 3.0
"""A robustly scaled value far beyond this is pulled in smoothly."""
QUARTILES_STD = 1.349
"""Distance of a normal's quartiles, in its standard deviations."""
WARM_STEPS = 50
PREDICT_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Tabular:
    """How to fit.

    Attributes:
        task: What is predicted.
        classes: C, all that the model knows (classification).
        bins: Most quantile bins of a feature.
        members: K networks in one body.
        hidden: Width of each layer of the body.
        layers: How many.
        learning_rate: Where the cosine schedule starts.
        weight_decay: Of matrices.
        dropout: Share of a layer's numbers that is left out in training.
        batch_rows: Rows of a step.
        epochs: Passes over the rows, but at least ``steps_min`` and at most ``steps_max`` steps.
        steps_min: Fewest steps.
        steps_max: Most steps.
        delay: Rows after which a label is known; cross-fitting leaves so many out.
        seed: Of the draw of weights, batches and dropout.
    """

    task: TaskKind
    classes: int = 0
    bins: int = 256
    members: int = 8
    hidden: int = 128
    layers: int = 2
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    dropout: float = 0.1
    batch_rows: int = 256
    epochs: int = 60
    steps_min: int = 2_000
    steps_max: int = 6_000
    delay: int = 0
    seed: int = 0


def fit_network(how: Tabular, x: FloatArray, y: FloatArray | npt.NDArray[np.int64], prefix: str) -> Tensors:
    """Fit a network.

    Args:
        how: Settings.
        x: (rows, D) numbers, and codes of categories; NaN is missing.
        y: (rows,) or (rows, O) standardised targets (regression), or (rows,) class indices.
        prefix: Begins the tensors' names.

    Returns:
        Tensors for ``network_scores``, whose K is O (regression) or C. The same settings and rows give the same tensors
        on one machine.

    Raises:
        TrainingError: There are no rows, or the loss is not finite.
    """
    if not len(x):
        raise TrainingError("a tabular network needs rows to fit, got none")
    generator = torch.Generator().manual_seed(how.seed)
    fixed = _scales(x, how.bins)
    if how.task == "classification":
        target, outputs = torch.from_numpy(np.asarray(y).reshape(-1).astype(np.int64)), how.classes
    else:
        numbers = np.asarray(y, dtype=np.float64).reshape(len(x), -1)
        fixed |= {"centre": _float(numbers.mean(0)), "spread": _float(np.maximum(numbers.std(0), 1e-6))}
        target, outputs = (_float(numbers) - fixed["centre"]) / fixed["spread"], numbers.shape[1]
    learned = _drawn(how, fixed, outputs, generator)
    inputs = _encoded(fixed, torch.from_numpy(x.astype(np.float32)))
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        _train(how, learned, inputs, target, generator)
    return {f"{prefix}{name}": tensor.detach() for name, tensor in (fixed | learned).items()}


@torch.no_grad()
def network_scores(tensors: Mapping[str, Tensor], x: Tensor, prefix: str) -> Tensor:
    """Raw scores of rows.

    Args:
        tensors: What ``fit_network`` made; other tensors in the mapping are ignored.
        x: (..., D) rows as in training.
        prefix: Begins the tensors' names.

    Returns:
        (..., K) float32: predicted numbers, the mean of the members', or logs of their mean probabilities.
    """
    own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    rows = x.reshape(-1, x.shape[-1]).to(torch.float32)
    found = []
    for part in rows.split(PREDICT_ROWS):
        out = _body(own, _encoded(own, part), 0.0)  # (K, B, O)
        if "centre" in own:
            found.append(out.mean(0) * own["spread"] + own["centre"])
        else:
            found.append(torch.logsumexp(torch.log_softmax(out, dim=-1), dim=0) - math.log(len(out)))
    scores = torch.cat(found) if found else rows.new_zeros(0, own["out_bias"].shape[-1])
    return scores.view(*x.shape[:-1], -1)


def _scales(x: FloatArray, bins_max: int) -> Tensors:
    """Median and spread of each feature, and its quantiles: lower ends and inverse widths (D, T) of bins."""
    columns = x.shape[1]
    bins = int(np.clip(BINS_IN_ALL // columns, BINS_MIN, bins_max))
    lower, inverse = np.full((columns, bins), np.inf), np.zeros((columns, bins))
    centre, spread = np.zeros(columns), np.ones(columns)
    for column in range(columns):
        values = x[:, column][~np.isnan(x[:, column])].astype(np.float32).astype(np.float64)
        if not len(values):
            continue
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        centre[column] = middle
        spread[column] = (high - low) / QUARTILES_STD or (values.max() - values.min()) / 2 or 1.0
        distinct = np.unique(values)
        edges = distinct if len(distinct) <= bins else np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
        edges = edges[: bins + 1]
        lower[column, : len(edges) - 1] = edges[:-1]
        inverse[column, : len(edges) - 1] = 1 / np.diff(edges)
    missing = np.flatnonzero(np.isnan(x).any(0))
    parts = {"median": centre, "quartiles": spread, "lower": lower, "inverse": inverse}
    return {name: _float(value) for name, value in parts.items()} | {"missing": torch.from_numpy(missing)}


def _encoded(fixed: Tensors, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, D) as numbers (B, D + Q) and as shares of their bins (D, B, T); a missing value is zero in both."""
    scaled = (x - fixed["median"]) / fixed["quartiles"]
    scaled = scaled / (1 + (scaled / SOFT_CLIP).square()).sqrt()
    plain = torch.cat([scaled.nan_to_num(), x[:, fixed["missing"]].isnan().float()], dim=1)
    shares = (x.mT[:, :, None] - fixed["lower"][:, None]) * fixed["inverse"][:, None]
    return plain, shares.nan_to_num(0.0, neginf=0.0).clamp(0, 1)


def _drawn(how: Tabular, fixed: Tensors, outputs: int, generator: torch.Generator) -> Tensors:
    """Weights before training; members begin with random signs at their inputs."""
    columns, bins = fixed["lower"].shape
    width = int(np.clip(WIDTH_IN_ALL // columns, WIDTH_MIN, WIDTH_MAX))

    def uniform(*shape: int, fan: int) -> Tensor:
        return (torch.rand(*shape, generator=generator) * 2 - 1) / math.sqrt(fan)

    learned = {"bin_weight": uniform(columns, bins, width, fan=bins), "bin_bias": uniform(columns, 1, width, fan=bins)}
    widths = [columns * (width + 1) + len(fixed["missing"])] + [how.hidden] * how.layers
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        signs = torch.randint(0, 2, (how.members, 1, fan_in), generator=generator) * 2.0 - 1.0
        learned[f"weight_{layer}"] = uniform(fan_in, fan_out, fan=fan_in)
        learned[f"in_{layer}"] = signs if layer == 0 else torch.ones(how.members, 1, fan_in)
        learned[f"out_{layer}"] = torch.ones(how.members, 1, fan_out)
        learned[f"bias_{layer}"] = uniform(how.members, 1, fan_out, fan=fan_in)
    learned["out_weight"] = uniform(how.members, how.hidden, outputs, fan=how.hidden)
    learned["out_bias"] = uniform(how.members, 1, outputs, fan=how.hidden)
    return learned


def _body(own: Mapping[str, Tensor], inputs: tuple[Tensor, Tensor], share_out: float) -> Tensor:
    """Outputs (K, B, O) of all members."""
    plain, shares = inputs
    embedded = torch.relu(torch.baddbmm(own["bin_bias"], shares, own["bin_weight"]))  # (D, B, E)
    a = torch.cat([embedded.transpose(0, 1).flatten(1), plain], dim=1)
    a = a.expand(len(own["out_bias"]), *a.shape)
    layer = 0
    while f"weight_{layer}" in own:
        a = a * own[f"in_{layer}"]
        a = (a @ own[f"weight_{layer}"]) * own[f"out_{layer}"] + own[f"bias_{layer}"]
        a = dropout(torch.relu(a), share_out) if share_out else torch.relu(a)
        layer += 1
    return torch.baddbmm(own["out_bias"], a, own["out_weight"])


def _train(
    how: Tabular, learned: Tensors, inputs: tuple[Tensor, Tensor], target: Tensor, generator: torch.Generator
) -> None:
    """AdamW on the cross-entropy, or on the absolute error, of all members."""
    plain, shares = inputs
    decayed = [tensor for name, tensor in learned.items() if "weight" in name]
    others = [tensor for name, tensor in learned.items() if "weight" not in name]
    for tensor in learned.values():
        tensor.requires_grad_()
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": how.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=how.learning_rate, betas=(0.9, 0.95), foreach=True)
    steps = min(max(how.steps_min, how.epochs * math.ceil(len(plain) / how.batch_rows)), how.steps_max)
    for step, rows in zip(range(steps), _batches(len(plain), how.batch_rows, generator), strict=False):
        rate = how.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / WARM_STEPS)
        for group in optimiser.param_groups:
            group["lr"] = rate
        out = _body(learned, (plain[rows], shares[:, rows]), how.dropout)
        truth = target[rows].expand(len(out), *target[rows].shape)
        if how.task == "classification":
            loss = cross_entropy(out.flatten(0, 1), truth.flatten())
        else:
            loss = (out - truth).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if not bool(loss.isfinite()):
        raise TrainingError("the tabular network did not learn: its loss is not finite; take boosted trees instead")


def _batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches, in a new random order for every pass, for ever; the rest of a pass waits for the next."""
    while True:
        order = torch.randperm(rows, generator=generator)
        whole = [part for part in order.split(size) if len(part) == size]
        yield from whole or [order]


def _float(values: FloatArray) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
